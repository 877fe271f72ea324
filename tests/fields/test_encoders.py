"""Encodings of a frustum: features and multisamples against moments and formulas in float64 numpy."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from frustums import (
    Array,
    contract_numpy,
    jacobian,
    make_samples,
    random_samples,
    true_moments,
    unit,
)
from torch import Tensor, nn

from eugen_nerf.core import HashGrid
from eugen_nerf.core.encodings.frustum_points import FOOTPRINT
from eugen_nerf.fields.encoders import (
    NUM_DIRECTIONS,
    FrustumEncoder,
    GaussianEncoder,
    MultisampleEncoder,
    direction_encoding,
)


def multisampler(training: bool = False) -> MultisampleEncoder:
    torch.manual_seed(0)
    grid = HashGrid((4, 8, 16), 2, 9)
    with torch.no_grad():
        grid.table.normal_()
    return MultisampleEncoder(grid).train(training)


def encoders() -> list[FrustumEncoder]:
    return [GaussianEncoder(5).eval(), multisampler(), multisampler(training=True)]


def icosahedron_directions() -> Array:
    """Corners and middles of the edges, scaled to length 1, of two opposite ones one: `[21, 3]`."""
    golden = (1 + math.sqrt(5)) / 2
    signs = list(product((-1, 1), repeat=2))
    corners = np.array([np.roll((a * golden, 0, b), k) for a, b in signs for k in range(3)], dtype=float)
    middles = [p + q for p, q in combinations(corners, 2) if np.isclose(np.linalg.norm(p - q), 2)]
    assert len(middles) == 30
    found: list[Array] = []
    for v in [*corners, *middles]:
        v = v / np.linalg.norm(v)
        if not any(np.allclose(v, -w) for w in found):
            found.append(v)
    return np.array(found)


# ---- Mip-NeRF 360


def test_the_directions_are_an_icosahedrons() -> None:
    found = GaussianEncoder(1).encoding.directions.double().numpy()
    assert found.shape == (NUM_DIRECTIONS, 3)
    nearest = np.abs(found @ icosahedron_directions().T)
    assert nearest.shape == (21, 21)
    assert sorted(nearest.argmax(axis=1)) == list(range(21)), "each of them once, up to sign"
    np.testing.assert_allclose(nearest.max(axis=1), 1, atol=1e-6)


def gaussian_features(mean: Array, covariance: Array, directions: Array, frequencies: int) -> Array:
    """Eq. 14 of arXiv 2103.13415 along each direction: all sines, then all cosines, frequency by frequency."""
    sines, cosines = [], []
    for level, p in product(range(frequencies), directions):
        scale = 2.0**level
        damping = np.exp(-0.5 * scale**2 * np.einsum("i,...ij,j->...", p, covariance, p))
        sines.append(np.sin(scale * (mean @ p)) * damping)
        cosines.append(np.cos(scale * (mean @ p)) * damping)
    return np.stack([*sines, *cosines], axis=-1)


@pytest.mark.parametrize(("far", "area"), [(0.6, 1e-4), (3.0, 1e-2), (30.0, 1e-3)])
def test_gaussian_features_against_numpy(far: float, area: float) -> None:
    encoder = GaussianEncoder(6).double()
    samples = random_samples(far=far, area=area, double=True)
    found = encoder(samples)
    assert found.shape == (6, 8, 252) == (6, 8, encoder.out_features)
    mean, covariance = true_moments(samples.frustums)
    radius = np.linalg.norm(mean, axis=-1)
    assert (radius.min() < 1, radius.max() > 1) == (far < 10, far > 1)
    j = jacobian(mean)
    contracted = j @ covariance @ np.swapaxes(j, -1, -2)
    directions = encoder.encoding.directions.numpy()
    expected = gaussian_features(contract_numpy(mean), contracted, directions, 6)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    in_float32 = GaussianEncoder(6)(random_samples(far=far, area=area)).double().numpy()
    np.testing.assert_allclose(in_float32, expected, rtol=0, atol=1e-3)


def test_gaussian_features_are_means_over_the_frustum() -> None:
    """Inside the unit ball, by Monte Carlo over the frustum's points; a frustum is no Gaussian, so only nearly so."""
    samples = random_samples(rays=2, samples=6, far=0.5, area=0.01)
    encoder = GaussianEncoder(4)
    found = encoder(samples).double().numpy()
    generator, directions = np.random.default_rng(0), encoder.encoding.directions.double().numpy()
    f = samples.frustums
    for ray, sample in product(range(2), range(6)):
        start, end = (float(v[ray, sample, 0]) for v in (f.starts, f.ends))
        axis = f.directions[ray, sample].double().numpy()
        across = np.linalg.svd(axis[None])[2][1:]
        t = (start**3 + generator.random(40_000) * (end**3 - start**3)) ** (1 / 3)
        r = t * math.sqrt(0.01 / math.pi) * np.sqrt(generator.random(t.size))
        angle = generator.random(t.size) * 2 * math.pi
        points = t[:, None] * axis + r[:, None] * (
            np.cos(angle)[:, None] * across[0] + np.sin(angle)[:, None] * across[1]
        )
        points += f.origins[ray, sample].double().numpy()
        assert np.linalg.norm(points, axis=1).max() < 1
        phase = (points @ directions.T)[:, None, :] * 2.0 ** np.arange(4)[:, None]
        expected = np.concatenate([np.sin(phase).mean(axis=0).ravel(), np.cos(phase).mean(axis=0).ravel()])
        np.testing.assert_allclose(found[ray, sample], expected, rtol=0, atol=0.02)
    assert np.abs(found).max() > 0.5


