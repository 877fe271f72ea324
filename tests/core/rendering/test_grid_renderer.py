"""The renderer by a grid, against volume rendering as the formula is written, on densities that are known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.density_grid import STRIDE, DensityGrid, build_density_grid
from eugen_nerf.core.marching.marching import box_distances, march
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.marching.sample_placement import MAX_SAMPLES, place_samples
from eugen_nerf.core.rendering import compositing, grid_renderer
from eugen_nerf.core.rendering.compositing import composite, rendering_weights
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.rendering.plain_renderer import render_plainly

BOX = torch.tensor([[-2.0] * 3, [2.0] * 3])


def smooth(distance: Tensor, sharpness: float = 40.0, density: float = 60.0) -> Tensor:
    """Density of a body by the signed distance to its surface: as soft as trained fields are."""
    return density * torch.sigmoid(-sharpness * distance)


def ball(points: Tensor) -> Tensor:
    return smooth(points.norm(dim=-1) - 0.6)


def slab(points: Tensor) -> Tensor:
    return smooth((points.abs() - torch.tensor([1.3, 1.3, 0.3])).amax(dim=-1))


def shells(points: Tensor) -> Tensor:
    """Two thin shells that let a part of the light through: what is behind the first is seen."""
    r = points.norm(dim=-1)
    return 25.0 * (torch.exp(-(((r - 0.9) / 0.04) ** 2)) + torch.exp(-(((r - 0.5) / 0.04) ** 2)))


def block(points: Tensor) -> Tensor:
    """A box whose faces lie where cells of a grid over [-2, 2] meet."""
    return smooth((points.abs() - 0.5).amax(dim=-1))


SCENES: dict[str, Callable[[Tensor], Tensor]] = {"ball": ball, "slab": slab, "shells": shells, "block": block}


def coloured(density: Callable[[Tensor], Tensor]) -> Callable[[RayBatch, Spans], tuple[Tensor, Tensor]]:
    """The field: a colour that varies in space."""

    def field(rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        points = rays.origins[spans.ray] + rays.directions[spans.ray] * spans.middle[:, None]
        return density(points), 0.5 + 0.5 * torch.sin(3 * points)

    return field


def views(number: int, seed: int = 0) -> RayBatch:
    """RayBatch from around the scene towards points in it."""
    generator = torch.Generator().manual_seed(seed)
    origins = 3 * torch.nn.functional.normalize(torch.randn(number, 3, generator=generator), dim=-1)
    goals = torch.rand(number, 3, generator=generator) * 1.6 - 0.8
    directions = torch.nn.functional.normalize(goals - origins, dim=-1)
    return RayBatch(origins, directions, torch.full((number,), 1.0), torch.full((number,), 5.0))


@cache
def grid_of(density: Callable[[Tensor], Tensor], cells: int = 96) -> DensityGrid:
    return build_density_grid(lambda points, times: density(points), BOX, cells=cells)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("scene", SCENES)
def test_pictures_are_those_of_the_formula(scene: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours and opacities within 0.04, 45 dB on the whole, depths within 1.5 cells, by at most 20 queries."""
    if not compiled:
        monkeypatch.setattr(grid_renderer, "can_march", lambda *_: False)
    rays, field = views(200), coloured(SCENES[scene])
    grid = grid_of(SCENES[scene])
    renderer = GridRenderer(grid, rate=3)
    fast, plain = renderer(field, rays), render_plainly(field, rays, 2000)
    error = fast.colour - plain.colour
    assert error.abs().max() < 0.04
    assert -10 * math.log10(error.square().mean()) > 45
    assert (fast.accumulation - plain.accumulation).abs().max() < 0.04
    opaque = plain.accumulation[:, 0] > 0.8
    assert opaque.sum() > 20
    assert (fast.depth - plain.depth)[opaque].abs().amax() < 1.5 * grid.cell
    assert len(renderer.place(rays)) / len(rays) < 20


def test_a_higher_rate_comes_closer() -> None:
    rays, field, grid = views(60, seed=1), coloured(shells), grid_of(shells)
    plain = render_plainly(field, rays, 1000)
    errors = [
        float((GridRenderer(grid, rate=rate, early_stop=1e-4)(field, rays).colour - plain.colour).square().mean())
        for rate in (0.5, 2.0, 8.0)
    ]
    assert errors[0] > 4 * errors[1]
    assert errors[1] > errors[2]


