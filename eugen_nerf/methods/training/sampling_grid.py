"""Densities of a field on a grid, followed while it is trained: they say where along rays to evaluate it.

As Instant-NGP's occupancy grid (Sec. E of arXiv 2201.05989), but with the densities themselves, so that samples can be
placed by rendering weights and not by occupancy alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from eugen_nerf.core.marching.density_grid import Density, DensityGrid
from eugen_nerf.fields.occupancy import OccupancyGrid

DENSE = 3e-3
"""Optical depth of a cell's side from which the cell, and those around it, hold something."""
OPTICAL_DEPTHS = 5e-3, 1.0
"""Least and largest of such a cell's side, for placing samples. Less would leave out a cell next to a surface. With
more, light ends in a cell whose mean is opaque, though a ray may pass by its other half: silhouettes get holes."""
PACE = 0.5
"""How far a density moves towards the field's at each look."""
_MAX_POINTS = 1 << 15
"""Points that are evaluated at a time."""


class SamplingGrid(OccupancyGrid):
    """Cells of a cube that may hold something, and a field's density in each; part of the checkpoint.

    Args:
        aabb: corners of the scene's box, `[2, 3]`; the grid covers the cube around it.
        resolution: cells along each side.
    """

    density: Tensor

    def __init__(self, aabb: Tensor, resolution: int) -> None:
        centre, half = aabb.mean(dim=0), (aabb[1] - aabb[0]).amax() / 2
        super().__init__(torch.stack([centre - half, centre + half]), resolution)
        self.register_buffer("density", torch.zeros(resolution, resolution, resolution))
        self._grid: DensityGrid | None = None
        self._grid_of: tuple[int, int] | None = None

    @property
    def cell(self) -> float:
        """Side of a cell."""
        return float(self.aabb[1, 0] - self.aabb[0, 0]) / self.resolution

    @torch.no_grad()
    def follow(self, density: Density, count: int | None = None) -> None:
        """Looks at a field in some cells: their densities move towards those at a random point in each.

        Args:
            density: of the field; cells outside of `cells` are not evaluated.
            count: how many cells, drawn by torch's global generator; None replaces the densities of all.
        """
        where = self.cells.nonzero()
        if count is not None:
            where = where[torch.randint(len(where), (count,), device=where.device)]
        points = self.aabb[0] + (where + torch.rand(where.shape, device=where.device)) * self.cell
        parts = points.split(_MAX_POINTS)
        found = torch.cat([density(part, None) for part in parts]) if len(points) else points.new_zeros(0)
        index = tuple(where.T)
        self.density[index] = found if count is None else torch.lerp(self.density[index], found, PACE)

    def as_density_grid(self) -> DensityGrid:
        """The grid as renderers take it; made anew where a density has changed."""
        key = (self.density.data_ptr(), self.density._version)
        if self._grid is None or self._grid_of != key:
            dense = (self.density * self.cell > DENSE)[None, None].float()
            occupied = self.cells & (max_pool3d(dense, 3, stride=1, padding=1)[0, 0] > 0)
            least, largest = (depth / self.cell for depth in OPTICAL_DEPTHS)
            density = self.density.clamp(least, largest)
            self._grid, self._grid_of = DensityGrid(self.aabb[0], self.cell, density[None], occupied[None]), key
        return self._grid
