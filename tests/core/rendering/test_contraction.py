"""The contraction of points and Gaussians, against its definition in numpy, autograd and Monte Carlo."""

import numpy as np
import pytest
import torch
from oracles import array, draw
from torch import Tensor

from eugen_nerf.core.rendering.contraction import contract, contract_gaussian, contraction_scale, inverse_contract

Array = np.ndarray


def points(radii: Array, seed: int = 0) -> Tensor:
    """One point a radius, in random directions."""
    x = draw(len(radii), 3, seed=seed)
    return x / x.norm(dim=-1, keepdim=True) * torch.from_numpy(radii)[:, None]


def covariances(n: int, scale: Array, seed: int = 0) -> Tensor:
    """Positive definite and far from isotropic, of size scale^2."""
    factor = draw(n, 3, 3, seed=seed) * torch.tensor([1.0, 0.5, 0.1]) * torch.from_numpy(scale)[:, None, None]
    return factor @ factor.transpose(-1, -2)


def jacobian(x: Tensor) -> Tensor:
    """`[3, 3]` by autograd."""
    return torch.autograd.functional.jacobian(contract, x)


# radii on both sides of the unit sphere, none on it: there the second derivative jumps
RADII = np.array([1e-3, 0.1, 0.5, 0.9, 0.999, 1.001, 1.1, 2.0, 7.0, 100.0, 1e4])


def test_points_against_the_definition() -> None:
    x = array(points(np.geomspace(1e-3, 1e4, 200)))
    expected = [p if np.linalg.norm(p) <= 1 else (2 - 1 / np.linalg.norm(p)) * p / np.linalg.norm(p) for p in x]
    np.testing.assert_allclose(array(contract(torch.from_numpy(x))), np.stack(expected), rtol=1e-13)


def test_everything_lands_inside_radius_two() -> None:
    radii = np.geomspace(1e-3, 1e10, 300)
    norms = contract(points(radii)).norm(dim=-1)
    assert bool((norms < 2).all())
    assert norms[-1] > 2 - 1e-9  # and the bound is reached
    assert bool((norms.diff() > 0).all())


def test_the_unit_ball_stays_as_it_is() -> None:
    x = points(np.linspace(0, 0.999, 100))
    assert torch.equal(contract(x), x)
    assert torch.equal(contract(torch.eye(3)), torch.eye(3))
    assert not torch.equal(contract(1.01 * torch.eye(3)), 1.01 * torch.eye(3))


def test_the_inverse_inverts() -> None:
    x = points(np.geomspace(1e-3, 1e4, 200))
    np.testing.assert_allclose(array(inverse_contract(contract(x))), array(x), rtol=1e-10)
    z = points(np.linspace(0, 1.999, 200), seed=1)
    np.testing.assert_allclose(array(contract(inverse_contract(z))), array(z), rtol=1e-10)


def test_far_points_in_float32() -> None:
    x = points(np.full(50, 1e6)).float().requires_grad_()
    z = contract(x)
    assert z.dtype == torch.float32
    truth = contract(x.double())
    torch.testing.assert_close(z.double(), truth, rtol=1e-6, atol=0)
    scale = contraction_scale(x)
    torch.testing.assert_close(scale.double(), contraction_scale(x.double()), rtol=1e-5, atol=0)
    mean, covariance = contract_gaussian(x, 1e8 * torch.eye(3).expand(50, 3, 3))
    for result in (z, scale, mean, covariance):
        assert bool(torch.isfinite(result).all())
    assert bool((scale > 0).all())
    (gradient,) = torch.autograd.grad(z.sum() + scale.sum() + covariance.sum(), x)
    assert bool(torch.isfinite(gradient).all())


def test_gradients_at_the_origin() -> None:
    assert torch.equal(jacobian(torch.zeros(3)), torch.eye(3))
    inverse = torch.autograd.functional.jacobian(inverse_contract, torch.zeros(3))
    assert torch.equal(inverse, torch.eye(3))
    x, sigma = torch.zeros(1, 3, requires_grad=True), torch.eye(3)[None].clone().requires_grad_()
    mean, covariance = contract_gaussian(x, sigma)
    scale = contraction_scale(x)
    x_grad, sigma_grad = torch.autograd.grad(mean.sum() + (covariance**2).sum() + scale.sum(), (x, sigma))
    assert torch.equal(x_grad, torch.ones(1, 3))
    assert torch.equal(sigma_grad, 2 * sigma.detach())


