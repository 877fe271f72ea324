"""Marching and the placing of samples ray by ray, compiled by numba for CPUs where it is installed.

PyTorch's operations take all rays from step to step, and write and read what each leaves: a fifth to a third of an
image's time. A loop goes through one ray, and leaves it where what is passed hides the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eugen_nerf.core.layers.loop_threads import COMPILES, in_parts
from eugen_nerf.core.layers.plain_tensors import are_plain
from eugen_nerf.core.marching.density_grid import STRIDE, DensityGrid
from eugen_nerf.core.marching.marching import box_distances
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.marching.sample_placement import MAX_SAMPLES

_ROWS = 1 << 10
"""Fewest rays that are worth a thread of their own."""


def can_march(grid: DensityGrid, rays: RayBatch) -> bool:
    """Whether `place_by_loops` takes these: float32 on a CPU that need no gradients."""
    tensors = (grid.density, grid.low, rays.origins, rays.directions, rays.near, rays.far)
    single = are_plain(*tensors) and all(x.dtype == torch.float32 for x in tensors)
    return COMPILES and single and not any(x.requires_grad for x in tensors)


def place_by_loops(grid: DensityGrid, rays: RayBatch, *, rate: float, early_stop: float, min_weight: float) -> Spans:
    """Spans in which a field is queried: `march`, and of what it finds `place_samples`.

    Args:
        grid: of the scene.
        rays: `[r]`.
        rate: samples of a run whose light ends within one cell.
        early_stop: transmittance below which a ray ends.
        min_weight: rendering weight per cell below which a span is left out.
    """
    from eugen_nerf.core.marching.marching_kernels import place

    enter, leave = box_distances(grid.low, grid.high, rays)
    met = (leave > enter).nonzero()[:, 0]
    times = None if rays.times is None else rays.times.reshape(-1).index_select(0, met)
    # in cells from the grid's corner
    origins = (rays.origins.index_select(0, met) - grid.low) / grid.cell
    directions = rays.directions.index_select(0, met) / grid.cell
    columns = (grid.slices(times, len(met)).long(), enter.index_select(0, met), leave.index_select(0, met))
    cells = (grid.occupied.flatten(), grid.near_occupied, grid.flat_density)
    tables = (*(x.numpy() for x in cells), torch.tensor(grid.sides).numpy(), STRIDE)
    single = torch.tensor([grid.cell, early_stop, min_weight]).numpy()
    longest = math.ceil(math.hypot(*grid.sides)) + 2 * STRIDE
    parts: dict[int, tuple[Tensor, ...]] = {}

    def run(which: slice) -> None:
        own = tuple(x[which].contiguous().numpy() for x in (origins, directions, *columns))
        found = place(tables, tuple(single), float(rate), MAX_SAMPLES, longest, own, met[which].numpy())
        parts[which.start] = tuple(torch.from_numpy(x) for x in found)

    in_parts(run, len(met), _ROWS)
    ray, start, end = (torch.cat(columns) for columns in zip(*(parts[i] for i in sorted(parts)), strict=True))
    return Spans(ray, start, end, len(rays))
