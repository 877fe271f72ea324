"""What rendering can leave out in inference, for any network alike: auxiliary outputs, hidden space, empty space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor
from torch.nn.functional import max_pool3d

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.fields.occupancy import OccupancyGrid, Overlap, evaluate_occupied
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField

SEGMENTS = 4
"""Parts in which the samples of rays are evaluated, front to back, where rays end in between."""
POINTS_PER_CELL = 4
"""Random points of a cell at which densities are evaluated."""
MIN_CELL_OPACITY = 0.01
"""Opacity of a cell's diagonal from which the cell is occupied."""
MAX_POINTS = 1 << 15
"""Points of a grid that are evaluated at a time."""


@dataclass(frozen=True)
class Shortcuts:
    """What a model leaves out in inference mode; the default leaves out nothing."""

    extras: bool = True
    """Whether there are auxiliary outputs, besides `rgb`, `depth` and `accumulation`: the coarse field's, for one."""
    opaque: float = 0.0
    """Early stop: transmittance below which a ray ends at the next segment's start. No channel of an image changes by
    more."""
    empty: OccupancyGrid | None = None
    """Cells in which the fields are evaluated; elsewhere the scene is empty."""

    def __post_init__(self) -> None:
        if not 0 <= self.opaque < 1:
            raise ConfigError(f"rays end below a transmittance in [0, 1), not {self.opaque:g}; try 0.003")


def front_to_back(
    evaluate: Callable[[RaySamples], FieldOutputs], samples: RaySamples, early_stop: float
) -> FieldOutputs:
    """Density and colour of samples, evaluated front to back while a ray's transmittance is `early_stop` or more.

    What is left out has no density, and all that it could add to an image is the transmittance before it: a colour in
    [0, 1] and the background's share together are what changes, so a channel changes by less than `early_stop`.

    Args:
        evaluate: field at samples `[rays, samples]`, any number of either.
        samples: `[rays, samples]`, from near to far.
        early_stop: below 1; 0 evaluates all samples.

    Returns:
        As `evaluate`, zero where it was not called.
    """
    rays, count = samples.shape
    assert samples.deltas is not None
    # of even length: Zip-NeRF's encoder treats odd samples of a ray differently
    length = 2 * -(-count // (2 * SEGMENTS))
    if early_stop <= 0 or rays == 0 or count <= length:
        return evaluate(samples)
    outputs: FieldOutputs = {}
    passed = torch.zeros(rays, device=samples.deltas.device)
    alive = torch.arange(rays, device=passed.device)
    for start in range(0, count, length):
        segment = slice(start, start + length)
        here = _of_rays(samples, alive, segment) if len(alive) < rays else samples[:, segment]
        part = evaluate(here)
        assert here.deltas is not None
        for key, values in part.items():
            if key not in outputs:
                outputs[key] = values.new_zeros(rays, count, values.shape[-1])
            outputs[key][alive, segment] = values
        passed[alive] += (part[FieldHeadNames.DENSITY] * here.deltas)[..., 0].sum(dim=-1)
        alive = alive[torch.exp(-passed[alive]) >= early_stop]
        if not len(alive):
            break
    return outputs


def _of_rays(samples: RaySamples, rays: Tensor, segment: slice) -> RaySamples:
    """A segment of some rays; where samples share the direction of their ray, so they do still."""
    part, directions = samples[rays, segment], samples.frustums.directions
    if directions.stride(1) == 0:
        shared = directions[rays, :1].expand_as(part.frustums.directions)
        part.frustums = replace(part.frustums, directions=shared)
    return part


@torch.no_grad()
def trained_occupancy(
    fields: list[RadianceField], within: OccupancyGrid | None, box: Tensor, resolution: int, *, seed: int = 0
) -> OccupancyGrid:
    """A grid of the cells with trained density, and their neighbours; everything outside the grid is occupied.

    A cell is occupied where, at one of `POINTS_PER_CELL` random points, one of the fields is so dense that the cell's
    diagonal would have the opacity `MIN_CELL_OPACITY`. Thinner matter, and what lies between the points, is lost: what
    that does to an image has to be measured.

    Args:
        fields: whose densities are evaluated.
        within: the model's own grid, outside of whose cells there is no density.
        box: corners `[2, 3]`.
        resolution: cells along each side.
        seed: of the points.

    Raises:
        ConfigError: fewer than 2 cells a side.
    """
    if resolution < 2:
        raise ConfigError(f"a grid needs at least 2 cells a side, not {resolution}; try 96")
    grid = OccupancyGrid(box, resolution, outside=True).to(box.device)
    size = (box[1] - box[0]) / resolution
    least = -torch.log1p(torch.tensor(-MIN_CELL_OPACITY)) / size.norm()
    generator = torch.Generator().manual_seed(seed)
    indices = torch.cartesian_prod(*[torch.arange(resolution)] * 3)
    dense = torch.zeros(len(indices), dtype=torch.bool, device=box.device)
    for _ in range(POINTS_PER_CELL):
        points = box[0] + (indices + torch.rand(indices.shape, generator=generator)).to(box) * size
        for start in range(0, len(points), MAX_POINTS):
            part = slice(start, start + MAX_POINTS)
            samples = samples_at(points[part])
            for field in fields:
                outputs = evaluate_occupied(field, samples, within, EvaluationMode.INFERENCE, density_only=True)
                dense[part] |= outputs[FieldHeadNames.DENSITY].flatten() >= least.to(box)
    cells = dense.view(1, 1, *[resolution] * 3).float()
    grid.cells.copy_(max_pool3d(cells, 3, stride=1, padding=1)[0, 0] > 0)
    return grid


def samples_at(points: Tensor, times: Tensor | None = None) -> RaySamples:
    """Samples `[n, 1]` whose positions are points `[n, 3]`, for fields that read positions; directions are zero.

    Args:
        points: the positions.
        times: of each, `[n]`, where fields read them.
    """
    points = points[:, None]
    zeros, still = torch.zeros_like(points[..., :1]), torch.zeros_like(points)
    frustums = Frustums(origins=points, directions=still, starts=zeros, ends=zeros, pixel_area=zeros)
    return RaySamples(frustums=frustums, deltas=zeros, times=None if times is None else times[:, None, None])


def evaluated_space(occupancy: OccupancyGrid | None, empty: OccupancyGrid | None) -> OccupancyGrid | Overlap | None:
    """Cells that both a model's own grid and that of its shortcuts have as occupied; None for everywhere."""
    grids = [grid for grid in (occupancy, empty) if grid is not None]
    return grids[0] if len(grids) == 1 else Overlap(*grids) if grids else None