@pytest.mark.parametrize("radius", RADII)
def test_the_jacobian_against_finite_differences(radius: float) -> None:
    x = points(np.array([radius]), seed=3)[0]
    step = 1e-6 * max(radius, 0.1)
    columns = [(contract(x + step * e) - contract(x - step * e)) / (2 * step) for e in torch.eye(3).double()]
    found = jacobian(x)
    expected = torch.stack(columns, dim=1)
    assert float((found - expected).norm()) < 1e-7 * float(expected.norm())
    radial = x / radius  # the two eigenvalues that the module's docstring names
    np.testing.assert_allclose(float(radial @ found @ radial), min(1, radius**-2), rtol=1e-6)


def test_gaussians_against_autograd() -> None:
    mean = points(RADII, seed=4)
    sigma = covariances(len(RADII), 0.3 * RADII, seed=5)
    found_mean, found = contract_gaussian(mean, sigma)
    torch.testing.assert_close(found_mean, contract(mean), rtol=1e-14, atol=0)
    for x, s, c in zip(mean, sigma, found, strict=True):
        j = jacobian(x)
        expected = j @ s @ j.T
        np.testing.assert_allclose(array(c), array(expected), rtol=0, atol=1e-12 * float(expected.norm()))
        assert torch.equal(c, c.T) or float((c - c.T).abs().max()) < 1e-15 * float(c.norm())


def test_gaussians_broadcast_over_leading_dimensions() -> None:
    mean, sigma = 3 * draw(2, 4, 3), covariances(8, np.ones(8)).reshape(2, 4, 3, 3)
    whole_mean, whole = contract_gaussian(mean, sigma)
    for i in range(2):
        for j in range(4):
            one_mean, one = contract_gaussian(mean[i, j], sigma[i, j])
            torch.testing.assert_close(whole_mean[i, j], one_mean)
            torch.testing.assert_close(whole[i, j], one)


@pytest.mark.parametrize("radius", [0.5, 1.5, 6.0, 50.0])
def test_small_gaussians_against_monte_carlo(radius: float) -> None:
    """Samples pushed through the contraction: their moments, to five standard errors."""
    count, size = 200_000, 1e-3 * radius
    mean, sigma = points(np.array([radius]), seed=6)[0], covariances(1, np.array([size]), seed=7)[0]
    samples = mean + draw(count, 3, seed=8) @ torch.linalg.cholesky(sigma).T
    moved = array(contract(samples))
    found_mean, found = contract_gaussian(mean, sigma)
    c = np.cov(moved.T)
    error = np.sqrt((np.outer(np.diag(c), np.diag(c)) + c**2) / count)
    assert (np.abs(array(found) - c) < 5 * error).all()
    # the mean is off by half the second derivative times the variance, below size^2 / radius here
    bias = size**2 / radius**2
    assert (np.abs(array(found_mean) - moved.mean(axis=0)) < 5 * np.sqrt(np.diag(c) / count) + bias).all()


def test_the_scale_is_the_cube_root_of_the_determinant() -> None:
    x = points(RADII, seed=9)
    expected = [float(torch.linalg.det(jacobian(p))) ** (1 / 3) for p in x]
    np.testing.assert_allclose(array(contraction_scale(x))[:, 0], expected, rtol=1e-10)
    assert torch.equal(contraction_scale(x[RADII < 1]), torch.ones(int((RADII < 1).sum()), 1).double())
    # so it keeps the volume of a small isotropic Gaussian
    _, covariance = contract_gaussian(x, 1e-6 * torch.eye(3).double().expand(len(x), 3, 3))
    width = torch.linalg.det(covariance) ** (1 / 6)  # at 1e4 the radial variance is 1e-9 of the others: digits are lost
    np.testing.assert_allclose(array(width), 1e-3 * np.array(expected), rtol=1e-7)
