"""Empty space, known before rendering: samples outside a grid of occupied cells cost no query and have no density."""

from __future__ import annotations

import torch
from nerfstudio.cameras.rays import RaySamples
from torch import Tensor, nn
from torch.nn import functional as F

from eugen_nerf.core import EvaluationMode
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField, Selection


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
        # a border of cells represents the outside, and one coordinate at a time is contiguous: faster than
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
    """Space that several grids all have as occupied.

    Args:
        grids: at least one.
    """

    def __init__(self, *grids: OccupancyGrid) -> None:
        self.grids = grids

    def occupied(self, positions: Tensor) -> Tensor:
        """As `OccupancyGrid.occupied`."""
        occupied = self.grids[0].occupied(positions)
        for grid in self.grids[1:]:
            occupied = occupied & grid.occupied(positions)
        return occupied


def evaluate_occupied(
    field: RadianceField,
    ray_samples: RaySamples,
    grid: OccupancyGrid | Overlap | None,
    mode: EvaluationMode,
    *,
    density_only: bool = False,
) -> FieldOutputs:
    """Density and colour at samples `[rays, samples]`, the field evaluated only where the grid is occupied.

    Args:
        field: any field with density and colour.
        ray_samples: samples along rays.
        grid: None evaluates the field everywhere.
        mode: as `RadianceField.evaluate`.
        density_only: likewise.

    Returns:
        `DENSITY` `[rays, samples, 1]` and `RGB` `[rays, samples, 3]`, zero in empty cells.
    """
    if grid is None:
        return field.evaluate(ray_samples, mode, density_only=density_only)
    positions = ray_samples.frustums.get_positions()
    shape = positions.shape[:-1]
    selection = Selection(grid.occupied(positions).nonzero(as_tuple=True), positions)  # the one wait for the device
    if not len(selection):
        # nerfstudio's encodings cannot take an empty batch, and a training step needs a graph to go back through
        outputs = field.evaluate(ray_samples[:1, :1], mode, density_only=density_only)
        return {key: 0 * value.expand(*shape, -1) for key, value in outputs.items()}
    outputs = field.evaluate(ray_samples, mode, density_only=density_only, selection=selection)
    rows = selection.indices[0] * shape[1] + selection.indices[1]
    return {
        key: value.new_zeros(shape.numel(), value.shape[-1]).index_copy_(0, rows, value).view(*shape, -1)
        for key, value in outputs.items()
    }
