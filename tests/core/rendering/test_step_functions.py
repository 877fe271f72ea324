"""Step functions along rays, against numerical integration and loops; and the losses of nerfstudio that we use."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles import array
from torch import Tensor

from eugen_nerf.core.rendering.step_functions import (
    annealed,
    antialiased_interlevel_loss,
    blur_and_resample,
    inverse_power_transform,
    power_transform,
)

Array = np.ndarray
EXPONENTS = [-1.5, -0.25, 0.5, 2.0]


def step_function(rays: int, n: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Edges from `low` to `high`, and weights with a sum below 1."""
    rng = np.random.default_rng(seed)
    inner = np.sort(rng.uniform(low, high, (rays, n - 1)), axis=1)
    ends = np.ones((rays, 1))
    w = rng.random((rays, n)) ** 3
    w *= rng.uniform(0.3, 1, (rays, 1)) / w.sum(axis=1, keepdims=True)
    return torch.from_numpy(np.concatenate([low * ends, inner, high * ends], axis=1)), torch.from_numpy(w)


def integral(t: Array, w: Array, q: Array) -> Array:
    """Of one ray's step function up to q."""
    return np.interp(q, t, np.concatenate([[0.0], np.cumsum(w)]))


# ---- power transformation


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_power_transform_against_its_equation_and_inverse(exponent: float) -> None:
    x = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 300)])
    y = power_transform(torch.from_numpy(x), exponent)
    s = abs(exponent - 1)
    np.testing.assert_allclose(array(y), s / exponent * ((x / s + 1) ** exponent - 1), rtol=1e-12, atol=1e-15)
    assert bool((y.diff() > 0).all())
    np.testing.assert_allclose(array(inverse_power_transform(y, exponent)), x, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_power_transform_is_the_identity_near_zero(exponent: float) -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert power_transform(x, exponent).item() == 0
    for function in (power_transform, inverse_power_transform):
        (slope,) = torch.autograd.grad(function(x, exponent).sum(), x)
        assert slope.item() == pytest.approx(1, abs=1e-14)
    small = torch.full((1,), 1e-5, dtype=torch.float64)
    assert power_transform(small, exponent).item() == pytest.approx(1e-5, rel=1e-4)


def test_negative_exponents_bound_the_transform() -> None:
    """|l - 1| / |l| = 5/3 for the -1.5 of the paper: infinity has a finite place; positive exponents have no bound."""
    y = power_transform(torch.tensor([1e3, 1e6, 1e9], dtype=torch.float64), -1.5)
    assert bool((y < 5 / 3).all())
    assert y[-1].item() == pytest.approx(5 / 3, abs=1e-8)
    assert power_transform(torch.tensor(1e9, dtype=torch.float64), 0.5).item() > 1e4


def test_the_inverse_is_finite_up_to_the_bound_in_float32() -> None:
    """Float32 cannot tell 1e6 from infinity at exponent -1.5; the way back must still be a distance."""
    far = power_transform(torch.tensor([1e3, 1e5, 1e6, 1e9]), -1.5)
    bound = torch.tensor([5 / 3])
    y = torch.cat([far, bound, torch.nextafter(bound, 2 * bound)])
    x = inverse_power_transform(y, -1.5)
    assert bool(torch.isfinite(x).all())
    assert bool((x.diff() >= 0).all())
    assert x[0].item() == pytest.approx(1e3, rel=1e-3)
    assert x[1].item() == pytest.approx(1e5, rel=0.1)
    assert bool((x[2:] > 1e5).all())


@pytest.mark.parametrize("exponent", [0, 1, 0.0, 1.0])
def test_the_limits_are_refused(exponent: float) -> None:
    for function in (power_transform, inverse_power_transform):
        with pytest.raises(ValueError, match=f"must not be {exponent:g}; take a number close to it"):
            function(torch.ones(1), exponent)


# ---- blurring


@pytest.mark.parametrize("cells", [20, 150, 900])
def test_blurring_against_a_convolution_on_a_fine_grid(cells: int) -> None:
    """Masses of 1e-4 wide cells, convolved with a box of `2 cells + 1` of them; exact for edges within half cells."""
    step = 1e-4
    halfwidth = (cells + 0.5) * step
    t, w = step_function(4, 7, seed=cells, low=0.2, high=0.8)
    t = ((t / step).round() + 0.5) * step
    grid = np.arange(10_001) * step
    rng = np.random.default_rng(1)
    # half of the queries near the edges, where the blur matters most
    near = np.rint(array(t)[:, 1:-1] / step).astype(int) + rng.integers(-cells, cells, (4, 6))
    index = np.sort(np.concatenate([near, rng.integers(0, 10_001, (4, 6))], axis=1), axis=1)
    found = blur_and_resample(t, w, torch.from_numpy(grid[index]), halfwidth)
    for ray in range(4):
        mass = np.diff(integral(array(t)[ray], array(w)[ray], grid))
        blurred = np.convolve(mass, np.ones(2 * cells + 1) / (2 * cells + 1), mode="same")
        up_to = np.concatenate([[0.0], np.cumsum(blurred)])
        np.testing.assert_allclose(array(found)[ray], np.diff(up_to[index[ray]]), rtol=0, atol=1e-10)
        sharp = np.diff(integral(array(t)[ray], array(w)[ray], grid[index[ray]]))
        assert np.abs(array(found)[ray] - sharp).max() > 1e-4  # so the tolerance distinguishes it from no blur


@pytest.mark.parametrize("halfwidth", [1e-4, 0.03, 0.4])
def test_weight_is_kept_where_the_queries_reach_beyond(halfwidth: float) -> None:
    t, w = step_function(20, 9, seed=2)
    queries, _ = step_function(20, 13, seed=3, low=-halfwidth, high=1 + halfwidth)
    found = blur_and_resample(t, w, queries, halfwidth)
    assert found.shape == (20, 13)
    assert bool((found >= 0).all())
    np.testing.assert_allclose(array(found).sum(axis=1), array(w).sum(axis=1), rtol=1e-9)
    inside = blur_and_resample(t, w, queries.clamp(0.3, 0.7), halfwidth)
    assert bool((inside.sum(dim=-1) < w.sum(dim=-1) - 1e-3).all())


def test_rounding_makes_no_negative_weight() -> None:
    """A narrow blur far from the only weight: differences of equal numbers."""
    t, _ = step_function(20, 9, seed=21)
    w = torch.zeros(20, 9).double()
    w[:, 0] = 1
    queries, _ = step_function(20, 200, seed=22, low=-0.1)
    found = blur_and_resample(t, w, queries, 1e-6)
    assert bool((found >= 0).all())
    assert float(found.sum()) == pytest.approx(20, abs=1e-4)


def test_more_queries_only_split_the_weights() -> None:
    t, w = step_function(5, 6, seed=4)
    fine, _ = step_function(5, 12, seed=5)
    whole = blur_and_resample(t, w, fine[:, ::3].contiguous(), 0.07)
    parts = blur_and_resample(t, w, fine, 0.07).reshape(5, 4, 3).sum(dim=-1)
    np.testing.assert_allclose(array(whole), array(parts), rtol=1e-9, atol=1e-12)


def test_a_vanishing_blur_is_plain_resampling() -> None:
    t, w = step_function(10, 8, seed=6)
    queries, _ = step_function(10, 15, seed=7)
    found = array(blur_and_resample(t, w, queries, 1e-7))
    for ray in range(10):
        expected = np.diff(integral(array(t)[ray], array(w)[ray], array(queries)[ray]))
        np.testing.assert_allclose(found[ray], expected, atol=1e-5)


@pytest.mark.parametrize("halfwidth", [0.0, 1e-300, 1e-16, 1e-12, 1e-9])
def test_no_blur_and_next_to_none_are_plain_resampling(halfwidth: float) -> None:
    """Down to half-widths that float64 cannot add to an edge."""
    t, w = step_function(10, 8, seed=6)
    queries, _ = step_function(10, 15, seed=7)
    found = array(blur_and_resample(t, w, queries, halfwidth))
    for ray in range(10):
        expected = np.diff(integral(array(t)[ray], array(w)[ray], array(queries)[ray]))
        np.testing.assert_allclose(found[ray], expected, atol=1e-7)
    np.testing.assert_allclose(array(blur_and_resample(t, w, t, halfwidth)), array(w), atol=1e-7)
    assert antialiased_interlevel_loss(t, w, [(t, w)], [halfwidth]).item() < 1e-12


@pytest.mark.parametrize("halfwidth", [-0.01, math.inf, math.nan])
def test_half_widths_that_are_none_are_refused(halfwidth: float) -> None:
    t, w = step_function(2, 3, seed=6)
    with pytest.raises(ValueError, match=r"0 \(none\) or a positive number, got"):
        blur_and_resample(t, w, t, halfwidth)


def test_weight_in_an_interval_without_length_is_kept() -> None:
    """A point mass, blurred, is the box itself."""
    t = torch.tensor([[0.2, 0.5, 0.5, 0.8]]).double()
    w = torch.tensor([[0.0, 1.0, 0.0]]).double()
    queries = torch.tensor([[0.0, 0.4, 0.5, 0.55, 1.0]]).double()
    np.testing.assert_allclose(array(blur_and_resample(t, w, queries, 0.1))[0], [0, 0.5, 0.25, 0.25], atol=1e-6)


def test_float32_is_blurred_in_float64() -> None:
    """A narrow blur of float32 edges: summing in float32 would leave no digit."""
    t, w = step_function(8, 64, seed=8)
    queries, _ = step_function(8, 64, seed=9)
    short = [v.float() for v in (t, w, queries)]
    found = blur_and_resample(*short, 1e-5)
    torch.testing.assert_close(found, blur_and_resample(*(v.double() for v in short), 1e-5), rtol=0, atol=0)


# ---- the antialiased loss


def test_no_loss_where_the_proposal_bounds_the_blurred_weights() -> None:
    t, w = step_function(6, 10, seed=10)
    edges, _ = step_function(6, 5, seed=11)
    bound = blur_and_resample(t, w, edges, 0.05)
    for factor in (1.0, 1.5):
        assert antialiased_interlevel_loss(t, w, [(edges, factor * bound)], [0.05]).item() == 0
    assert antialiased_interlevel_loss(t, w, [(edges, 0.9 * bound)], [0.05]).item() > 1e-4


def test_the_loss_is_its_definition() -> None:
    t, w = step_function(6, 10, seed=12)
    proposals, halfwidths = [step_function(6, 4, seed=13), step_function(6, 7, seed=14)], [0.1, 0.01]
    expected = 0.0
    for (edges, weights), halfwidth in zip(proposals, halfwidths, strict=True):
        target = array(blur_and_resample(t, w, edges, halfwidth))
        terms = [max(0.0, a - b) ** 2 / (b + 1e-7) for a, b in zip(target.flat, array(weights).flat, strict=True)]
        expected += sum(terms) / len(terms)
    assert antialiased_interlevel_loss(t, w, proposals, halfwidths).item() == pytest.approx(expected, rel=1e-10)


def test_the_loss_teaches_the_proposals_alone() -> None:
    t, w = (v.requires_grad_() for v in step_function(6, 10, seed=15))
    edges, weights = (v.requires_grad_() for v in step_function(6, 5, seed=16))
    antialiased_interlevel_loss(t, w, [(edges, weights)], [0.05]).backward()
    assert t.grad is None
    assert w.grad is None
    assert edges.grad is None
    assert weights.grad is not None
    missing = blur_and_resample(t.detach(), w.detach(), edges.detach(), 0.05) > weights.detach()
    assert bool(missing.any())
    assert bool((~missing).any())
    assert bool((weights.grad[missing] < 0).all())  # more weight where some is missing
    assert not weights.grad[~missing].any()


def test_the_loss_keeps_the_dtype_and_refuses_rounds_without_halfwidth() -> None:
    t, w = (v.float() for v in step_function(2, 4))
    assert antialiased_interlevel_loss(t, w, [(t, w)], [0.1]).dtype == torch.float32
    with pytest.raises(ValueError, match="zip"):
        antialiased_interlevel_loss(t, w, [(t, w)], [0.1, 0.2])


# ---- annealing


@pytest.mark.parametrize("slope", [1.0, 10.0])
def test_annealing_goes_from_flat_to_the_weights(slope: float) -> None:
    _, w = step_function(3, 6, seed=17)
    w = torch.cat([w, torch.zeros(3, 1)], dim=1)
    assert torch.equal(annealed(w, 0.0, slope), torch.ones(3, 7).double())
    assert torch.equal(annealed(w, 1.0, slope), w)
    found = [annealed(w, f, slope)[:, :-1] for f in np.linspace(0, 1, 11)]
    assert all(bool((later < earlier).all()) for earlier, later in pairwise(found))
    exponent = slope * 0.3 / (slope * 0.3 + 0.7)  # the bias curve, written as odds
    np.testing.assert_allclose(array(found[3]), array(w)[:, :-1] ** exponent, rtol=1e-12)


# ---- nerfstudio's losses


def test_the_distortion_loss_against_loops_and_the_double_integral() -> None:
    losses = pytest.importorskip("nerfstudio.model_components.losses")
    t, w = step_function(3, 6, seed=18)
    found = array(losses.lossfun_distortion(t, w))
    for ray, (edges, weights) in enumerate(zip(array(t), array(w), strict=True)):
        middle, length = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        total = sum(weights[i] * weights[j] * abs(middle[i] - middle[j]) for i in range(6) for j in range(6))
        total += sum(weights[i] ** 2 * length[i] for i in range(6)) / 3
        assert found[ray] == pytest.approx(total, rel=1e-10)
        grid = np.linspace(0, 1, 801)
        mass, centre = np.diff(integral(edges, weights, grid)), (grid[1:] + grid[:-1]) / 2
        double = (mass[:, None] * mass * np.abs(centre[:, None] - centre)).sum()
        assert found[ray] == pytest.approx(double, rel=5e-3)


def test_the_outer_loss_against_loops_and_a_bound() -> None:
    losses = pytest.importorskip("nerfstudio.model_components.losses")
    t, w = step_function(8, 12, seed=19)
    edges, envelope = step_function(8, 5, seed=20)
    found = array(losses.lossfun_outer(t, w, edges, envelope))
    assert found.shape == (8, 12)
    assert (found > 1e-6).any()
    assert (found == 0).any()
    for ray in range(8):
        for i in range(12):
            start, end = array(t)[ray, i], array(t)[ray, i + 1]
            touched = sum(
                float(envelope[ray, k]) for k in range(5) if edges[ray, k] < end and edges[ray, k + 1] > start
            )
            weight = float(w[ray, i])
            expected = max(0.0, weight - touched) ** 2 / (weight + losses.EPS)
            assert found[ray, i] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    bound = blur_and_resample(t, w, edges, 1e-9) + 1e-6  # the weights, resampled
    assert not losses.lossfun_outer(t, w, edges, bound).any()
