"""The compiled loops of frustums' Gaussians and of their encoding, against formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import array
from torch import Tensor

from eugen_nerf.core import IntegratedEncoding
from eugen_nerf.core.encodings import frustum_points, integrated
from eugen_nerf.core.encodings.compiled_gaussians import can_compile
from eugen_nerf.core.encodings.frustum_points import contracted_gaussians, frustum_gaussians
from eugen_nerf.core.layers.loop_threads import COMPILES
from eugen_nerf.core.rendering.contraction import contract_gaussian
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

needs_numba = pytest.mark.skipif(not COMPILES, reason="numba is not installed")
EPSILON = 2.0**-23
RAYS, SAMPLES = 40, 9


def cones() -> ConeFrustums:
    """From inside the unit ball to far beyond it, long ones and short ones."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(RAYS, 1, 3, generator=generator) * 0.5
    directions = torch.nn.functional.normalize(torch.randn(RAYS, 1, 3, generator=generator), dim=-1)
    directions[:3, 0] = torch.eye(3)
    edges = torch.rand(RAYS, SAMPLES + 1, generator=generator).cumsum(dim=1) * torch.logspace(-2, 3, SAMPLES + 1)
    return ConeFrustums(origins, directions, edges[:, :-1], edges[:, 1:], torch.full((RAYS, 1), 0.001))


def refuse(*_: object) -> None:
    raise AssertionError("PyTorch's operations ran")


@needs_numba
def test_gaussians_are_what_the_operations_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    frustums = cones()
    mean, covariance = contract_gaussian(*frustum_gaussians(frustums.to(torch.float64)))
    monkeypatch.setattr(frustum_points, "contract_gaussian", refuse)
    found_mean, found = contracted_gaussians(frustums)
    assert found_mean.shape == (RAYS, SAMPLES, 3)
    assert found.shape == (RAYS, SAMPLES, 3, 3)
    torch.testing.assert_close(found_mean.double(), mean, atol=2e-6, rtol=0)
    error = (found.double() - covariance).flatten(-2).norm(dim=-1) / covariance.flatten(-2).norm(dim=-1)
    assert float(error.max()) < 1e-4  # an end is rounded to a part in 1e7 of its distance, and lengths are differences
    assert torch.equal(found, found.transpose(-1, -2))


@needs_numba
def test_thin_gaussians_keep_their_width() -> None:
    """Far away a covariance's least variance is a millionth of its largest; multiplied out, it would be lost."""
    frustums = cones()
    exact = torch.linalg.eigvalsh(contract_gaussian(*frustum_gaussians(frustums.to(torch.float64)))[1])
    found = torch.linalg.eigvalsh(contracted_gaussians(frustums)[1].double())
    assert float((exact[..., 0] / exact[..., 2]).min()) < 1e-5
    assert float(((found - exact).abs() / exact[..., 2:]).max()) < 1e-4
    assert float((found[..., 0] / exact[..., 2]).min()) > -1e-6


