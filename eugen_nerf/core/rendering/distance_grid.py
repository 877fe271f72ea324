"""A signed distance on a grid, and the first surface along rays by it: the field itself is queried only at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.rendering.sphere_tracing import first_crossing

Distance = Callable[[Tensor], Tensor]
"""Signed distances `[n]` at points `[n, 3]`."""
Slope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The same, and their gradients `[n, 3]`."""
MAX_STEPS = 256
"""Of a march through a grid."""
TOLERANCE = 0.05
"""Distance from the surface, in cells, within which a ray has found it."""
MIN_FALL = -0.05
"""Of a distance along a ray that crosses its zero: one that falls less steeply is taken to fall so."""
MAX_UNCHECKED = 0.03
"""Length of Newton's step along a ray, in cells, up to which the field is not queried at its end; so far at most from
the surface gradients are taken."""
_MAX_POINTS = 1 << 15
"""Points that are evaluated at a time."""


@dataclass(frozen=True)
class DistanceGrid:
    """Signed distances at the corners of cubic cells in a box."""

    low: Tensor
    """Corner of the box, float32 `[3]`."""
    cell: float
    """Side of a cell."""
    distance: Tensor
    """float32 `[x, y, z]`, one more along each axis than there are cells."""

    @cached_property
    def high(self) -> Tensor:
        """The other corner, `[3]`."""
        return self.low + self.cell * (torch.tensor(self.distance.shape, device=self.low.device) - 1)

    @cached_property
    def _volume(self) -> Tensor:
        # `grid_sample` takes coordinates as x, y, z, and a volume as z, y, x
        return self.distance.permute(2, 1, 0)[None, None].contiguous()

    def at(self, points: Tensor) -> Tensor:
        """Distances `[n]` at points `[n, 3]`, trilinear between corners; those of the border outside."""
        place = 2 * (points - self.low) / (self.high - self.low) - 1
        values = grid_sample(self._volume, place[None, :, None, None], padding_mode="border", align_corners=True)
        return values.view(len(points))

    def holds(self, points: Tensor) -> Tensor:
        """Whether points `[n, 3]` lie in the box, bool `[n]`."""
        return ((points >= self.low) & (points <= self.high)).all(dim=-1)

    def to(self, device: torch.device | str) -> DistanceGrid:
        """The same grid on a device."""
        return DistanceGrid(self.low.to(device), self.cell, self.distance.to(device))


@torch.no_grad()
def build_distance_grid(distance: Distance, box: Tensor, *, cells: int = 128) -> DistanceGrid:
    """Evaluates a signed distance at the corners of cells.

    Args:
        distance: of the trained field.
        box: corners `[2, 3]`; the grid is at least as large.
        cells: along the longest side.

    Raises:
        ConfigError: fewer than 2 cells, or a box without a volume.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.rendering.distance_grid import build_distance_grid
        >>> box = torch.tensor([[-2.0] * 3, [2.0] * 3])
        >>> grid = build_distance_grid(lambda points: points.norm(dim=-1) - 1, box, cells=16)
        >>> round(float(grid.at(torch.tensor([[0.0, 1.5, 0.0]]))), 2)
        0.5
    """
    if cells < 2 or not bool((box[1] > box[0]).all()):
        raise ConfigError(f"a grid covers a box by at least 2 cells a side, got {cells} cells and {box.tolist()}")
    low, size = box[0].float(), (box[1] - box[0]).float()
    cell = float(size.max()) / cells
    corners = [torch.arange(int((length / cell - 1e-4).ceil()) + 1, device=box.device) for length in size]
    points = low + cell * torch.cartesian_prod(*corners)
    values = torch.cat([distance(part) for part in points.split(_MAX_POINTS)])
    return DistanceGrid(low, cell, values.view(*map(len, corners)))


