"""Integrated positional encoding, against Monte Carlo and numpy."""

import numpy as np
import pytest
import torch
from oracles import array, draw
from torch import Tensor

from eugen_nerf.core import IntegratedEncoding

Array = np.ndarray


def unit_directions(n: int, seed: int = 0) -> Tensor:
    p = draw(n, 3, seed=seed)
    return p / p.norm(dim=-1, keepdim=True)


def gaussians(n: int, size: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    factor = size * draw(n, 3, 3, seed=seed + 1)
    return draw(n, 3, seed=seed), factor @ factor.transpose(-1, -2)


def waves(x: Array, directions: Array, levels: int) -> Array:
    """Sines then cosines; within each the frequency, then the direction: as loops."""
    return np.stack(
        [f(2.0**level * (x @ p)) for f in (np.sin, np.cos) for level in range(levels) for p in directions], axis=-1
    )


@pytest.mark.parametrize(("directions", "levels"), [(1, 1), (3, 5), (21, 3)])
def test_without_width_it_is_the_plain_encoding_in_this_order(directions: int, levels: int) -> None:
    p = unit_directions(directions)
    encoding = IntegratedEncoding(p, levels).double()
    mean = draw(7, 3, seed=1)
    found = encoding(mean, torch.zeros(7, 3, 3).double())
    assert found.shape == (7, 2 * levels * directions) == (7, encoding.out_features)
    np.testing.assert_allclose(array(found), waves(array(mean), array(p), levels), atol=1e-13)


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0])
def test_features_are_expectations(size: float) -> None:
    """Monte Carlo of the plain encoding over the Gaussian, to five standard errors of each feature's mean."""
    p, levels, count = unit_directions(5, seed=2), 4, 100_000
    mean, covariance = gaussians(3, size, seed=3)
    found = array(IntegratedEncoding(p, levels).double()(mean, covariance))
    for i in range(3):
        factor = torch.linalg.cholesky(covariance[i])
        samples = waves(array(mean[i] + draw(count, 3, seed=10 + i) @ factor.T), array(p), levels)
        error = samples.std(axis=0) / np.sqrt(count)
        assert (np.abs(found[i] - samples.mean(axis=0)) < 5 * error + 1e-12).all()
        # the tolerance separates the damped features from the plain ones
        assert (np.abs(found[i] - waves(array(mean[i]), array(p), levels)) > 5 * error).any()


def test_axes_keep_the_variances_of_each_axis_apart() -> None:
    variances = np.array([0.3, 0.0, 2.0])
    mean = draw(3, seed=4)
    found = IntegratedEncoding(torch.eye(3), 2).double()(mean, torch.diag(torch.from_numpy(variances)))
    damping = np.exp(-0.5 * np.concatenate([variances, 4 * variances]))
    expected = waves(array(mean), np.eye(3), 2) * np.concatenate([damping, damping])
    np.testing.assert_allclose(array(found), expected, atol=1e-14)


def test_leading_dimensions_and_range() -> None:
    encoding = IntegratedEncoding(unit_directions(4).float(), 6)
    mean, covariance = (v.float() for v in gaussians(24, 0.7))
    features = encoding((mean * 10).reshape(2, 3, 4, 3), covariance.reshape(2, 3, 4, 3, 3))
    assert features.shape == (2, 3, 4, 48)
    assert float(features.abs().max()) <= 1
    one = encoding(10 * mean[-1], covariance[-1])
    torch.testing.assert_close(features[-1, -1, -1], one, rtol=0, atol=1e-5)


def test_wide_gaussians_say_nothing() -> None:
    features = IntegratedEncoding(torch.eye(3), 4)(torch.ones(1, 3), 1e20 * torch.eye(3)[None])
    assert float(features.abs().max()) < 1e-20


@pytest.mark.parametrize("rows", [1, 1300])
def test_many_rows_and_gradients_give_the_same(rows: int) -> None:
    """Rows are encoded some at a time, and in other operations where gradients are needed."""
    encoding = IntegratedEncoding(unit_directions(5).float(), 6)
    mean, covariance = (values.float() for values in gaussians(rows, 0.3))
    features = encoding(mean, covariance)
    parts = [encoding(mean[i : i + 100], covariance[i : i + 100]) for i in range(0, rows, 100)]
    torch.testing.assert_close(features, torch.cat(parts), rtol=0, atol=1e-5)
    mean.requires_grad_()
    learned = encoding(mean, covariance)
    torch.testing.assert_close(features, learned, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(learned.sum(), mean)
    exact = encoding.double()
    double = mean.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(exact(double, covariance.double()).sum(), double)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-3)
    assert gradient.abs().sum() > 0


def test_no_feature_is_a_number_that_slows_a_processor_down() -> None:
    """Below 1e-38 float32 has fewer digits, and exponentials and products take many times as long."""
    mean, covariance = (values.float() for values in gaussians(200, 2.0))
    features = IntegratedEncoding(unit_directions(5).float(), 12)(mean, covariance).abs()
    assert (features < 1e-20).any()
    assert ((features == 0) | (features > 1.2e-38)).all()


def test_rounded_covariances_do_not_amplify() -> None:
    """A flat Gaussian whose short side came out slightly negative, as contraction in float32 leaves it."""
    encoding = IntegratedEncoding(torch.eye(3), 12)
    mean = torch.full((1, 3), 0.3)
    features = encoding(mean, torch.diag(torch.tensor([-2e-8, 0.0, 1e-3]))[None])
    flat = encoding(mean, torch.diag(torch.tensor([0.0, 0.0, 1e-3]))[None])
    assert torch.equal(features, flat)
    assert float(features.abs().max()) <= 1


def test_gradients_by_finite_differences() -> None:
    encoding = IntegratedEncoding(unit_directions(3), 3).double()
    mean, covariance = gaussians(2, 0.4)
    assert torch.autograd.gradcheck(encoding, (mean.requires_grad_(), covariance.requires_grad_()))


def test_nothing_is_saved_and_the_dtype_can_change() -> None:
    encoding = IntegratedEncoding(unit_directions(3), 2)
    assert not encoding.state_dict()
    assert not list(encoding.parameters())
    double = encoding.double()
    assert double(torch.zeros(1, 3).double(), torch.zeros(1, 3, 3).double()).dtype == torch.float64
    assert double.float()(torch.zeros(1, 3), torch.zeros(1, 3, 3)).dtype == torch.float32


def test_nerfstudio_has_the_directions_the_fields_use() -> None:
    """21 unit vectors of the icosahedron, its edges cut in two; one of each pair of opposites."""
    library = pytest.importorskip("nerfstudio.utils.math")
    directions = array(library.generate_polyhedron_basis("icosahedron", 2))
    assert directions.shape == (21, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    cosines = np.abs(directions @ directions.T) - np.eye(21)
    # of the 42 vertices the nearest stand for half an edge of the icosahedron, atan(2) / 2 = 31.7 degrees, apart
    assert np.degrees(np.arccos(cosines.max())) == pytest.approx(np.degrees(np.arctan(2)) / 2, abs=1e-3)
    np.testing.assert_allclose(directions.T @ directions, 7 * np.eye(3), atol=1e-5)  # no axis is preferred
    encoding = IntegratedEncoding(library.generate_polyhedron_basis("icosahedron", 2), 3)
    found = encoding(torch.ones(1, 3), torch.zeros(1, 3, 3))
    np.testing.assert_allclose(array(found), waves(np.ones((1, 3)), directions, 3), atol=1e-5)
