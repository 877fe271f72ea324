"""Six points for a conical frustum, against the closed-form moments of its uniform density and against sampling it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import array, draw
from torch import Tensor

from eugen_nerf.core.encodings.multisample import NUM_POINTS, hexagonal_points, perpendicular_axes

Array = np.ndarray


def frustums(n: int, seed: int = 0) -> tuple[Array, Array, Array, Array, Array]:
    """Starts, ends, radii, angles, mirrors: from thin slices to cones from their tip."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(0.5, 20, n)
    starts = ends * np.where(np.arange(n) % 4 == 0, 0.0, rng.uniform(0, 0.99, n))
    return starts, ends, rng.uniform(1e-3, 1, n), rng.uniform(0, 7, n), rng.random(n) < 0.5


def power_mean(starts: Array, ends: Array, k: int) -> Array:
    """Mean of z^k over a frustum, whose slices have area proportional to z^2."""
    return 3 / (k + 3) * (ends ** (k + 3) - starts ** (k + 3)) / (ends**3 - starts**3)


def covariance(points: Array) -> Array:
    """Of the points `[..., 6, 3]` themselves (not an estimate from them)."""
    centred = points - points.mean(axis=-2, keepdims=True)
    return np.swapaxes(centred, -1, -2) @ centred / points.shape[-2]


def multisamples(*arrays: Array) -> tuple[Array, Array]:
    points, across = hexagonal_points(*(torch.from_numpy(np.array(a)) for a in arrays))
    return array(points), array(across)


def sampled(start: float, end: float, radius: float, count: int, seed: int) -> Array:
    """Uniform samples of the frustum along z."""
    rng = np.random.default_rng(seed)
    z = np.cbrt(start**3 + rng.random(count) * (end**3 - start**3))
    r, angle = radius * z * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=-1)


def test_mean_length_and_width_are_the_frustums() -> None:
    """For every single set: the mean, the variance along the axis, the mean square distance to the axis."""
    starts, ends, radius, angle, mirror = frustums(200)
    points, _ = multisamples(starts, ends, radius, angle, mirror)
    assert points.shape == (200, NUM_POINTS, 3)
    first, second = power_mean(starts, ends, 1), power_mean(starts, ends, 2)
    mean = points.mean(axis=1)
    np.testing.assert_allclose(mean[:, 2], first, rtol=1e-12)
    np.testing.assert_allclose(mean[:, :2] / ends[:, None], 0, atol=1e-14)
    np.testing.assert_allclose(np.var(points[..., 2], axis=1), second - first**2, rtol=1e-7)
    np.testing.assert_allclose(np.square(points[..., :2]).sum(axis=-1).mean(axis=1), radius**2 * second / 2, rtol=1e-12)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_covariance_is_the_frustums_on_average_over_the_angle(mirrored: bool) -> None:
    """Eight angles average everything of up to seven periods a turn; the covariance has at most two."""
    starts, ends, radius, angle, _ = (a[:, None] for a in frustums(100, seed=1))
    angles = angle + np.arange(8) * (np.pi / 4)
    starts, ends, radius = (np.broadcast_to(a, angles.shape) for a in (starts, ends, radius))
    points, _ = multisamples(starts, ends, radius, angles, np.full(angles.shape, mirrored))
    found = covariance(points).mean(axis=1)
    first, second = (power_mean(starts[:, 0], ends[:, 0], k) for k in (1, 2))
    expected = np.zeros((100, 3, 3))
    expected[:, 0, 0] = expected[:, 1, 1] = radius[:, 0] ** 2 * second / 4
    expected[:, 2, 2] = second - first**2
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


def test_one_set_alone_is_near_the_frustums_covariance() -> None:
    """Up to 14 % more or less width across and a correlation of 0.2 with the axis, for a cone from its tip."""
    starts, ends, radius, angle, mirror = frustums(400, seed=2)
    starts[200:] = 0.98 * ends[200:]
    points, _ = multisamples(starts, ends, radius, angle, mirror)
    c = covariance(points)
    variance = radius**2 * power_mean(starts, ends, 2) / 4
    uneven = np.abs(np.linalg.eigvalsh(c[:, :2, :2]) / variance[:, None] - 1).max(axis=1)
    correlation = np.linalg.norm(c[:, :2, 2], axis=1) / np.sqrt(variance * c[:, 2, 2])
    assert 0.1 < uneven.max() < 0.17
    assert 0.1 < correlation.max() < 0.25
    assert uneven[200:].max() < 0.004  # thin slices are right
    assert correlation[200:].max() < 0.005