def test_no_occupied_cell_on_a_ray_is_passed_over() -> None:
    """Every point of a ray in an occupied cell lies in a span or less than a cell from one: by brute force."""
    generator = torch.Generator().manual_seed(3)
    occupied = torch.rand(1, 24, 17, 20, generator=generator) < 0.02
    grid = DensityGrid(torch.tensor([-1.2, -0.8, -1.0]), 0.1, torch.ones(occupied.shape), occupied)
    rays = views(200, seed=4)
    spans, depth = march(grid, rays)
    assert torch.allclose(depth, spans.length)
    steps, length = torch.linspace(1, 5, 8001), 0
    for number in range(len(rays)):
        points = rays.origins[number] + steps[:, None] * rays.directions[number]
        cells = ((points - grid.low) / grid.cell).floor().long()
        inside = ((cells >= 0) & (cells < torch.tensor(grid.sides))).all(dim=-1)
        hit = steps[inside][occupied[0][tuple(cells[inside].T)]]
        mine = spans.ray == number
        covered = ((hit[:, None] >= spans.start[mine]) & (hit[:, None] <= spans.end[mine])).any(dim=-1)
        # a corner that is crossed between two middles may have no span of its own
        missed = hit[~covered]
        stretch = torch.cat([torch.ones(1, dtype=torch.bool), missed.diff() > 2e-3]).cumsum(0)[: len(missed)]
        assert torch.bincount(stretch).amax() * 5e-4 < grid.cell if len(missed) else True
        length += len(hit)
    assert length > 10_000


def test_spans_lie_in_order_inside_the_box_and_within_their_rays() -> None:
    grid, rays = grid_of(shells, 48), views(100, seed=5)
    for spans in (march(grid, rays)[0], GridRenderer(grid).place(rays)):
        assert (spans.ray[1:] >= spans.ray[:-1]).all()
        same = spans.ray[1:] == spans.ray[:-1]
        assert (spans.start[1:] >= spans.end[:-1] - 1e-4)[same].all()
        enter, leave = box_distances(grid.low, grid.high, rays)
        assert (spans.start >= enter[spans.ray] - 1e-4).all()
        assert (spans.end <= leave[spans.ray] + 1e-4).all()
        assert (spans.length > -1e-6).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_ray_is_lost_at_the_borders_of_the_grid(axis: int) -> None:
    """A scene that fills its box to the border, and rays along faces, edges and the other axes' planes."""
    grid = DensityGrid(torch.zeros(3), 0.25, torch.full((1, 4, 4, 4), 40.0), torch.ones(1, 4, 4, 4, dtype=torch.bool))
    across = torch.tensor([1e-4, 0.25, 0.5, 0.75, 1 - 1e-4])
    origins = torch.cartesian_prod(across, across)
    origins = torch.cat([origins[:, :axis], torch.full((25, 1), -1.0), origins[:, axis:]], dim=1)
    directions = torch.eye(3)[axis].expand(25, 3)
    rays = RayBatch(origins, directions, torch.zeros(25), torch.full((25,), 9.0))
    result = GridRenderer(grid)(lambda r, s: (torch.full((len(s),), 40.0), torch.ones(len(s), 3)), rays)
    assert (result.accumulation > 0.99).all()
    outside = replace(rays, origins=origins + 1.5 * torch.eye(3)[(axis + 1) % 3])
    assert len(GridRenderer(grid).place(outside)) == 0
    behind = replace(rays, far=torch.full((25,), 0.5))
    assert len(GridRenderer(grid).place(behind)) == 0


def test_rays_begin_and_end_where_their_planes_are() -> None:
    rays, grid = views(30, seed=6), grid_of(slab)
    cut = replace(rays, near=torch.full((30,), 2.6), far=torch.full((30,), 3.1))
    spans = GridRenderer(grid).place(cut)
    assert len(spans)
    assert spans.start.min() >= 2.6 - 1e-5
    assert spans.end.max() <= 3.1 + 1e-5


