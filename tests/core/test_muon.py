"""Muon and Adam as one optimizer, against the published iteration in float64 numpy and torch's own optimizers."""

import copy
import io

import numpy as np
import pytest
import torch
from oracles import array, draw
from torch import nn

from eugen_nerf.core.muon import BatchedMuon, MuonAdam, is_orthogonalised, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(16, 16), (12, 40), (40, 12), (16, 16), (12, 40)]


def reference_direction(update: np.ndarray) -> np.ndarray:
    """Five steps of the quintic iteration on one matrix, as Jordan et al. (2024) have it."""
    a, b, c = COEFFICIENTS
    x = update.T if update.shape[0] > update.shape[1] else update
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if update.shape[0] > update.shape[1] else x


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(draw(*shape, seed=i).to(dtype)) for i, shape in enumerate(SHAPES)]


def set_gradients(params: list[nn.Parameter], seed: int, scale: float = 1.0) -> list[np.ndarray]:
    for i, p in enumerate(params):
        p.grad = (scale * draw(*p.shape, seed=100 * seed + i)).to(p.dtype)
    return [array(p.grad) for p in params]


def test_steps_are_those_of_the_published_iteration() -> None:
    params = parameters()
    expected, momentum = [array(p) for p in params], [np.zeros(p.shape) for p in params]
    optimizer = BatchedMuon(params, lr=0.03, momentum=0.9, weight_decay=0.1)
    for step in range(3):
        for i, gradient in enumerate(set_gradients(params, step)):
            momentum[i] = 0.9 * momentum[i] + 0.1 * gradient
            update = reference_direction(0.1 * gradient + 0.9 * momentum[i])
            rate = 0.03 * 0.2 * max(gradient.shape) ** 0.5
            expected[i] = (1 - 0.03 * 0.1) * expected[i] - rate * update
        optimizer.step()
    for p, truth in zip(params, expected, strict=True):
        np.testing.assert_allclose(array(p), truth, rtol=0, atol=1e-12)


def test_steps_are_near_those_of_torch_which_rounds_to_bfloat16() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    settings = {"lr": 0.03, "weight_decay": 0.1}
    steps = [BatchedMuon(ours, **settings), torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings)]
    for step in range(2):
        for params, optimizer in zip((ours, theirs), steps, strict=True):
            set_gradients(params, step)
            optimizer.step()
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        moved = (b - draw(*b.shape, seed=i).float()).norm()
        assert float((a - b).detach().norm() / moved.detach()) < 0.05


def test_directions_are_nearly_orthogonal_and_know_no_scale() -> None:
    for shape in ((3, 16, 16), (2, 12, 40), (1, 40, 12)):
        batch = draw(*shape)
        directions = orthogonalised(batch, COEFFICIENTS, 5, 1e-7)
        values = np.linalg.svd(array(directions), compute_uv=False)
        # a square matrix has singular values near 0, which five steps do not bring up
        assert values.max() < 1.25
        assert np.median(values) > 0.65
        torch.testing.assert_close(orthogonalised(1e6 * batch, COEFFICIENTS, 5, 1e-7), directions)


def test_updates_do_not_depend_on_the_scale_of_gradients() -> None:
    moved = []
    for scale in (1.0, 1e-3, 1e4):
        params = parameters()
        optimizer = BatchedMuon(params, lr=0.02, weight_decay=0.0)
        for step in range(2):
            set_gradients(params, step, scale)
            optimizer.step()
        moved.append([array(p) for p in params])
    for other in moved[1:]:
        for a, b in zip(moved[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


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
    torch.optim.Adam(theirs.parameters(), lr=0.01).step()
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
