"""Images of a camera, rendered some rays at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch


class RenderedPixels(NamedTuple):
    """What rays render to: `[rays, channels]`, or of a camera `[height, width, channels]`."""

    colour: Tensor
    """`[..., 3]` in [0, 1], the background included; a signed distance has shades of its surface."""
    depth: Tensor
    """`[..., 1]`: distance along the ray, scene units; where half of the opacity is reached, or at the surface."""
    accumulation: Tensor
    """Opacity `[..., 1]` in [0, 1]."""
    normals: Tensor | None = None
    """Unit vectors `[..., 3]`, 0 where there is no surface; signed distances alone have them."""


@torch.no_grad()
def render_camera(
    render_rays: Callable[[RayBatch], RenderedPixels],
    camera: PinholeCamera,
    near: float,
    far: float,
    *,
    device: torch.device,
    rays_at_once: int,
) -> RenderedPixels:
    """The image of a camera.

    Args:
        render_rays: of a field.
        camera: to render.
        near: distance at which rays begin, scene units.
        far: distance at which they end.
        device: to render on.
        rays_at_once: which memory depends on.

    Raises:
        ConfigError: no rays at once.
    """
    if rays_at_once < 1:
        raise ConfigError(f"an image is rendered by at least 1 ray at a time, got {rays_at_once}")
    parts, pixels = [], camera.width * camera.height
    for first in range(0, pixels, rays_at_once):
        last = min(first + rays_at_once, pixels)
        origins, directions = camera.rays(first, last, device)
        ends = torch.full((2, len(origins)), near, device=device)
        ends[1] = far
        times = None if camera.time is None else torch.full((len(origins),), camera.time, device=device)
        areas = camera.pixel_areas(first, last, device)
        parts.append(render_rays(RayBatch(origins, directions, ends[0], ends[1], times, areas)))
    joined = (None if values[0] is None else torch.cat(values) for values in zip(*parts, strict=True))
    shape = (camera.height, camera.width, -1)
    return RenderedPixels(*(None if value is None else value.view(shape) for value in joined))  # type: ignore[arg-type]
