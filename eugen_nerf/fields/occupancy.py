"""Empty space known beforehand: samples outside a grid of occupied cells cost no query and have no density."""

from __future__ import annotations

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor, nn

from eugen_nerf.fields.base import GraphField


class OccupancyGrid(nn.Module):
    """Boolean cells over a box; part of the checkpoint.

    Args:
        aabb: box corners, `[2, 3]`.
        resolution: cells along each side.
        outside: whether space outside the box counts as occupied.
    """

    aabb: Tensor
    cells: Tensor

    def __init__(self, aabb: Tensor, resolution: int, *, outside: bool = False) -> None:
        super().__init__()
        self.resolution, self.outside = resolution, outside
        self.register_buffer("aabb", aabb.clone())
        self.register_buffer("cells", torch.ones(resolution, resolution, resolution, dtype=torch.bool))

    def occupied(self, positions: Tensor) -> Tensor:
        """Whether each point `[..., 3]` lies in an occupied cell (or outside, where `outside` is set): `[...]`."""
        unit = (positions - self.aabb[0]) / (self.aabb[1] - self.aabb[0])
        inside = ((unit >= 0) & (unit < 1)).all(dim=-1)
        index = (unit.clamp(0, 1) * self.resolution).long().clamp(0, self.resolution - 1)  # NaN becomes int64's minimum
        filled = self.cells[index[..., 0], index[..., 1], index[..., 2]]
        return filled | ~inside if self.outside else filled & inside


class Overlap:
    """What several grids all have as occupied.

    Args:
        grids: at least one.
    """

    def __init__(self, *grids: OccupancyGrid) -> None:
        self.grids = grids

    def occupied(self, positions: Tensor) -> Tensor:
        """As `OccupancyGrid.occupied`."""
        found = self.grids[0].occupied(positions)
        for grid in self.grids[1:]:
            found = found & grid.occupied(positions)
        return found


def query_occupied(
    field: GraphField, ray_samples: RaySamples, grid: OccupancyGrid | Overlap | None, *, colours: bool = True
) -> dict[FieldHeadNames, Tensor]:
    """Density and colour at samples `[rays, samples]`, the field asked only where the grid is occupied.

    Args:
        field: any field with density and colour.
        ray_samples: samples along rays.
        grid: None asks the field everywhere.
        colours: whether they are wanted.

    Returns:
        `DENSITY` `[rays, samples, 1]` and `RGB` `[rays, samples, 3]`, zero in empty cells.
    """
    if grid is None:
        return field.answer(ray_samples, colours=colours)
    mask = grid.occupied(ray_samples.frustums.get_positions())
    keys = (FieldHeadNames.DENSITY, FieldHeadNames.RGB) if colours else (FieldHeadNames.DENSITY,)
    if not mask.any():
        # nerfstudio's encodings cannot take an empty batch, and a training step needs a graph to go back through
        found = field.answer(ray_samples[:1, :1], colours=colours)
        return {key: 0 * found[key].expand(*mask.shape, -1) for key in keys}
    found = field.answer_at(ray_samples, mask, colours=colours)
    return {
        key: found[key].new_zeros(*mask.shape, found[key].shape[-1]).masked_scatter(mask[..., None], found[key])
        for key in keys
    }
