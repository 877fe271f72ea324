"""Empty space known beforehand: samples outside a grid of occupied cells cost no query and have no density."""

from __future__ import annotations

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor, nn
from torch.nn import functional as F

from eugen_nerf.fields.graph_field import GraphField


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
        # a border of cells stands for what is outside, and one coordinate at a time is contiguous: faster than
        # comparisons and a look-up by three indices
        sides = self.resolution + 2
        cells = F.pad(self.cells, (1,) * 6, value=self.outside).flatten()
        whole = torch.int32 if sides**3 < 1 << 31 else torch.int64
        flat = positions.new_zeros((), dtype=whole)
        for axis, (low, high) in enumerate(self.aabb.T):
            index = ((positions[..., axis] - low) / (high - low)).mul_(self.resolution).add_(1).clamp_(0, sides - 1)
            index = index.to(whole).clamp_(0, sides - 1)  # NaN becomes the least integer
            flat = torch.add(index, flat, alpha=sides)
        return cells.index_select(0, flat.flatten()).view(flat.shape)


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
    positions = ray_samples.frustums.get_positions()
    shape = positions.shape[:-1]
    where = grid.occupied(positions).nonzero(as_tuple=True)  # the one wait for the device
    keys = (FieldHeadNames.DENSITY, FieldHeadNames.RGB) if colours else (FieldHeadNames.DENSITY,)
    if not len(where[0]):
        # nerfstudio's encodings cannot take an empty batch, and a training step needs a graph to go back through
        found = field.answer(ray_samples[:1, :1], colours=colours)
        return {key: 0 * found[key].expand(*shape, -1) for key in keys}
    found = field.answer_at(ray_samples, where, positions, colours=colours)
    rows = where[0] * shape[1] + where[1]
    return {
        key: found[key].new_zeros(shape.numel(), found[key].shape[-1]).index_copy_(0, rows, found[key]).view(*shape, -1)
        for key in keys
    }
