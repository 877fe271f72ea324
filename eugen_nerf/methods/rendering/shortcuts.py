"""What rendering can leave out in evaluation, for any network alike: extras, what is hidden, what is empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor
from torch.nn.functional import max_pool3d

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.fields.graph_field import GraphField
from eugen_nerf.fields.occupancy import OccupancyGrid, Overlap, query_occupied

SEGMENTS = 4
"""Parts in which the samples of rays are asked, front to back, where rays end in between."""
ROUNDS = 4
"""Random points of a cell at which a density is looked up."""
THINNEST = 0.01
"""Opacity of a cell's diagonal from which the cell is occupied."""
ROWS = 1 << 15
"""Points of a grid that are asked at a time."""

Answer = dict[FieldHeadNames, Tensor]


@dataclass(frozen=True)
class Shortcuts:
    """What a model leaves out where no gradients are asked for; the default leaves out nothing."""

    extras: bool = True
    """Whether there are outputs besides `rgb`, `depth` and `accumulation`, such as the coarse field's colours."""
    opaque: float = 0.0
    """Transmittance below which a ray ends at the next segment's start. No channel of a picture changes by more."""
    empty: OccupancyGrid | None = None
    """Where the fields are asked; elsewhere nothing is."""

    def __post_init__(self) -> None:
        if not 0 <= self.opaque < 1:
            raise ConfigError(f"rays end below a transmittance in [0, 1), not {self.opaque:g}; try 0.003")


def front_to_back(ask: Callable[[RaySamples], Answer], samples: RaySamples, opaque: float) -> Answer:
    """Density and colour of samples, asked front to back while a ray's transmittance is `opaque` or more.

    What is left out has no density, and all that it could add to a picture is the transmittance before it: a colour in
    [0, 1] and the background's share together are what changes, so a channel changes by less than `opaque`.

    Args:
        ask: field at samples `[rays, samples]`, any number of either.
        samples: `[rays, samples]`, from near to far.
        opaque: below 1; 0 asks for all.

    Returns:
        As `ask`, zero where it was not asked.
    """
    rays, count = samples.shape
    assert samples.deltas is not None
    # of even length: Zip-NeRF's encoder treats odd samples of a ray differently
    length = 2 * -(-count // (2 * SEGMENTS))
    if opaque <= 0 or rays == 0 or count <= length:
        return ask(samples)
    found: Answer = {}
    passed = torch.zeros(rays, device=samples.deltas.device)
    alive = torch.arange(rays, device=passed.device)
    for start in range(0, count, length):
        segment = slice(start, start + length)
        here = _of_rays(samples, alive, segment) if len(alive) < rays else samples[:, segment]
        part = ask(here)
        assert here.deltas is not None
        for key, values in part.items():
            if key not in found:
                found[key] = values.new_zeros(rays, count, values.shape[-1])
            found[key][alive, segment] = values
        passed[alive] += (part[FieldHeadNames.DENSITY] * here.deltas)[..., 0].sum(dim=-1)
        alive = alive[torch.exp(-passed[alive]) >= opaque]
        if not len(alive):
            break
    return found


def _of_rays(samples: RaySamples, rays: Tensor, segment: slice) -> RaySamples:
    """A segment of some rays; where samples share the direction of their ray, so they do still."""
    found, directions = samples[rays, segment], samples.frustums.directions
    if directions.stride(1) == 0:
        shared = directions[rays, :1].expand_as(found.frustums.directions)
        found.frustums = replace(found.frustums, directions=shared)
    return found


@torch.no_grad()
def trained_occupancy(
    fields: list[GraphField], within: OccupancyGrid | None, box: Tensor, resolution: int, *, seed: int = 0
) -> OccupancyGrid:
    """A grid of the cells where a trained density is, and their neighbours; outside of it everything is occupied.

    A cell is occupied where, at one of `ROUNDS` random points, one of the fields is so dense that the cell's diagonal
    would have the opacity `THINNEST`. Thinner matter, and what lies between the points, is lost: what that does to a
    picture has to be measured.

    Args:
        fields: asked for densities at positions.
        within: where else the model has none.
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
    least = -torch.log1p(torch.tensor(-THINNEST)) / size.norm()
    generator = torch.Generator().manual_seed(seed)
    indices = torch.cartesian_prod(*[torch.arange(resolution)] * 3)
    dense = torch.zeros(len(indices), dtype=torch.bool, device=box.device)
    for _ in range(ROUNDS):
        points = box[0] + (indices + torch.rand(indices.shape, generator=generator)).to(box) * size
        for start in range(0, len(points), ROWS):
            asked = slice(start, start + ROWS)
            for field in fields:
                answer = query_occupied(field, samples_at(points[asked]), within, colours=False)
                dense[asked] |= answer[FieldHeadNames.DENSITY].flatten() >= least.to(box)
    cells = dense.view(1, 1, *[resolution] * 3).float()
    grid.cells.copy_(max_pool3d(cells, 3, stride=1, padding=1)[0, 0] > 0)
    return grid


def samples_at(points: Tensor) -> RaySamples:
    """Samples `[n, 1]` whose positions are points `[n, 3]`, for fields that read positions; directions are zero."""

    points = points[:, None]
    zeros, still = torch.zeros_like(points[..., :1]), torch.zeros_like(points)
    frustums = Frustums(origins=points, directions=still, starts=zeros, ends=zeros, pixel_area=zeros)
    return RaySamples(frustums=frustums, deltas=zeros)


def where_to_ask(occupancy: OccupancyGrid | None, empty: OccupancyGrid | None) -> OccupancyGrid | Overlap | None:
    """What a model's own grid and that of its shortcuts leave."""
    grids = [grid for grid in (occupancy, empty) if grid is not None]
    return grids[0] if len(grids) == 1 else Overlap(*grids) if grids else None