@pytest.mark.parametrize(("start", "end", "radius"), [(0.0, 1.0, 0.5), (1.0, 3.0, 0.2), (5.0, 5.5, 0.01)])
def test_against_samples_of_the_frustum(start: float, end: float, radius: float) -> None:
    """The closed forms used above and nerfstudio's Gaussian have no common source with uniform sampling."""
    library = pytest.importorskip("nerfstudio.utils.math")
    count = 200_000
    samples = sampled(start, end, radius, count, seed=3)
    mean, c = samples.mean(axis=0), np.cov(samples.T)
    centred = samples - mean
    error = np.sqrt(np.var(centred[:, :, None] * centred[:, None, :], axis=0) / count)

    angles = np.arange(8) * (np.pi / 4)
    points, _ = multisamples(*(np.full(8, v) for v in (start, end, radius)), angles, np.arange(8) < 4)
    pooled = points.reshape(1, -1, 3)
    assert (np.abs(points.mean(axis=1) - mean) < 5 * np.sqrt(np.diag(c) / count)).all()
    assert (np.abs(covariance(pooled)[0] - c) < 5 * error).all()

    axes = np.linalg.qr(array(draw(3, 3, seed=4)))[0]  # columns: two across and the frustum's axis
    origin = array(draw(3, seed=5))
    theirs = library.conical_frustum_to_gaussian(
        origins=torch.from_numpy(origin),
        directions=torch.from_numpy(axes[:, 2].copy()),
        **{k: torch.tensor([v]).double() for k, v in (("starts", start), ("ends", end), ("radius", radius))},
    )
    their_mean, their_cov = axes.T @ (array(theirs.mean) - origin), axes.T @ array(theirs.cov) @ axes
    assert (np.abs(their_mean - mean) < 5 * np.sqrt(np.diag(c) / count)).all()
    assert (np.abs(their_cov - c) < 5 * error).all()


def test_points_stay_between_the_ends() -> None:
    """Where the far end is at most 1.85 times as far as the near one; elsewhere 3.7 % of the length beyond at most."""
    starts, ends, radius, angle, mirror = frustums(400, seed=6)
    starts[200:] = ends[200:] / np.random.default_rng(7).uniform(1, 1.85, 200)
    z = multisamples(starts, ends, radius, angle, mirror)[0][..., 2]
    assert (np.diff(z) > 0).all()  # from near to far, evenly
    np.testing.assert_allclose(np.diff(z), np.broadcast_to(np.diff(z)[:, :1], (400, 5)), rtol=1e-6)
    assert (z >= starts[:, None]).all()
    assert (z[200:] <= ends[200:, None]).all()
    beyond = (z[:, -1] - ends) / (ends - starts)
    assert 0.035 < beyond.max() < 0.037


def test_footprints_are_the_distances_to_the_axis() -> None:
    starts, ends, radius, angle, mirror = frustums(50, seed=8)
    points, across = multisamples(starts, ends, radius, angle, mirror)
    np.testing.assert_allclose(across, np.hypot(points[..., 0], points[..., 1]), rtol=1e-12)
    np.testing.assert_allclose(across, radius[:, None] * points[..., 2] / math.sqrt(2), rtol=1e-12)


def test_the_points_form_a_turned_or_mirrored_hexagon() -> None:
    starts, ends, radius, angle, mirror = frustums(50, seed=9)
    points, _ = multisamples(starts, ends, radius, angle, mirror)
    found = np.arctan2(points[..., 1], points[..., 0]) - angle[:, None]
    steps = np.rint(found / (np.pi / 3))
    np.testing.assert_allclose(found, steps * np.pi / 3, atol=1e-9)
    assert (np.sort(steps % 6) == np.arange(6)).all()
    plain, mirrored = steps[~mirror] % 6, steps[mirror] % 6
    assert (plain == plain[0]).all()
    assert (mirrored == plain[0][::-1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_lost_at_the_extremes(dtype: torch.dtype) -> None:
    """No length, no distance, both, far away, very near, and the whole cone."""
    starts = torch.tensor([2.0, 0.0, 1e6, 1e-6, 0.0], dtype=dtype)
    ends = torch.tensor([2.0, 0.0, 1.1e6, 2e-6, 1e6], dtype=dtype)
    one = torch.ones_like(starts)
    points, across = hexagonal_points(starts, ends, 0.1 * one, 0 * one, one > 0)
    assert points.dtype == across.dtype == dtype
    assert bool(torch.isfinite(points).all())
    assert bool(torch.isfinite(across).all())
    torch.testing.assert_close(points[0, :, 2], 2 * torch.ones(6, dtype=dtype))
    torch.testing.assert_close(points[1], torch.zeros(6, 3, dtype=dtype))
    expected = power_mean(starts[2:].double().numpy(), ends[2:].double().numpy(), 1)
    np.testing.assert_allclose(array(points[2:, :, 2].mean(dim=-1)), expected, rtol=1e-5)


def _check_axes(directions: Tensor) -> None:
    first, second = perpendicular_axes(directions)
    basis = torch.stack([first, second, directions], dim=-1)
    identity = torch.eye(3, dtype=directions.dtype).expand(basis.shape)
    torch.testing.assert_close(basis.transpose(-1, -2) @ basis, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.det(basis), torch.ones(basis.shape[:-2], dtype=directions.dtype))


def test_axes_are_perpendicular_unit_vectors() -> None:
    random = draw(4, 50, 3)
    _check_axes(random / random.norm(dim=-1, keepdim=True))
    exact = torch.cat([torch.eye(3), -torch.eye(3)])
    _check_axes(exact)
    nearly = exact + 1e-4 * draw(6, 3, seed=1).float()
    _check_axes(nearly / nearly.norm(dim=-1, keepdim=True))
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    _check_axes(signs / math.sqrt(3))
