"""Muon and Adam as one optimizer, as nerfstudio uses it."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_runs import shrink_dnerf, shrink_nerf, shrink_ngp, shrink_unbounded, tiny_config
from torch import nn

from eugen_nerf.core import is_orthogonalised
from eugen_nerf.methods.optimizers import FieldOptimizerConfig, FusedAdam, MuonAdam


def model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "table": nn.Embedding(1 << 14, 4),
            "wide": nn.Embedding(1 << 14, 16),
            "first": nn.Linear(20, 32),
            "second": nn.Linear(32, 32),
            "density": nn.Linear(32, 1),
        }
    )


def loss_of(net: nn.ModuleDict, step: int) -> torch.Tensor:
    rows = torch.arange(50) + step
    x = torch.cat([net["table"](rows), net["wide"](rows)], dim=1)
    return net["density"](net["second"](net["first"](x).relu()).relu()).square().mean()


def train(net: nn.ModuleDict, optimizer: MuonAdam, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(net, step).backward()
        optimizer.step()


def test_matrices_between_hidden_layers_go_to_muon_and_all_else_to_adam() -> None:
    chosen = {name for name, p in model().named_parameters() if is_orthogonalised(p)}
    assert chosen == {"first.weight", "second.weight"}


def test_the_rest_moves_as_by_adam() -> None:
    """One step, after which the matrices, and with them the gradients, differ."""
    ours, theirs = model(), model()
    loss_of(ours, 0).backward()
    MuonAdam(ours.parameters(), lr=0.02, adam_ratio=0.5).step()
    loss_of(theirs, 0).backward()
    FusedAdam(theirs.parameters(), lr=0.01).step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b) != is_orthogonalised(a), name


def test_a_resumed_training_goes_on_bit_for_bit() -> None:
    whole = model()
    train(whole, MuonAdam(whole.parameters()), range(6))
    first = model()
    optimizer = MuonAdam(first.parameters())
    train(first, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = model()
    second.load_state_dict(state["net"])
    optimizer = MuonAdam(second.parameters())
    optimizer.load_state_dict(state["optimizer"])
    train(second, optimizer, range(3, 6))
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_optimizers_state_is_refused() -> None:
    net = model()
    adam = torch.optim.Adam(net.parameters())
    with pytest.raises(ValueError, match=r"holds state, param_groups and not muon, adam.*trained with"):
        MuonAdam(net.parameters()).load_state_dict(adam.state_dict())


def test_schedulers_move_both_rates_after_loading_too() -> None:
    net = model()
    optimizer = MuonAdam(net.parameters(), lr=0.04, adam_ratio=0.25)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    before = copy.deepcopy(net.state_dict())
    optimizer.step()  # without gradients nothing moves
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.005]
    assert all(torch.equal(a, before[name]) for name, a in net.state_dict().items())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(net, optimizer, range(1))
    assert all(torch.equal(a, before[name]) for name, a in net.state_dict().items())


@pytest.mark.parametrize("finite", [True, False])
def test_a_gradient_scaler_is_obeyed(finite: bool) -> None:
    scaled, plain = model(), model()
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    optimizer = MuonAdam(scaled.parameters())
    scaler.scale(loss_of(scaled, 0)).backward()
    if not finite:
        scaled["density"].bias.grad.fill_(float("inf"))
    scaler.step(optimizer)
    if finite:
        train(plain, MuonAdam(plain.parameters()), range(1))
    for a, b in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


SHRUNK = {
    "eugen-nerf-small": ("tiny_blender", shrink_nerf),
    "eugen-ngp-small": ("tiny_blender", shrink_ngp),
    "eugen-mipnerf360-small": ("tiny_nerfstudio", shrink_unbounded),
    "eugen-zipnerf-small": ("tiny_nerfstudio", shrink_unbounded),
    "eugen-dnerf-hash-small": ("tiny_dnerf", shrink_dnerf),
}


@pytest.mark.parametrize("method", SHRUNK)
def test_a_run_of_every_family_is_saved_and_goes_on(
    method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Through nerfstudio's trainer, clipping, schedulers and checkpoint; the configuration through its file."""
    fixture, shrink = SHRUNK[method]
    config = tiny_config(method, request.getfixturevalue(fixture), tmp_path, 0, 3)
    shrink(config.pipeline.model)
    for group in config.optimizers.values():
        group["optimizer"] = FieldOptimizerConfig(algorithm="muon", lr=1e-2, max_norm=1e-3)
    config = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    first = trained(config)
    config.load_dir, config.timestamp, config.max_num_iterations = first.checkpoint_dir, "resumed", 5
    states: list[Any] = []
    second = trained(config, lambda trainer: states.append(states_of(trainer)))
    assert all(isinstance(optimizer, MuonAdam) for optimizer in first.optimizers.optimizers.values())
    torch.testing.assert_close(states[0], states_of(first), rtol=0, atol=0)
    tables = [p for n, p in second.pipeline.model.named_parameters() if "table" in n]
    assert bool(tables) == any(word in method for word in ("hash", "ngp", "zipnerf"))
    assert not any(is_orthogonalised(table) for table in tables)
    moved = dict(first.pipeline.model.named_parameters())
    assert any(not torch.equal(p, moved[n]) for n, p in second.pipeline.model.named_parameters())


def states_of(trainer: Any) -> dict[str, Any]:
    return {name: copy.deepcopy(o.state_dict()) for name, o in trainer.optimizers.optimizers.items()}


def trained(config: Any, watch: Any = lambda trainer: None) -> Any:
    """The trainer of a configuration, after training."""
    from eugen_nerf.methods.runs.loading import without_lpips

    config.save_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer = config.setup(local_rank=0, world_size=1)
        with without_lpips():
            trainer.setup()
        watch(trainer)
        trainer.train()
    return trainer
