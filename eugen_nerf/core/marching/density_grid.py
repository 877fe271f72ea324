"""The density of a trained field on a grid: a cheap stand-in that says where along a ray to query the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from eugen_nerf.core.errors import ConfigError

Density = Callable[[Tensor, Tensor | None], Tensor]
"""Densities `[n]` at points `[n, 3]`, and at times `[n]` where a scene moves."""
MIN_OPACITY = 0.003
"""Opacity of a cell's diagonal, at its densest point, from which the cell is occupied."""
POINTS_PER_CELL = 4
"""Random points of a cell at which densities are evaluated."""
STRIDE = 4
"""Cells that a coarse step passes."""
SURVEY = 96
"""Cells along the longest side of the grid that finds the box of a scene that stands still."""
MOVING_SURVEY = 48
"""Likewise in every slice of time of one that moves."""
FOG = 0.5
"""Part of the first grid's cells with density, in all slices, from which it is kept: finer cells would be as full."""
_MAX_POINTS = 1 << 15
"""Points that are evaluated at a time."""


@dataclass(frozen=True)
class DensityGrid:
    """Mean densities of cubic cells in a box, in slices of time."""

    low: Tensor
    """Corner of the box, float32 `[3]`."""
    cell: float
    """Side of a cell."""
    density: Tensor
    """Mean of each cell, float32 `[times, x, y, z]`, and of the slices next to it; one slice where nothing moves."""
    occupied: Tensor
    """Cells in which there is density, and their neighbours, bool `[times, x, y, z]`."""

    @property
    def sides(self) -> tuple[int, int, int]:
        """Cells along x, y and z."""
        return self.density.shape[1:]  # type: ignore[return-value]

    @property
    def high(self) -> Tensor:
        """The other corner, `[3]`."""
        return self.low + self.cell * torch.tensor(self.sides, device=self.low.device)

    @cached_property
    def near_occupied(self) -> Tensor:
        """Flat: cells within half a coarse step of an occupied one, a cell's rounding included."""
        return _dilated(self.occupied, STRIDE // 2 + 1).flatten()

    @cached_property
    def flat_density(self) -> Tensor:
        """Flat, and zero in cells that are not occupied."""
        return (self.density * self.occupied).flatten()

    def slices(self, times: Tensor | None, rays: int) -> Tensor:
        """Number of the first cell of the slice nearest to each ray's time, int32 `[rays]`."""
        count = len(self.density)
        if count == 1 or times is None:
            return torch.zeros(rays, dtype=torch.int32, device=self.low.device)
        nearest = (times.reshape(rays) * (count - 1)).round().clamp(0, count - 1)
        return nearest.to(torch.int32) * math.prod(self.sides)

    def to(self, device: torch.device | str) -> DensityGrid:
        """The same grid on a device."""
        return DensityGrid(self.low.to(device), self.cell, self.density.to(device), self.occupied.to(device))


@torch.no_grad()
def build_density_grid(
    density: Density, box: Tensor, *, cells: int = 128, times: int = 1, seed: int = 0
) -> DensityGrid:
    """Evaluates a field over a box, and then in detail where there is something.

    A first, coarser grid finds where density is; the second covers the box of that alone, and is evaluated only there.
    Matter between the points of the first is lost: what that does to an image has to be measured. Where density is
    nearly everywhere, as in a field that is not trained yet, the first grid is kept.

    Args:
        density: of the trained field.
        box: corners `[2, 3]`, around all that rays will meet.
        cells: along the longest side of what is found.
        times: slices, evenly from time 0 to 1; 1 for a scene that stands still.
        seed: of the points within cells.

    Raises:
        ConfigError: fewer than 2 cells, no slice, or a box without a volume.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.marching.density_grid import build_density_grid
        >>> ball = lambda points, times: 50.0 * (points.norm(dim=-1) < 0.5)
        >>> grid = build_density_grid(ball, torch.tensor([[-2.0] * 3, [2.0] * 3]), cells=16)
        >>> bool((grid.low < -0.5).all()), bool((grid.high > 0.5).all()), bool((grid.high < 0.8).all())
        (True, True, True)
    """
    if cells < 2 or times < 1:
        raise ConfigError(f"a grid needs at least 2 cells a side and 1 slice of time, got {cells} and {times}")
    if not bool((box[1] > box[0]).all()):
        raise ConfigError(f"a grid covers a box from a low to a high corner, got {box.tolist()}")
    generator = torch.Generator().manual_seed(seed)
    first = _survey(density, box.float(), SURVEY if times == 1 else MOVING_SURVEY, times, generator)
    near = _dilated(first.occupied, 1)
    if not bool(near.any()):
        return first
    found = first if float(first.occupied.float().mean()) > FOG else _detail(density, first, near, cells, generator)
    means, dense = found.density, found.occupied
    if times > 1:  # between two slices, matter is in the cells of either
        dense = torch.stack([dense[max(0, i - 1) : i + 2].any(dim=0) for i in range(times)])
        means = torch.stack([means[max(0, i - 1) : i + 2].mean(dim=0) for i in range(times)])
    return DensityGrid(found.low, found.cell, means, _dilated(dense, 1))


def _survey(density: Density, box: Tensor, cells: int, times: int, generator: torch.Generator) -> DensityGrid:
    """The first grid, over all of a box; occupied where density was found, and nowhere beside it."""
    cell, sides = _cells(box, cells)
    where = torch.ones(sides, device=box.device).nonzero()
    slices = [_evaluated(density, box[0], cell, sides, where, _time(i, times), generator, 2) for i in range(times)]
    return DensityGrid(box[0], cell, *(torch.stack(parts) for parts in zip(*slices, strict=True)))


def _detail(density: Density, first: DensityGrid, near: Tensor, cells: int, generator: torch.Generator) -> DensityGrid:
    """Finer cells over the box of some of the first grid's, `near` `[times, x, y, z]`, evaluated only in these."""
    inside = near.any(dim=0).nonzero()
    low = first.low + inside.amin(dim=0) * first.cell
    cell, sides = _cells(torch.stack([low, first.low + (inside.amax(dim=0) + 1) * first.cell]), cells)
    centres = torch.cartesian_prod(*[torch.arange(n, device=low.device) for n in sides])
    coarse = ((low - first.low + (centres + 0.5) * cell) / first.cell).long()
    coarse = torch.minimum(coarse, torch.tensor(first.sides, device=low.device) - 1)
    slices = [
        _evaluated(
            density, low, cell, sides, centres[cells_near[tuple(coarse.T)]], _time(i, len(near)), generator,
            POINTS_PER_CELL,
        )
        for i, cells_near in enumerate(near)
    ]  # fmt: skip
    return DensityGrid(low, cell, *(torch.stack(parts) for parts in zip(*slices, strict=True)))


def _cells(box: Tensor, cells: int) -> tuple[float, tuple[int, int, int]]:
    """Side of cubic cells, and their numbers, that cover a box with so many along its longest side."""
    size = box[1] - box[0]
    cell = float(size.max()) / cells
    x, y, z = (max(1, math.ceil(float(length) / cell - 1e-4)) for length in size)
    return cell, (x, y, z)


def _time(slice_: int, times: int) -> float | None:
    return None if times == 1 else slice_ / (times - 1)


def _evaluated(
    density: Density,
    low: Tensor,
    cell: float,
    sides: tuple[int, int, int],
    where: Tensor,
    time: float | None,
    generator: torch.Generator,
    points_per_cell: int,
) -> tuple[Tensor, Tensor]:
    """Mean density `[x, y, z]`, and whether a point of a cell is dense; zero in cells not among `where` `[n, 3]`."""
    where = where.contiguous()  # `nonzero` gives columns, and encodings take rows
    least = -math.log1p(-MIN_OPACITY) / (math.sqrt(3) * cell)
    total, highest = low.new_zeros(len(where)), low.new_zeros(len(where))
    for _ in range(points_per_cell):
        points = low + (where + torch.rand(len(where), 3, generator=generator).to(low)) * cell
        for start in range(0, len(points), _MAX_POINTS):
            part = slice(start, start + _MAX_POINTS)
            times = None if time is None else points.new_full((len(points[part]),), time)
            values = density(points[part], times)
            total[part] += values
            highest[part] = torch.maximum(highest[part], values)
    mean = low.new_zeros(sides)
    dense = torch.zeros(sides, dtype=torch.bool, device=low.device)
    mean[tuple(where.T)] = total / points_per_cell
    dense[tuple(where.T)] = highest >= least
    return mean, dense


def _dilated(cells: Tensor, by: int) -> Tensor:
    """Cells within so many of a set one along every axis, bool `[times, x, y, z]`."""
    grown = cells[:, None].float()
    for axis in range(3):  # one axis after another: 3 (2 n + 1) comparisons a cell in place of (2 n + 1)^3
        window = tuple(2 * by + 1 if i == axis else 1 for i in range(3))
        grown = max_pool3d(grown, window, stride=1, padding=tuple(by if i == axis else 0 for i in range(3)))
    return grown[:, 0] > 0
