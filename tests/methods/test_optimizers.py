"""The presets' optimizers: Adam as torch has it, fused, whose states fit runs of before."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers
from torch import nn

from eugen_nerf.core import NeRFShape, Replacement, build_variant
from eugen_nerf.methods import trainer
from eugen_nerf.methods.optimizers import AdamWOptimizerConfig, FieldOptimizerConfig, FusedAdam, FusedAdamW, MuonAdam

PLAIN = {FusedAdam: torch.optim.Adam, FusedAdamW: torch.optim.AdamW}
RATES: dict[str, Any] = {"lr": 0.01, "eps": 1e-8, "weight_decay": 0.1}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (3,))]


def descend(optimizer: torch.optim.Optimizer, steps: range) -> list[torch.Tensor]:
    """Steps by gradients that their number decides; returns the parameters."""
    values = optimizer.param_groups[0]["params"]
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        for value in values:
            value.grad = torch.randn(value.shape, generator=generator)
        optimizer.step()
    return [value.detach().clone() for value in values]


def through_a_file(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("ours", PLAIN)
def test_steps_are_those_of_torch(ours: type) -> None:
    optimizer = ours(parameters(), **RATES)
    assert optimizer.defaults["fused"], "a CPU has a fused step since torch 2.4"
    expected = descend(PLAIN[ours](parameters(), **RATES), range(5))
    for a, b in zip(descend(optimizer, range(5)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ours", PLAIN)
def test_a_step_is_seen_by_what_is_kept_of_the_parameters(ours: type) -> None:
    """torch's fused steps leave versions as they are, by which a collapsed network knows that it is stale."""
    graph = build_variant(NeRFShape(3, 2, 2, 8, (), 0, 1, 4), "dense", Replacement())
    optimizer, inputs = ours(graph.parameters(), lr=0.1), (torch.rand(4, 3), torch.rand(4, 2))
    with torch.no_grad():
        before = graph(*inputs)
    for step in range(2):
        optimizer.zero_grad()
        torch.stack([y.square().sum() for y in graph(*inputs)]).sum().backward()
        optimizer.step()
        with torch.no_grad():
            after = graph(*inputs)
            torch.testing.assert_close(after, graph.collapse()(*inputs), rtol=0, atol=0)
        assert not any(map(torch.equal, before, after)), step
        before = after


@pytest.mark.parametrize("direction", ["from torch's", "to torch's"])
@pytest.mark.parametrize("ours", PLAIN)
def test_a_run_goes_on_from_a_state_of_the_other_kind(ours: type, direction: str) -> None:
    plain = PLAIN[ours]
    first, second = (plain, ours) if direction == "from torch's" else (ours, plain)
    expected = descend(plain(parameters(), **RATES), range(8))
    before = first(parameters(), **RATES)
    values = descend(before, range(4))
    after = second([nn.Parameter(v) for v in values], **RATES)
    state = through_a_file(before.state_dict())
    untouched = copy.deepcopy(state["param_groups"])
    after.load_state_dict(state)
    assert state["param_groups"] == untouched
    if second is ours:
        assert after.param_groups[0]["fused"], "the state of before says nothing of it"
    for a, b in zip(descend(after, range(4, 8)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_device_without_a_fused_step_has_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.optim.Adam.__init__

    def refuse(self: Any, params: Any, *args: Any, **options: Any) -> None:
        if options.get("fused"):
            raise RuntimeError("`fused=True` requires all the params to be floating point Tensors of supported devices")
        original(self, params, *args, **options)

    fused = FusedAdam(parameters(), **RATES)
    descend(fused, range(2))
    monkeypatch.setattr(torch.optim.Adam, "__init__", refuse)
    optimizer = FusedAdam(iter(parameters()), **RATES)
    assert not optimizer.defaults["fused"]
    optimizer.load_state_dict(fused.state_dict())
    assert not optimizer.param_groups[0]["fused"], "made where there is one, loaded where there is none"
    descend(optimizer, range(2, 4))


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_a_scaled_loss_makes_the_same_step_and_an_infinite_one_none(max_norm: float | None) -> None:
    """By nerfstudio's own optimizers, which clip."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    found = []
    for scaled in (True, False):
        values = parameters()
        optimizers = Optimizers(
            {"fields": {"optimizer": FieldOptimizerConfig(lr=0.01, max_norm=max_norm), "scheduler": None}},
            {"fields": values},
        )
        loss = torch.stack([v.square().sum() for v in values]).sum()
        if scaled:
            scaler.scale(loss).backward()
            optimizers.optimizer_scaler_step_all(scaler)
            scaler.update()
        else:
            loss.backward()
            optimizers.optimizer_step_all()
        found.append([v.detach().clone() for v in values])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    values = parameters()
    optimizers = Optimizers(
        {"fields": {"optimizer": FieldOptimizerConfig(lr=0.01), "scheduler": None}}, {"fields": values}
    )
    scaler.scale(torch.stack([(v * float("inf")).sum() for v in values]).sum()).backward()
    optimizers.optimizer_scaler_step_all(scaler)
    scaler.update()
    assert all(map(torch.equal, values, parameters()))
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("method", sorted(name for name in all_methods if name.startswith("eugen-")))
def test_every_preset_has_a_fused_optimizer(method: str) -> None:
    for group in all_methods[method].optimizers.values():
        assert type(group["optimizer"].setup(parameters())) in (*PLAIN, MuonAdam)


def test_configurations_of_before_load() -> None:
    """eugen-isdf's class stood in another module; the others had nerfstudio's own."""
    text = (
        "!!python/object:eugen_nerf.methods.trainer.AdamWOptimizerConfig\n"
        "_target: !!python/name:torch.optim.adamw.AdamW ''\n"
        "eps: 1.0e-08\nlr: 0.0013\nmax_norm: null\nweight_decay: 0.012\n"
    )
    loaded = yaml.load(text, Loader=yaml.Loader)
    assert type(loaded) is AdamWOptimizerConfig is trainer.AdamWOptimizerConfig
    assert type(loaded.setup(parameters())) is torch.optim.AdamW
    for config in (AdamWOptimizerConfig(lr=0.1), FieldOptimizerConfig(lr=0.1), AdamOptimizerConfig(lr=0.1)):
        again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
        assert again == config