def first_crossing_by_grid(
    grid: DistanceGrid,
    distance: Distance,
    slope: Slope,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    *,
    min_step: float = 0.01,
    **settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `first_crossing`, with a grid that leads there: some one query a ray in place of a dozen.

    Rays are traced through the grid to its own surface, where the field is queried with its gradient, once: one of
    Newton's steps leads from there to the field's. A ray that is `TOLERANCE` away already, or that the step leads
    further than `MAX_UNCHECKED`, is queried again at the step's end. Rays that end away from the surface, and those
    that begin outside the grid or leave it, are traced as ever: from where the grid's surface is near, or was left.

    Args:
        grid: of the distance.
        distance: signed distances `[n]` at points `[n, 3]`.
        slope: the same, and their gradients `[n, 3]`.
        origins: `[R, 3]`.
        directions: `[R, 3]`, unit vectors.
        near: `[R]`, where the search begins.
        far: `[R]`, where it ends.
        min_step: see `first_crossing`.
        settings: further ones of `first_crossing`, for rays that are traced as ever.

    Returns:
        Distances along the rays `[R]`, `far` for misses; whether each ray hit, bool `[R]`; and gradients `[R, 3]`, 0
        for misses, taken at these points or within `MAX_UNCHECKED` of them.
    """
    before, behind, at_before, at_behind, met = _march(grid, origins, directions, near, far, min_step)
    t, hit, again = far.clone(), met.clone(), ~met
    gradients = torch.zeros_like(directions)
    rays = met.nonzero()[:, 0]
    if len(rays):
        from_, to = origins[rays], directions[rays]
        falling = ((at_behind - at_before)[rays] / (behind - before)[rays].clamp_min(1e-6)).clamp_max(MIN_FALL)
        here = before[rays] - at_before[rays] / falling
        value, gradient = slope(torch.addcmul(from_, to, here[:, None]))
        step = -value / (gradient * to).sum(dim=-1).clamp_max(MIN_FALL)
        there = here + step.clamp(-2 * grid.cell, 2 * grid.cell)
        t[rays], gradients[rays] = there, gradient
        unsure = ((value.abs() > TOLERANCE * grid.cell) | (step.abs() > MAX_UNCHECKED * grid.cell)).nonzero()[:, 0]
        if len(unsure):
            rays, here, there, value = rays[unsure], here[unsure], there[unsure], value[unsure]
            other, turned = slope(torch.addcmul(from_[unsure], to[unsure], there[:, None]))
            closer = other.abs() < value.abs()
            t[rays] = torch.where(closer, there, here)
            gradients[rays] = torch.where(closer[:, None], turned, gradient[unsure])
            again[rays] = torch.where(closer, other, value).abs() > TOLERANCE * grid.cell
    rays = again.nonzero()[:, 0]
    if len(rays):
        start = torch.where(met[rays], before[rays] - 2 * grid.cell, before[rays]).maximum(near[rays])
        t[rays], hit[rays] = first_crossing(
            distance, origins[rays], directions[rays], start, far[rays], min_step=min_step, **settings
        )
        gradients[rays] = 0
        rays = rays[hit[rays].nonzero()[:, 0]]
        if len(rays):
            gradients[rays] = slope(torch.addcmul(origins[rays], directions[rays], t[rays][:, None]))[1]
    return t, hit, gradients


def _march(
    grid: DistanceGrid, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, min_step: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The last step before the grid's surface, behind it, its distances at both, and whether a ray met it; all `[R]`.

    Rays that meet nothing in the grid have the last step within it, or where they begin, as the first.
    """
    before, behind = near.clone(), near.clone()
    at_before, at_behind = torch.ones_like(near), torch.ones_like(near)
    met = torch.zeros_like(near, dtype=torch.bool)
    active = torch.arange(len(near), device=near.device)
    for _ in range(MAX_STEPS):
        here = behind[active]
        points = torch.addcmul(origins[active], directions[active], here[:, None])
        value, inside = grid.at(points), grid.holds(points)
        crossed, going = inside & (value <= 0), inside & (value > 0)
        before[active] = torch.where(going, here, before[active])
        at_before[active] = torch.where(going, value, at_before[active])
        at_behind[active] = torch.where(crossed, value, at_behind[active])
        met[active] = crossed
        further = here + value.clamp_min(min_step)
        going &= further <= far[active]
        behind[active] = torch.where(going, further, here)
        active = active[going.nonzero()[:, 0]]
        if not len(active):
            break
    return before, behind, at_before, at_behind, met