def test_rays_that_meet_nothing_are_black_and_clear() -> None:
    grid = build_density_grid(lambda points, times: torch.zeros(len(points)), BOX, cells=8)
    calls = []

    def field(rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        calls.append(len(spans))
        return torch.ones(len(spans)), torch.ones(len(spans), 3)

    result = GridRenderer(grid)(field, views(5))
    assert not calls
    assert not result.colour.any()
    assert not result.accumulation.any()


def test_the_grid_holds_the_mean_of_its_cells_and_covers_what_there_is() -> None:
    grid = grid_of(ball, 64)
    assert (grid.low <= -0.6).all()
    assert (grid.high >= 0.6).all()
    assert float((grid.high - grid.low).max()) < 2.0
    centres = torch.cartesian_prod(*[torch.arange(n) for n in grid.sides])
    points = grid.low + (centres + 0.5) * grid.cell
    occupied, density = grid.occupied.flatten(), grid.density.flatten()
    dense = ball(points) > 1.0
    assert occupied[dense].all()
    deep = points.norm(dim=-1) < 0.4
    assert torch.allclose(density[deep], ball(points[deep]), rtol=0.02)
    far = points.norm(dim=-1) > 0.9
    assert not occupied[far].any()


@pytest.mark.parametrize("times", [1, 3])
def test_a_fog_is_evaluated_once_and_rendered_as_it_is(times: int) -> None:
    """Finer cells would be as full: 2 points in each cell of the first grid are all that is evaluated."""
    evaluated = []

    def density(points: Tensor, times: Tensor | None) -> Tensor:
        evaluated.append(len(points))
        return torch.full((len(points),), 0.7)

    grid = build_density_grid(density, BOX, cells=128, times=times)
    assert sum(evaluated) == 2 * grid.density.numel()
    assert grid.occupied.all()
    assert torch.allclose(grid.density, torch.tensor(0.7))
    rays = replace(views(20), times=torch.linspace(0, 1, 20))

    def field(rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        return torch.full((len(spans),), 0.7), torch.ones(len(spans), 3)

    planes = (torch.stack([BOX[0], BOX[1]])[:, None] - rays.origins) / rays.directions
    enter = torch.maximum(planes.amin(dim=0).amax(dim=-1), rays.near)
    leave = torch.minimum(planes.amax(dim=0).amin(dim=-1), rays.far)
    result = GridRenderer(grid)(field, rays)
    assert torch.allclose(result.accumulation[:, 0], 1 - torch.exp(-0.7 * (leave - enter)), atol=2e-3)


def test_a_moving_scene_is_empty_where_it_is_not_at_the_time() -> None:
    """A ball that moves along x: rays meet it where it is at their time."""

    def centre(times: Tensor) -> Tensor:
        return torch.stack([times - 0.5, torch.zeros_like(times), torch.zeros_like(times)], dim=-1)

    def density(points: Tensor, times: Tensor | None) -> Tensor:
        assert times is not None
        return smooth((points - centre(times)).norm(dim=-1) - 0.3)

    grid = build_density_grid(density, BOX, cells=32, times=5)
    assert grid.density.shape[0] == 5
    times = torch.tensor([0.0, 0.25, 0.5, 1.0])
    origins = centre(times) + torch.tensor([0.0, 0.0, -3.0])
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(4, 3)
    rays = RayBatch(origins, ahead, torch.ones(4), torch.full((4,), 5.0), times)

    def field(rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        assert rays.times is not None
        points = rays.origins[spans.ray] + rays.directions[spans.ray] * spans.middle[:, None]
        return density(points, rays.times[spans.ray]), torch.ones(len(spans), 3)

    assert (GridRenderer(grid)(field, rays).accumulation > 0.99).all()
    wrong = replace(rays, times=torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert (GridRenderer(grid)(field, wrong).accumulation < 0.02).all()


def random_spans(seed: int) -> Spans:
    """Spans of 7 rays, of which some have none and some have gaps between them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor([3, 0, 5, 1, 0, 4, 0])
    ray = torch.arange(7).repeat_interleave(counts)
    lengths = 0.1 + torch.rand(len(ray), generator=generator)
    gaps = (torch.rand(len(ray), generator=generator) < 0.4) * 1.0
    start, at = [], 0.0
    for i in range(len(ray)):
        at = 0.5 if i == 0 or ray[i] != ray[i - 1] else at
        start.append(at + float(gaps[i]))
        at = start[-1] + float(lengths[i])
    begin = torch.tensor(start)
    return Spans(ray, begin, begin + lengths, 7)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_sums_and_weights_are_those_of_loops(seed: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(compositing, "can_composite", lambda *_: False)
    spans = random_spans(seed)
    density, colour = torch.rand(len(spans)) * 3, torch.rand(len(spans), 3)
    weights = rendering_weights(spans, density)
    result = composite(spans, density, colour)
    for ray in range(7):
        light, total, sums = 1.0, torch.zeros(3), 0.0
        passed = []
        for i in (spans.ray == ray).nonzero()[:, 0].tolist():
            alpha = 1 - math.exp(-float(density[i] * spans.length[i]))
            assert float(weights[i]) == pytest.approx(light * alpha, abs=1e-6)
            assert float(spans.sums_before(density)[i]) == pytest.approx(sums, abs=1e-5)
            sums += float(density[i])
            total += light * alpha * colour[i]
            light *= 1 - alpha
            passed.append((1 - light, float(spans.middle[i]), colour[i]))
        assert torch.allclose(result.colour[ray], total, atol=1e-6)
        assert float(result.accumulation[ray]) == pytest.approx(1 - light, abs=1e-6)
        if passed:
            half = next(middle for opacity, middle, _ in passed if opacity >= (1 - light) / 2)
            assert float(result.depth[ray]) == pytest.approx(half)
            assert torch.equal(result.last_colour[ray], passed[-1][2])


@pytest.mark.parametrize("seed", range(3))
def test_samples_fill_the_runs_that_count_and_no_gap(seed: int) -> None:
    """New spans cover exactly the spans with weight and the one behind each, whatever their number."""
    spans = random_spans(seed)
    depth = torch.rand(len(spans)) * 2
    for rate in (0.1, 2.0, 1000.0):
        placed = place_samples(spans, depth, rate=rate, early_stop=0.0, min_weight=1e-6, unit=0.5)
        for ray in range(7):
            old, new = spans.ray == ray, placed.ray == ray
            assert float(placed.length[new].sum()) == pytest.approx(float(spans.length[old].sum()), abs=1e-4)
            assert bool(new.any()) == bool(old.any())
        inside = (placed.middle[:, None] > spans.start - 1e-4) & (placed.middle[:, None] < spans.end + 1e-4)
        assert ((inside & (placed.ray[:, None] == spans.ray)).sum(dim=-1) > 0).all()
    assert torch.bincount(placed.ray).max() <= MAX_SAMPLES * 5


def test_samples_are_as_dense_as_the_cube_root_of_weight() -> None:
    """Two touching spans of weights 8 : 1 per length: twice as many samples in the first."""
    spans = Spans(torch.tensor([0, 0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), 1)
    first = -math.log(1 - 0.08)
    second = -math.log(1 - 0.01 / (1 - 0.08))
    placed = place_samples(spans, torch.tensor([first, second]), rate=50, early_stop=0.0, min_weight=1e-9, unit=1.0)
    before = int((placed.middle < 1).sum())
    assert before / (len(placed) - before) == pytest.approx(2, rel=0.1)


def test_hidden_space_is_not_queried() -> None:
    spans = Spans(torch.zeros(6, dtype=torch.long), torch.arange(6.0), torch.arange(6.0) + 1, 1)
    placed = place_samples(spans, torch.full((6,), 8.0), rate=2, early_stop=3e-3, min_weight=1e-3, unit=1.0)
    assert float(placed.end.max()) == pytest.approx(2)  # the first is opaque; one more lies behind it


def test_a_span_of_a_coarse_step_is_wide_enough() -> None:
    """What `near_occupied` adds around a cell covers half a coarse step and the rounding of a cell."""
    occupied = torch.zeros(1, 21, 21, 21, dtype=torch.bool)
    occupied[0, 10, 10, 10] = True
    grid = DensityGrid(torch.zeros(3), 1.0, torch.zeros(occupied.shape), occupied)
    near = grid.near_occupied.view(21, 21, 21).nonzero()
    reach = STRIDE // 2 + 1
    assert near.amin(dim=0).tolist() == [10 - reach] * 3
    assert near.amax(dim=0).tolist() == [10 + reach] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [({"cells": 1}, "at least 2 cells"), ({"times": 0}, "1 slice"), ({"box": BOX.flip(0)}, "from a low to a high")],
)
def test_grids_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    settings = {"box": BOX, "cells": 8, **change}
    with pytest.raises(ConfigError, match=message):
        build_density_grid(lambda points, times: torch.zeros(len(points)), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"rate": float("nan")}, {"early_stop": 1.0}, {"min_weight": 0.0}])
def test_renderers_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="takes a rate in"):
        GridRenderer(grid_of(ball, 8), **change)
