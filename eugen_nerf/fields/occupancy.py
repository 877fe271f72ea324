"""Empty space known beforehand: samples outside a grid of occupied cells cost no query and have no density."""

from __future__ import annotations

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.base_field import Field
from torch import Tensor, nn


class OccupancyGrid(nn.Module):
    """Boolean cells over a box; part of the checkpoint.

    Args:
        aabb: box corners, `[2, 3]`.
        resolution: cells along each side.
    """

    aabb: Tensor
    cells: Tensor

    def __init__(self, aabb: Tensor, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.register_buffer("aabb", aabb.clone())
        self.register_buffer("cells", torch.ones(resolution, resolution, resolution, dtype=torch.bool))

    def occupied(self, positions: Tensor) -> Tensor:
        """Whether each point `[..., 3]` lies in an occupied cell: `[...]`; outside the box nothing is occupied."""
        unit = (positions - self.aabb[0]) / (self.aabb[1] - self.aabb[0])
        inside = ((unit >= 0) & (unit < 1)).all(dim=-1)
        index = (unit.clamp(0, 1) * self.resolution).long().clamp(0, self.resolution - 1)  # NaN becomes int64's minimum
        return inside & self.cells[index[..., 0], index[..., 1], index[..., 2]]


def query_occupied(field: Field, ray_samples: RaySamples, grid: OccupancyGrid | None) -> dict[FieldHeadNames, Tensor]:
    """Density and colour at samples `[rays, samples]`, the field asked only where the grid is occupied.

    Args:
        field: any field with density and colour.
        ray_samples: samples along rays.
        grid: None asks the field everywhere.

    Returns:
        `DENSITY` `[rays, samples, 1]` and `RGB` `[rays, samples, 3]`, zero in empty cells.
    """
    if grid is None:
        return field(ray_samples)
    mask = grid.occupied(ray_samples.frustums.get_positions())
    if not mask.any():
        # nerfstudio's encodings cannot take an empty batch, and a training step needs a graph to go back through
        found = field(ray_samples[:1, :1])
        return {key: 0 * found[key].expand(*mask.shape, -1) for key in (FieldHeadNames.DENSITY, FieldHeadNames.RGB)}
    found = field(ray_samples[mask])
    return {
        key: found[key].new_zeros(*mask.shape, found[key].shape[-1]).masked_scatter(mask[..., None], found[key])
        for key in (FieldHeadNames.DENSITY, FieldHeadNames.RGB)
    }