def expected_features(
    mean: np.ndarray, covariance: np.ndarray, directions: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 14 of arXiv 2103.13415: `[n, 2, levels, directions]`, and its dampings `[n, levels, directions]`."""
    scale = 2.0 ** np.arange(levels)[:, None]
    variance = np.einsum("di,nij,dj->nd", directions, covariance, directions)[:, None]
    phase = scale * (mean @ directions.T)[:, None]
    damping = np.exp(np.minimum(0, -0.5 * scale**2 * variance))
    return np.stack([np.sin(phase) * damping, np.cos(phase) * damping], axis=1), damping


def encoded(mean: Tensor, covariance: Tensor, directions: Tensor, levels: int) -> np.ndarray:
    found = IntegratedEncoding(directions, levels)(mean, covariance)
    assert found.dtype == torch.float32
    return array(found.double()).reshape(len(mean), 2, levels, len(directions))


@needs_numba
@pytest.mark.parametrize(("count", "levels"), [(1, 1), (3, 5), (21, 12)])
def test_features_are_within_the_rounding_of_their_arguments(
    count: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(count)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    mean = torch.randn(600, 3, generator=generator) * torch.logspace(-3, 1, 600)[:, None]
    factor = torch.randn(600, 3, 3, generator=generator) * torch.logspace(-4, 0, 600).flip(0)[:, None, None]
    covariance = factor @ factor.mT
    monkeypatch.setattr(integrated, "_phase_and_damping", refuse)
    found = encoded(mean, covariance, directions, levels)
    exact, damping = expected_features(*(array(v.double()) for v in (mean, covariance, directions)), levels)
    scale, traces = 2.0 ** np.arange(levels)[:, None], np.einsum("nii->n", array(covariance))[:, None, None]
    sizes = scale * np.linalg.norm(array(mean), axis=1)[:, None, None]
    bound = 4 * EPSILON * (1 + sizes + scale**2 * traces * damping)
    assert (np.abs(found - exact) <= bound[:, None]).all()
    assert (np.abs(found) <= 1).all()


@needs_numba
def test_all_phases() -> None:
    """Whole turns, halves, quarters and what lies between, along one axis."""
    phases = torch.cat([torch.linspace(-30, 30, 20_001), torch.arange(-40, 41) * (math.pi / 4)])
    mean = torch.stack([phases, torch.zeros_like(phases), torch.zeros_like(phases)], dim=-1)
    found = encoded(mean, torch.zeros(len(mean), 3, 3), torch.eye(3)[:1], 1)[:, :, 0, 0]
    exact = phases.double()
    bound = EPSILON * (1 + exact.abs())[:, None]
    assert (torch.from_numpy(found) - torch.stack([exact.sin(), exact.cos()], dim=-1)).abs().le(bound).all()


@needs_numba
def test_all_dampings() -> None:
    exponents = torch.linspace(0, -60, 6001)
    covariance = torch.zeros(len(exponents), 3, 3)
    covariance[:, 1, 1] = -2 * exponents
    found = encoded(torch.zeros(len(exponents), 3), covariance, torch.eye(3)[1:2], 1)[:, 1, 0, 0]
    kept = array(exponents) > integrated.LEAST_EXPONENT * 0.998
    np.testing.assert_allclose(found[kept], np.exp(array(exponents.double()))[kept], rtol=1e-5)
    assert (found[array(exponents) < integrated.LEAST_EXPONENT] == 0).all()


@needs_numba
def test_what_is_no_number_stays_none() -> None:
    mean, covariance = torch.zeros(4, 3), torch.zeros(4, 3, 3)
    mean[0, 0], mean[1, 1], covariance[2, 2, 2] = math.nan, math.inf, math.nan
    found = IntegratedEncoding(torch.eye(3), 2)(mean, covariance).isnan().any(dim=1)
    assert found.tolist() == [True, True, True, False]
    far = IntegratedEncoding(torch.eye(3), 4)(torch.full((1, 3), 1e30), torch.zeros(1, 3, 3))
    assert bool((far.abs() <= 1).all())


@needs_numba
def test_threads_give_the_same_bits() -> None:
    mean, covariance = torch.rand(2000, 3), 0.01 * torch.eye(3).expand(2000, 3, 3)
    encoding, threads = IntegratedEncoding(torch.eye(3), 6), torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(encoding(mean, covariance))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_gradients_and_other_dtypes_are_left_to_the_operations() -> None:
    mean, covariance, directions = torch.rand(5, 3), torch.zeros(5, 3, 3), torch.eye(3)
    assert can_compile(mean, covariance, directions) == COMPILES
    assert not can_compile(mean.double(), covariance.double(), directions.double())
    assert not can_compile(mean, covariance.requires_grad_(), directions)
    frustums = cones()
    frustums.origins.requires_grad_()
    mean, covariance = contracted_gaussians(frustums)
    (mean.square().sum() + covariance.sum()).backward()
    assert frustums.origins.grad is not None
    assert frustums.origins.grad.abs().sum() > 0
