"""Images of a signed distance: the first surface along rays, found by sphere tracing, and shaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch
from eugen_nerf.core.rendering.distance_grid import DistanceGrid, Slope, first_crossing_by_grid
from eugen_nerf.core.rendering.sphere_tracing import first_crossing

AMBIENT = 0.15
"""Brightness of a surface along the line of sight; one that faces the camera has 1."""
TRACING = ("step_scale", "min_step", "max_steps", "refinements")
"""Settings of a `SurfaceRenderer` that are numbers."""
GRADIENT_POINTS = {"cpu": 1 << 10, "cuda": 1 << 12}
"""Whose gradients are taken at a time: so many layers' outputs are kept at once, and stay in a processor's cache."""


class SurfacePoints(NamedTuple):
    """The first surface along rays `[r]`."""

    depth: Tensor
    """Distance along the ray `[r, 1]`; its far end where there is no surface."""
    hit: Tensor
    """1 where there is one, else 0: float `[r, 1]`."""
    normals: Tensor
    """Unit vectors `[r, 3]`, 0 where there is none."""
    shade: Tensor
    """Brightness `[r, 1]` in [0, 1] in the light of a lamp at the camera; 0 where there is none."""


@dataclass(frozen=True)
class SurfaceRenderer:
    """Renders rays by following a signed distance to its first zero; see `first_crossing` for the settings.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.marching.ray_spans import RayBatch
        >>> from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
        >>> distance = lambda points: points.norm(dim=-1) - 1  # a ball
        >>> ahead = torch.tensor([[0.0, 0, 1], [0, 1, 0]])
        >>> rays = RayBatch(torch.tensor([[0.0, 0, -3]]).expand(2, 3), ahead, torch.zeros(2), torch.full((2,), 9.0))
        >>> result = SurfaceRenderer()(distance, lambda points: (distance(points), points), rays)
        >>> [round(x, 2) for x in result.depth.flatten().tolist()], result.hit.flatten().tolist()
        ([2.0, 9.0], [1.0, 0.0])
    """

    step_scale: float = 0.9
    min_step: float = 0.01
    max_steps: int = 96
    refinements: int = 2
    grid: DistanceGrid | None = None
    """Of the distance: it leads rays to the surface, and the distance itself is queried only there."""

    def __post_init__(self) -> None:
        fits = 0 < self.step_scale <= 2 and self.min_step > 0 and 1 <= self.max_steps <= 4096
        if not fits or not 0 <= self.refinements <= 64:
            raise ConfigError(
                "sphere tracing takes a step scale in (0, 2], a positive least step, 1 to 4096 steps and 0 to 64 "
                f"refinements, got {self.step_scale:g}, {self.min_step:g}, {self.max_steps} and {self.refinements}"
            )

    @torch.no_grad()
    def __call__(self, distance: Callable[[Tensor], Tensor], slope: Slope, rays: RayBatch) -> SurfacePoints:
        """The surface along rays.

        Args:
            distance: signed distances `[n]` at points `[n, 3]`.
            slope: the same, and their gradients `[n, 3]`.
            rays: `[r]`, with unit directions.
        """
        along = (rays.origins, rays.directions, rays.near, rays.far)
        settings = {
            "step_scale": self.step_scale,
            "min_step": self.min_step,
            "max_steps": self.max_steps,
            "refinements": self.refinements,
        }
        size = GRADIENT_POINTS.get(rays.origins.device.type, GRADIENT_POINTS["cuda"])

        def in_parts(points: Tensor) -> tuple[Tensor, Tensor]:
            distances, gradients = zip(*map(slope, points.split(size)), strict=True)
            return torch.cat(distances), torch.cat(gradients)

        if self.grid is None:
            t, hit = first_crossing(distance, *along, **settings)  # type: ignore[arg-type]
            gradients = torch.zeros_like(rays.directions)
            which = hit.nonzero()[:, 0]  # once: as an index, the mask would make the host wait each time
            if len(which):
                points = rays.origins[which] + t[which][:, None] * rays.directions[which]
                gradients[which] = in_parts(points)[1]
        else:
            t, hit, gradients = first_crossing_by_grid(self.grid, distance, in_parts, *along, **settings)  # type: ignore[arg-type]
        normals = normalize(gradients, dim=-1)
        facing = (normals * rays.directions).sum(dim=-1, keepdim=True).abs()
        met = hit[:, None].float()
        return SurfacePoints(t[:, None], met, normals, (AMBIENT + (1 - AMBIENT) * facing) * met)
