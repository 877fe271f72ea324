"""Marching through a grid of densities: the occupied spans of rays, and how much light passes each."""

from __future__ import annotations

import torch
from torch import Tensor

from eugen_nerf.core.marching.density_grid import STRIDE, DensityGrid
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans


def march(grid: DensityGrid, rays: RayBatch) -> tuple[Spans, Tensor]:
    """Spans, a cell long, whose middles lie in occupied cells, and the grid's optical depth of each.

    Rays are cut to the grid's box. Coarse steps skip space that has no occupied cell within half a step.

    Args:
        grid: of the scene.
        rays: `[r]`.

    Returns:
        Spans `[n]`, and optical depths `[n]`: density times length.
    """
    enter, leave = box_distances(grid.low, grid.high, rays)
    met = (leave > enter).nonzero()[:, 0]
    # `index_select` throughout: a tensor as an index takes a CPU several times as long
    begin, end, step = enter.index_select(0, met), leave.index_select(0, met), STRIDE * grid.cell
    # in cells from the grid's corner
    origins = (rays.origins.index_select(0, met) - grid.low) / grid.cell
    directions = rays.directions.index_select(0, met) / grid.cell
    slices = grid.slices(None if rays.times is None else rays.times[met], len(met))
    count = int(((end - begin) / step).ceil().amax()) if len(met) else 0
    starts = begin[:, None] + step * torch.arange(count, device=begin.device)
    coarse = _cells_at(grid, origins[:, None], directions[:, None], slices[:, None], starts + step / 2)
    near = grid.near_occupied.index_select(0, coarse.flatten()).view(coarse.shape) & (starts < end[:, None])
    which, number = near.nonzero(as_tuple=True)
    first = starts.flatten().index_select(0, which * count + number)
    start = first[:, None] + grid.cell * torch.arange(STRIDE, device=begin.device)
    origins, directions, slices = (values.index_select(0, which)[:, None] for values in (origins, directions, slices))
    cells = _cells_at(grid, origins, directions, slices, start + grid.cell / 2).flatten()
    which, start = which.repeat_interleave(STRIDE), start.flatten()
    stop = torch.minimum(start + grid.cell, end.index_select(0, which))
    occupied = (grid.occupied.flatten().index_select(0, cells) & (stop > start)).nonzero()[:, 0]
    which, start, stop, cells = (values.index_select(0, occupied) for values in (which, start, stop, cells))
    depth = grid.flat_density.index_select(0, cells) * (stop - start)
    return Spans(met.index_select(0, which), start, stop, len(rays)), depth


def box_distances(low: Tensor, high: Tensor, rays: RayBatch) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter a box and leave it, within their near and far ends; a miss leaves before it enters.

    Args:
        low: corner `[3]`.
        high: corner `[3]`.
        rays: `[r]`.

    Returns:
        Two of `[r]`.
    """
    # a ray along a face would meet 0 / 0
    tiny = torch.finfo(rays.directions.dtype).tiny ** 0.5
    directions = torch.where(rays.directions.abs() < tiny, tiny, rays.directions)
    first, second = (low - rays.origins) / directions, (high - rays.origins) / directions
    enter = torch.minimum(first, second).amax(dim=-1)
    leave = torch.maximum(first, second).amin(dim=-1)
    return torch.maximum(enter, rays.near.reshape(-1)), torch.minimum(leave, rays.far.reshape(-1))


def _cells_at(grid: DensityGrid, origins: Tensor, directions: Tensor, slices: Tensor, t: Tensor) -> Tensor:
    """Flat numbers of the cells at distances `[r, n]` along rays `[r, 1, 3]` given in cells: int32 `[r, n]`."""
    flat: Tensor | None = None
    for axis, side in enumerate(grid.sides):
        # one coordinate at a time is contiguous
        index = torch.addcmul(origins[..., axis], directions[..., axis], t).clamp_(0, side - 1).to(torch.int32)
        flat = index if flat is None else flat.mul_(side).add_(index)
    assert flat is not None
    return flat.add_(slices)
