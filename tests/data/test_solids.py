"""Exact signed distances against brute force: nearest points of a dense surface, rays walked in small steps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from eugen_nerf.data.synthetic.room import Room, RoomPart
from eugen_nerf.data.synthetic.solids import Box, Cylinder, Solid, Sphere

SOLIDS = [
    Sphere((0.1, 0.2, 0.3), 0.7),
    Box((0.1, -0.2, 0.3), (0.5, 0.3, 0.8), 0.6),
    Box((0.0, 0.0, 0.0), (0.2, 0.9, 0.1)),
    Cylinder((0.0, 0.1, 0.2), 0.4, 0.6),
    Cylinder((0.3, 0.1, -0.2), 0.8, 0.05),
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("solid", SOLIDS, ids=repr)
def test_distance_is_that_of_the_nearest_surface_point(solid: Solid, rng: np.random.Generator) -> None:
    points, surface = rng.uniform(-1.6, 1.6, size=(200, 3)), solid.surface_points(rng, 50_000)
    np.testing.assert_allclose(solid.distance(surface), 0.0, atol=1e-12)
    nearest, _ = cKDTree(surface).query(points)
    distance = np.abs(solid.distance(points))
    assert (nearest >= distance - 1e-12).all()
    # a point on the surface has one of n on an area A within about sqrt(A / n)
    assert (nearest <= distance + 3 * np.sqrt(solid.area / len(surface))).all()


@pytest.mark.parametrize("solid", SOLIDS, ids=repr)
def test_gradient_leads_to_the_surface_and_is_the_derivative(solid: Solid, rng: np.random.Generator) -> None:
    points = rng.uniform(-1.6, 1.6, size=(400, 3))
    distance, gradient = solid.distance_and_gradient(points)
    np.testing.assert_allclose(np.linalg.norm(gradient, axis=-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(solid.distance(points - distance[:, None] * gradient), 0.0, atol=1e-12)
    step = 1e-6
    slopes = [(solid.distance(points + step * e) - solid.distance(points - step * e)) / (2 * step) for e in np.eye(3)]
    wrong = np.abs(np.stack(slopes, axis=-1) - gradient).max(-1) > 1e-4
    assert wrong.mean() < 0.02  # a point beside an edge's bisector


@pytest.mark.parametrize("solid", SOLIDS, ids=repr)
def test_crossings_are_where_a_ray_walked_in_small_steps_changes_sides(solid: Solid, rng: np.random.Generator) -> None:
    origins, directions = rng.uniform(-1.5, 1.5, size=(2, 60, 3))
    directions[0] = (1.0, 0.0, 0.0)  # along an axis: divisions by zero
    directions[1] = (0.0, 0.0, -1.0)
    enter, leave = solid.crossings(origins, directions)
    t = np.linspace(-6.0, 6.0, 1201)
    inside = np.stack([solid.distance(o + t[:, None] * d) < 0.0 for o, d in zip(origins, directions, strict=True)])
    expected = (t >= enter[:, None]) & (t <= leave[:, None])
    assert (inside != expected).sum(axis=1).max() <= 2  # at most the step at each end
    for ends in (enter, leave):
        hit = np.isfinite(ends)
        on = origins[hit] + ends[hit, None] * directions[hit]
        np.testing.assert_allclose(solid.distance(on), 0.0, atol=1e-9)


def test_area_and_sampling_are_uniform(rng: np.random.Generator) -> None:
    """Surface area by the number of points within a thin shell of a large uniform cloud."""
    for solid in SOLIDS[:4]:
        cloud = rng.uniform(-1.5, 1.5, size=(200_000, 3))
        shell = np.abs(solid.distance(cloud)) < 0.02
        assert 27.0 * shell.mean() / 0.04 == pytest.approx(solid.area, rel=0.08)
        half = solid.surface_points(rng, 20_000)[:, 2] > solid.center[2]  # type: ignore[attr-defined]
        assert half.mean() == pytest.approx(0.5, abs=0.02)


def small_room() -> Room:
    parts = (
        RoomPart("ball", Sphere((0.3, 0.2, 0.3), 0.35), (1.0, 0.0, 0.0)),
        RoomPart("post", Cylinder((-0.6, -0.3, 0.5), 0.15, 0.6), (0.0, 1.0, 0.0)),
        RoomPart("crate", Box((0.5, -0.5, 0.1), (0.2, 0.2, 0.3), 0.4), (0.0, 0.0, 1.0)),
    )
    return Room(Box((0.0, 0.0, 0.8), (1.0, 0.9, 0.8)), parts)


def test_room_is_exact_in_free_space(rng: np.random.Generator) -> None:
    """Against the nearest of points drawn on what of the surfaces borders free space."""
    room = small_room()
    points = rng.uniform((-1.0, -0.9, 0.0), (1.0, 0.9, 1.6), size=(400, 3))
    distance, gradient = room.distance_and_gradient(points)
    np.testing.assert_array_equal(distance, room.distance(points))
    free = distance > 0.0
    assert 0.6 < free.mean() < 1.0
    surface = room.surface_points(rng, 40_000)
    np.testing.assert_allclose(room.distance(surface), 0.0, atol=1e-9)
    tree = cKDTree(surface)
    nearest, _ = tree.query(points[free])
    assert (nearest >= distance[free] - 1e-9).all()
    assert (nearest <= distance[free] + 0.06).all()
    onto = points - distance[:, None] * gradient
    np.testing.assert_allclose(room.distance(onto[free]), 0.0, atol=1e-9)
    # in solids and walls never larger than the truth
    outside = rng.uniform(-2.0, 2.0, size=(400, 3))
    outside = outside[room.distance(outside) < 0.0]
    nearest, _ = tree.query(outside)
    assert (np.abs(room.distance(outside)) <= nearest + 1e-9).all()


def test_rays_meet_the_first_surface_as_sphere_tracing_does(rng: np.random.Generator) -> None:
    """The crossings know no distances; sphere tracing uses nothing else."""
    room = small_room()
    origins = rng.uniform((-0.9, -0.8, 0.1), (0.9, 0.8, 1.5), size=(400, 3))
    origins = origins[room.distance(origins) > 0.02]
    directions = rng.normal(size=origins.shape)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    t, index = room.cast(origins, directions)
    traced = np.zeros(len(origins))
    for _ in range(400):
        traced += room.distance(origins + traced[:, None] * directions)
    np.testing.assert_allclose(t, traced, atol=1e-6)
    on = origins + t[:, None] * directions
    for number, part in enumerate(room.parts):
        np.testing.assert_allclose(part.solid.distance(on[index == number]), 0.0, atol=1e-9)
        assert (index == number).any()
    np.testing.assert_allclose(room.walls.distance(on[index < 0]), 0.0, atol=1e-9)
