"""Spans placed ray by ray in compiled loops, against the same by PyTorch's operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.layers.loop_threads import COMPILES
from eugen_nerf.core.marching.compiled_marching import can_march, place_by_loops
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.marching.marching import march
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.marching.sample_placement import place_samples
from eugen_nerf.core.rendering.grid_renderer import GridRenderer

pytestmark = pytest.mark.skipif(not COMPILES, reason="numba is not installed")


def random_grid(seed: int, times: int = 1, share: float = 0.2) -> DensityGrid:
    """Cells of very different densities, many of them empty, in a box that is no cube."""
    generator = torch.Generator().manual_seed(seed)
    sides = (times, 24, 17, 20)
    occupied = torch.rand(sides, generator=generator) < share
    density = torch.rand(sides, generator=generator).pow(4) * 60
    return DensityGrid(torch.tensor([-1.2, -0.8, -1.0]), 0.1, density, occupied)


def rays_around(number: int, seed: int = 0, times: bool = False) -> RayBatch:
    generator = torch.Generator().manual_seed(seed)
    origins = 3 * torch.nn.functional.normalize(torch.randn(number, 3, generator=generator), dim=-1)
    goals = torch.rand(number, 3, generator=generator) * 2.4 - 1.2
    directions = torch.nn.functional.normalize(goals - origins, dim=-1)
    moments = torch.rand(number, generator=generator) if times else None
    return RayBatch(origins, directions, torch.full((number,), 1.0), torch.full((number,), 5.0), moments)


def by_operations(grid: DensityGrid, rays: RayBatch, **settings: float) -> Spans:
    return place_samples(*march(grid, rays), unit=grid.cell, **settings)


def check_alike(found: Spans, expected: Spans) -> None:
    """Equal but for what rounding decides: one ray of a thousand, one edge of a thousand."""
    counts, wanted = found.counts, expected.counts
    alike = counts == wanted
    assert float(alike.float().mean()) > 0.999
    assert (counts - wanted).abs().max() <= 2
    mine, theirs = found.select(alike[found.ray].nonzero()[:, 0]), expected.select(alike[expected.ray].nonzero()[:, 0])
    assert torch.equal(mine.ray, theirs.ray)
    for own, other in ((mine.start, theirs.start), (mine.end, theirs.end)):
        assert float(((own - other).abs() < 1e-5).float().mean()) > 0.999


@pytest.mark.parametrize("rate", [0.3, 2.0, 20.0])
@pytest.mark.parametrize("times", [1, 4])
def test_loops_place_what_the_operations_place(rate: float, times: int) -> None:
    for seed in range(3):
        grid, rays = random_grid(seed, times), rays_around(3000, seed, times=times > 1)
        settings = {"rate": rate, "early_stop": 1e-4, "min_weight": 1e-3}
        found = place_by_loops(grid, rays, **settings)
        assert len(found) > len(rays)
        check_alike(found, by_operations(grid, rays, **settings))


@pytest.mark.parametrize("early_stop", [0.0, 0.2])
def test_limits_of_light_and_weight_are_those_of_the_operations(early_stop: float) -> None:
    grid, rays = random_grid(5, share=0.6), rays_around(3000, 5)
    settings = {"rate": 2.0, "early_stop": early_stop, "min_weight": 0.05}
    check_alike(place_by_loops(grid, rays, **settings), by_operations(grid, rays, **settings))


def test_rays_along_axes_and_beside_the_box() -> None:
    grid = DensityGrid(torch.zeros(3), 0.25, torch.full((1, 4, 4, 4), 40.0), torch.ones(1, 4, 4, 4, dtype=torch.bool))
    across = torch.tensor([-0.5, 0.1, 0.4, 0.9, 1.5])
    for axis in range(3):
        origins = torch.cartesian_prod(across, across)
        origins = torch.cat([origins[:, :axis], torch.full((25, 1), -1.0), origins[:, axis:]], dim=1)
        rays = RayBatch(origins, torch.eye(3)[axis].expand(25, 3), torch.zeros(25), torch.full((25,), 9.0))
        settings = {"rate": 4.0, "early_stop": 1e-4, "min_weight": 1e-3}
        found = place_by_loops(grid, rays, **settings)
        check_alike(found, by_operations(grid, rays, **settings))
        assert found.ray.unique().numel() == 9  # three of five lie within, on either axis
        nothing = place_by_loops(grid, replace(rays, far=torch.full((25,), 0.5)), **settings)
        assert len(nothing) == 0
        assert nothing.num_rays == 25


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    grid, rays = random_grid(7), rays_around(5000, 7)
    settings = {"rate": 2.0, "early_stop": 1e-4, "min_weight": 1e-3}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(place_by_loops(grid, rays, **settings))
    finally:
        torch.set_num_threads(before)
    for name in ("ray", "start", "end"):
        assert torch.equal(getattr(found[0], name), getattr(found[1], name))


def test_a_ray_may_have_more_samples_than_room_was_made_for() -> None:
    """Runs of one cell each, with the most samples that a run may have."""
    occupied = torch.zeros(1, 41, 3, 3, dtype=torch.bool)
    occupied[:, ::2] = True
    grid = DensityGrid(torch.zeros(3), 1.0, torch.full(occupied.shape, 1e-3), occupied)
    rays = RayBatch(
        torch.tensor([[-1.0, 1.5, 1.5]]), torch.tensor([[1.0, 0, 0]]), torch.zeros(1), torch.full((1,), 99.0)
    )
    found = place_by_loops(grid, rays, rate=2000.0, early_stop=0.0, min_weight=1e-6)
    assert len(found) == 21 * 64
    assert float(found.length.sum()) == pytest.approx(21, abs=1e-3)


@pytest.mark.parametrize("case", ["gradients", "double precision", "transformed"])
def test_other_rays_are_left_to_the_operations(case: str) -> None:
    grid, rays = random_grid(1), rays_around(10, 1)
    assert can_march(grid, rays)
    if case == "gradients":
        assert not can_march(grid, replace(rays, origins=rays.origins.clone().requires_grad_()))
    elif case == "double precision":
        assert not can_march(grid, replace(rays, directions=rays.directions.double()))
    else:
        answers: list[bool] = []

        def ask(origins: Tensor) -> Tensor:
            answers.append(can_march(grid, replace(rays, origins=origins)))
            return origins

        torch.vmap(ask)(rays.origins[None])
        assert answers == [False]


def test_the_renderer_places_by_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    from eugen_nerf.core.rendering import grid_renderer

    grid, rays, calls = random_grid(2), rays_around(50, 2), []
    own = place_by_loops
    monkeypatch.setattr(grid_renderer, "place_by_loops", lambda *given, **rest: calls.append(1) or own(*given, **rest))
    GridRenderer(grid).place(rays)
    assert calls == [1]
