"""The first surface by a grid of distances, against spheres whose crossings are known and against plain tracing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.rendering.distance_grid import (
    MAX_UNCHECKED,
    TOLERANCE,
    Distance,
    DistanceGrid,
    Slope,
    build_distance_grid,
    first_crossing_by_grid,
)
from eugen_nerf.core.rendering.sphere_tracing import first_crossing

BOX = torch.tensor([[-2.0, -2.0, -2.0], [2.0, 2.0, 1.5]])


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 1


def bumpy(points: Tensor) -> Tensor:
    """A learnt distance is none quite: this one is off by a few centimetres, and its slope by a third."""
    return ball(points) + 0.03 * torch.sin(10 * points).sum(dim=-1)


def two_balls(points: Tensor) -> Tensor:
    return torch.minimum(ball(3 * (points - torch.tensor([0.0, 0.0, -1.2]))) / 3, ball(points))


def sloped(distance: Distance) -> Slope:
    """The distance, and its gradient by autograd."""

    def slope(points: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = points.clone().requires_grad_()
            values = distance(at)
            (gradient,) = torch.autograd.grad(values.sum(), at)
        return values.detach(), gradient

    return slope


def rays(number: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From within the box towards its middle, more or less."""
    generator = torch.Generator().manual_seed(seed)
    origins = 1.4 * torch.nn.functional.normalize(torch.randn(number, 3, generator=generator), dim=-1)
    goals = 2 * torch.rand(number, 3, generator=generator) - 1
    directions = torch.nn.functional.normalize(goals - origins, dim=-1)
    return origins, directions, torch.full((number,), 0.05), torch.full((number,), 6.0)


def test_a_grid_holds_the_distance() -> None:
    grid = build_distance_grid(ball, BOX, cells=32)
    points = torch.rand(500, 3) * (BOX[1] - BOX[0]) + BOX[0]
    assert grid.distance.shape == (33, 33, 29)
    assert torch.allclose(grid.high, BOX[1])
    assert bool(grid.holds(points).all())
    assert not bool(grid.holds(points + torch.tensor([0.0, 0.0, 4.0])).any())
    # trilinear errs by an eighth of the cell's square times the second derivatives, which add up to 2 / r
    nearest = points.norm(dim=-1) - 3**0.5 * grid.cell
    away = nearest > 0.1
    assert bool(((grid.at(points) - ball(points)).abs() < grid.cell**2 / (4 * nearest) + 1e-5)[away].all())
    linear = build_distance_grid(lambda p: p @ torch.tensor([0.5, -0.2, 0.3]) + 0.1, BOX, cells=7)
    assert torch.allclose(linear.at(points), points @ torch.tensor([0.5, -0.2, 0.3]) + 0.1, atol=1e-5)
    moved = DistanceGrid(grid.low, grid.cell, grid.distance).to("cpu")
    assert torch.equal(moved.at(points), grid.at(points))


@pytest.mark.parametrize(("box", "cells"), [(BOX, 1), (BOX.flip(0), 8), (torch.zeros(2, 3), 8)])
def test_a_grid_of_nothing_is_refused(box: Tensor, cells: int) -> None:
    with pytest.raises(ConfigError, match="at least 2 cells"):
        build_distance_grid(ball, box, cells=cells)


def test_crossings_of_a_sphere_are_where_geometry_has_them() -> None:
    origins, directions, near, far = rays(400)
    along = (origins * directions).sum(dim=-1)
    root = along.square() - origins.square().sum(dim=-1) + 1
    exact = -along - root.clamp_min(0).sqrt()
    grid = build_distance_grid(ball, BOX, cells=48)
    t, hit, gradients = first_crossing_by_grid(grid, ball, sloped(ball), origins, directions, near, far)
    sure = root.abs() > 0.02  # a ray that grazes the sphere may go either way
    assert torch.equal(hit[sure], (root > 0)[sure])
    assert (t - exact)[hit & sure].abs().max() < 0.05 * grid.cell * 3
    assert torch.equal(t[~hit], far[~hit])
    assert not gradients[~hit].any()
    points = (origins + t[:, None] * directions)[hit & sure]
    assert (gradients[hit & sure] - points).norm(dim=-1).max() < MAX_UNCHECKED * grid.cell + 1e-3
    assert (points.norm(dim=-1) - 1).abs().max() < TOLERANCE * grid.cell
    assert hit.sum() > 200


@pytest.mark.parametrize("distance", [ball, bumpy, two_balls])
def test_plain_tracing_finds_the_same_by_many_more_queries(distance) -> None:  # type: ignore[no-untyped-def]
    origins, directions, near, far = rays(600, seed=1)
    counts = [0]

    def counted(points: Tensor) -> Tensor:
        counts[0] += len(points)
        return distance(points)

    plain, plain_hit = first_crossing(counted, origins, directions, near, far)
    by_plain, counts[0] = counts[0], 0
    grid = build_distance_grid(distance, BOX, cells=64)
    fast, hit, gradients = first_crossing_by_grid(grid, counted, sloped(counted), origins, directions, near, far)
    assert (hit == plain_hit).float().mean() > 0.99
    both = hit & plain_hit
    error = (fast - plain)[both].abs()
    assert error.median() < 2e-3
    assert (error > 0.02).float().mean() < 0.02
    assert counts[0] < 0.3 * by_plain
    points = (origins + fast[:, None] * directions)[both]
    exact = sloped(distance)(points)[1]
    turned = torch.nn.functional.cosine_similarity(gradients[both], exact, dim=-1)
    assert turned.median() > 0.999
    assert (turned < 0.97).float().mean() < 0.03


def test_a_ray_that_begins_inside_stops_there_and_one_that_begins_outside_is_traced() -> None:
    grid = build_distance_grid(ball, BOX, cells=32)
    origins = torch.tensor([[0.0, 0.0, 0.2], [0.0, 0.0, -5.0], [0.0, 0.0, 1.2], [5.0, 0.0, 0.0]])
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    near, far = torch.full((4,), 0.1), torch.full((4,), 9.0)
    t, hit, _ = first_crossing_by_grid(grid, ball, sloped(ball), origins, directions, near, far)
    plain, plain_hit = first_crossing(ball, origins, directions, near, far)
    assert hit.tolist() == plain_hit.tolist() == [True, True, False, False]
    assert torch.allclose(t, plain, atol=2e-3)
    assert float(t[1]) == pytest.approx(4, abs=2e-3)


def test_what_lies_outside_the_grid_is_found_too() -> None:
    def away(points: Tensor) -> Tensor:
        return ball(points - torch.tensor([0.0, 4.0, 0.0]))

    grid = build_distance_grid(away, BOX, cells=16)
    ahead = torch.tensor([[0.0, 1.0, 0.0]])
    t, hit, gradients = first_crossing_by_grid(
        grid, away, sloped(away), torch.zeros(1, 3), ahead, torch.zeros(1), torch.full((1,), 9.0)
    )
    torch.testing.assert_close(gradients, -ahead, atol=1e-3, rtol=0)
    assert bool(hit)
    assert float(t) == pytest.approx(3, abs=2e-3)


def test_no_rays_are_no_error() -> None:
    grid = build_distance_grid(ball, BOX, cells=8)
    empty = torch.zeros(0)
    t, hit, gradients = first_crossing_by_grid(
        grid, ball, sloped(ball), torch.zeros(0, 3), torch.zeros(0, 3), empty, empty
    )
    assert t.shape == hit.shape == (0,)
    assert gradients.shape == (0, 3)