# ---- Zip-NeRF


def moments_of_points(points: Array) -> tuple[Array, Array]:
    mean = points.mean(axis=-2)
    away = points - mean[..., None, :]
    return mean, np.einsum("...ki,...kj->...ij", away, away) / points.shape[-2]


@pytest.mark.parametrize("training", [True, False])
def test_multisamples_have_the_moments_of_the_frustum(training: bool) -> None:
    samples = random_samples(rays=40, far=0.6, area=0.05, double=True)
    points, widths = multisampler(training).multisamples(samples.frustums)
    assert points.shape == (40, 8, 6, 3)
    assert widths.shape == (40, 8, 6)
    assert points.norm(dim=-1).max() < 1, "contraction is the identity here"
    mean, covariance = moments_of_points(points.numpy())
    true_mean, true_covariance = true_moments(samples.frustums)
    np.testing.assert_allclose(mean, true_mean, rtol=0, atol=1e-12)
    axis = samples.frustums.directions.numpy()
    size = np.trace(true_covariance, axis1=-2, axis2=-1)
    for found, expected in (
        (np.trace(covariance, axis1=-2, axis2=-1), size),
        *((np.einsum("...i,...ij,...j->...", axis, c, axis) for c in (covariance, true_covariance)),),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_whole_covariance_is_right_on_average_over_the_angles() -> None:
    encoder, generator = multisampler(training=True), np.random.default_rng(1)
    for direction in unit(generator, 3):
        samples = make_samples(np.array([0.1, -0.2, 0.1]), direction, np.full((20_000, 1), 0.2), 0.5, 0.1, double=True)
        points = encoder.multisamples(samples.frustums)[0].numpy()
        _, covariance = moments_of_points(points)
        true_covariance = true_moments(samples.frustums)[1][0, 0]
        scale = np.trace(true_covariance)
        assert np.abs(covariance - true_covariance).max() > 0.02 * scale, "of a single set it is not"
        np.testing.assert_allclose(covariance.mean(axis=(0, 1)), true_covariance, rtol=0, atol=0.001 * scale)


def turned(points: Array, direction: Array, origin: Array) -> tuple[Array, Array]:
    """Angles of points round an axis, in degrees; and which way each turns from the one before, along the axis."""
    first, second = np.linalg.svd(direction[None])[2][1:]
    if np.linalg.det(np.stack([first, second, direction])) < 0:
        second = -second
    away = points - origin
    order = np.argsort(away @ direction)
    angles = np.degrees(np.arctan2(away @ second, away @ first))[order]
    steps = (np.diff(angles) + 180) % 360 - 180
    return angles, steps


def test_evaluation_turns_and_mirrors_every_other_hexagon() -> None:
    origin, direction = np.array([0.1, 0.0, -0.1]), unit(np.random.default_rng(3), 1)[0]
    samples = make_samples(origin, direction, np.full((2, 5), 0.2), 0.5, 0.05, double=True)
    encoder = multisampler()
    points, widths = encoder.multisamples(samples.frustums)
    again = encoder.multisamples(samples.frustums)
    assert torch.equal(again[0], points)
    assert torch.equal(again[1], widths)
    for i, j in ((0, 2), (0, 4), (1, 3)):
        assert torch.equal(points[:, i], points[:, j])
    assert torch.equal(points[0], points[1]), "the same for every ray"
    (even, even_steps), (odd, odd_steps) = (turned(points[0, k].numpy(), direction, origin) for k in (0, 1))
    np.testing.assert_allclose(np.diff(np.sort(even)), 60, atol=1e-9, err_msg="a hexagon")
    np.testing.assert_allclose((odd - odd[0] + 30) % 60, 30, atol=1e-9)
    assert (odd[0] - even[0]) % 60 == pytest.approx(30)
    np.testing.assert_allclose(odd_steps, -even_steps, atol=1e-9)
    assert np.abs(even_steps).min() > 59


def test_training_is_random_in_angle_and_mirror() -> None:
    origin, direction = np.zeros(3), np.array([0.0, 0.6, 0.8])
    samples = make_samples(origin, direction, np.full((4000, 1), 0.2), 0.5, 0.05, double=True)
    encoder = multisampler(training=True)
    points, widths = encoder.multisamples(samples.frustums)
    others, same_widths = encoder.multisamples(samples.frustums)
    assert not torch.equal(points, others)
    torch.testing.assert_close(widths, same_widths)
    found = [turned(p.numpy(), direction, origin) for p in points[:, 0]]
    first_angles = np.array([angles[0] % 360 for angles, _ in found])
    counts, _ = np.histogram(first_angles, bins=12, range=(0, 360))
    assert counts.min() > 4000 / 12 * 0.7
    mirrored = np.mean([steps[0] > 0 for _, steps in found])
    assert 0.45 < mirrored < 0.55


@pytest.mark.parametrize("training", [True, False])
def test_widths_follow_the_distance_to_the_axis_and_the_contraction(training: bool) -> None:
    samples = random_samples(rays=30, far=3.0, area=0.002, double=True)
    points, widths = (v.numpy() for v in multisampler(training).multisamples(samples.frustums))
    radius = np.linalg.norm(points, axis=-1)
    assert radius.max() < 2
    world = points * np.where(radius > 1, 1 / (2 - radius) / radius, 1)[..., None]  # |x| = 1 / (2 - |f(x)|)
    np.testing.assert_allclose(contract_numpy(world), points, atol=1e-12)
    axis, origin = (v.numpy()[..., None, :] for v in (samples.frustums.directions, samples.frustums.origins))
    away = world - origin
    across = np.linalg.norm(away - (away * axis).sum(axis=-1, keepdims=True) * axis, axis=-1)
    inside = radius < 1
    assert 0.05 < inside.mean() < 0.95
    assert FOOTPRINT == 0.5
    np.testing.assert_allclose(widths[inside], 0.5 * across[inside], rtol=1e-9)
    scale = np.abs(np.linalg.det(jacobian(world))) ** (1 / 3)
    np.testing.assert_allclose(widths, 0.5 * across * scale, rtol=1e-5)
    assert (widths[radius > 1.2] < 0.45 * across[radius > 1.2]).all()


class Spy(nn.Module):
    """In place of a grid: keeps its queries, returns the points' mean and first width."""

    out_features = 4

    def forward(self, points: Tensor, widths: Tensor) -> Tensor:
        self.queried = points, widths
        return torch.cat([points.mean(dim=1), widths[:, :1]], dim=-1)


def test_the_grid_covers_the_ball_of_radius_two() -> None:
    encoder = MultisampleEncoder(Spy()).eval()
    samples = random_samples(far=40.0)
    features = encoder(samples)
    points, widths = encoder.multisamples(samples.frustums)
    queried, queried_widths = encoder.grid.queried
    assert queried.shape == (48, 6, 3)
    assert queried_widths.shape == (48, 6)
    torch.testing.assert_close(4 * queried.reshape(6, 8, 6, 3) - 2, points)
    torch.testing.assert_close(4 * queried_widths.reshape(6, 8, 6), widths)
    assert 0 < queried.min() < 0.1, "far samples come near the cube's border"
    assert 0.9 < queried.max() < 1
    torch.testing.assert_close(features[..., :3], queried.mean(dim=1).reshape(6, 8, 3))
    torch.testing.assert_close(features[..., 3], queried_widths[:, 0].reshape(6, 8))


def test_multisample_features_are_the_grids() -> None:
    encoder, samples = multisampler(), random_samples(far=4.0)
    points, widths = encoder.multisamples(samples.frustums)
    features = encoder(samples)
    assert features.std() > 0.1
    for ray, sample in ((0, 0), (2, 5), (5, 7)):
        expected = encoder.grid((points[ray, sample][None] + 2) / 4, widths[ray, sample][None] / 4)[0]
        torch.testing.assert_close(features[ray, sample], expected)


# ---- both


def test_shapes() -> None:
    for encoder in encoders():
        width, samples = encoder.out_features, random_samples(rays=3, samples=4)
        torch.manual_seed(1)
        grid = encoder(samples)
        assert grid.shape == (3, 4, width)
        flat = samples.flatten()
        torch.manual_seed(1)
        assert encoder(flat).shape == (12, width)
        column = encoder(flat[:, None])
        assert column.shape == (12, 1, width)
        if not encoder.training:  # every even sample of a ray has the same hexagon as the only one of its ray
            torch.testing.assert_close(encoder(flat)[::2], column[::2, 0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                grid[:, ::2].flatten(0, 1), column[:, 0].unflatten(0, (3, 4))[:, ::2].flatten(0, 1)
            )
        assert encoder(random_samples(rays=0)).shape == (0, 8, width)


@pytest.mark.parametrize(
    ("starts", "ends"),
    [
        (1e3, 1.1e3),
        (1e3, 1e6),
        (1e5, 1e6),
        (1e6, 1e6 + 1),
        (0.0, 0.5),
        (0.0, 1e3),
        (0.7, 0.7),
        (2e3, 2e3),
        (1e-6, 2e-6),
    ],
)
def test_features_are_finite(starts: float, ends: float) -> None:
    """Float32, far out, without length, or from the camera on; and the network's gradients with them."""
    directions = unit(np.random.default_rng(0), 50)[:, None]
    samples = make_samples(np.array([0.2, 0.1, 0.0]), directions, np.full((50, 3), starts), ends, 1e-4)
    for encoder in encoders():
        features = encoder(samples)
        assert torch.isfinite(features).all()
        if isinstance(encoder, GaussianEncoder):
            assert features.abs().max() <= 1
        if features.requires_grad:
            features.square().sum().backward()
            assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_multisamples_without_length_at_the_camera_are_there() -> None:
    samples = make_samples(np.array([0.2, 0.1, 0.0]), np.array([0.0, 0.0, 1.0]), np.zeros((1, 2)), 0.0, 1e-4)
    points, widths = multisampler().multisamples(samples.frustums)
    assert torch.equal(points, samples.frustums.origins[..., None, :].expand(1, 2, 6, 3))
    assert (widths > 0).all()


def test_a_wider_pixel_is_a_blurred_one() -> None:
    """Features of fine detail fade as the pixel grows, for both encoders."""
    sizes = []
    for area in (1e-6, 0.3, 10.0):
        samples = random_samples(far=0.8, area=area)
        gaussian = GaussianEncoder(4)(samples).unflatten(-1, (2, 4, 21))[..., -1, :]
        finest = multisampler()(samples)[..., 4:6]
        sizes.append((float(gaussian.abs().mean()), float(finest.abs().mean())))
    for k in range(2):
        assert sizes[0][k] > 1.1 * sizes[1][k] > 1.2 * sizes[2][k]


def test_directions_are_encoded_by_sines_and_cosines() -> None:
    encoding = direction_encoding(4)
    v = torch.from_numpy(unit(np.random.default_rng(0), 5)).float()
    found = encoding(v).numpy()
    assert found.shape == (5, 27)
    np.testing.assert_allclose(found[:, -3:], v)
    frequencies = 2 * np.pi * 2.0 ** np.linspace(0, 4, 4)  # nerfstudio's
    expected = np.sin((v.double().numpy()[:, :, None] * frequencies).reshape(5, 12))
    np.testing.assert_allclose(found[:, :12], expected, atol=1e-4)
