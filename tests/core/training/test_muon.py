"""Muon, against the published iteration in float64 numpy and torch's own optimizer."""

import numpy as np
import pytest
import torch
from oracles import array, draw
from torch import nn

from eugen_nerf.core import BatchedMuon, EUGenConfig, EUGenLinear, LowRankLinear, MonarchLinear
from eugen_nerf.core.layers.factors import update_share
from eugen_nerf.core.training import muon
from eugen_nerf.core.training.muon import orthogonalised

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(16, 16), (12, 40), (40, 12), (16, 16), (12, 40)]


def reference_direction(update: np.ndarray) -> np.ndarray:
    """Five steps of the quintic iteration on one matrix, as Jordan et al. (2024) have it."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
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


@pytest.mark.parametrize("padded", [False, True], ids=["as on a CPU", "as on a GPU"])
def test_steps_are_those_of_the_published_iteration(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if padded:  # all in one batch
        monkeypatch.setattr(muon, "_batch_of", lambda parameter: (1,))
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
        directions = orthogonalised(batch)
        values = np.linalg.svd(array(directions), compute_uv=False)
        # a square matrix has singular values near 0, which five steps do not bring up
        assert values.max() < 1.25
        assert np.median(values) > 0.65
        torch.testing.assert_close(orthogonalised(1e6 * batch), directions)


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


def layers_of_two_factors() -> dict[str, tuple[nn.Module, str, str]]:
    """Layers whose matrix is the product of the two named factors."""
    torch.manual_seed(0)
    eugen = {
        start: EUGenLinear(96, 96, EUGenConfig(num_features=64, phi="identity", start=start))
        for start in ("linear", "kaiming")
    }
    found = {f"EUGen, {start}": (layer, "projection", "weight") for start, layer in eugen.items()}
    return {**found, "low rank": (LowRankLinear(96, 96, 40), "down", "up")}


@pytest.mark.parametrize("name", list(layers_of_two_factors()))
def test_a_product_moves_no_further_than_a_matrix_of_its_own(name: str) -> None:
    """One step from random gradients: the norm of the product's change against that of a dense layer's step."""
    layer, first, second = layers_of_two_factors()[name]
    dense = nn.Linear(96, 96)
    before, own = getattr(layer, second) @ getattr(layer, first), dense.weight.clone()
    for parameter in (*layer.parameters(), *dense.parameters()):
        parameter.grad = torch.randn_like(parameter)
    for module in (layer, dense):
        BatchedMuon([p for p in module.parameters() if p.ndim == 2], lr=0.02).step()
    moved = torch.linalg.matrix_norm(getattr(layer, second) @ getattr(layer, first) - before, 2)
    assert 0.4 < (moved / torch.linalg.matrix_norm(dense.weight - own, 2)).item() < 1.1


def test_the_matrix_of_a_fixed_projection_takes_the_whole_step() -> None:
    fixed = EUGenLinear(32, 32, EUGenConfig(num_features=16, train_projection=False))
    free = EUGenLinear(32, 32, EUGenConfig(num_features=16))
    assert update_share(fixed.weight) == 1.0
    assert update_share(free.weight) == update_share(free.projection) < 1.0


def test_each_diagonal_block_of_a_monarch_layer_moves_as_a_matrix_of_its_own() -> None:
    layer = MonarchLinear(64, 48, 40, blocks=4).double()
    before = array(layer.first).copy()
    layer.first.grad = draw(*layer.first.shape, seed=3)
    gradients = np.split(array(layer.first.grad), 4)
    BatchedMuon([layer.first], lr=0.03, momentum=0.0).step()
    rate = 0.03 * 0.2 * 16**0.5 * update_share(layer.first)
    expected = before - rate * np.concatenate([reference_direction(gradient) for gradient in gradients])
    np.testing.assert_allclose(array(layer.first), expected, rtol=0, atol=1e-12)
