"""Volume rendering as the formula is written: the readable twin that the fast renderer is held to."""

from __future__ import annotations

import torch

from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.rendering.compositing import Composite
from eugen_nerf.core.rendering.grid_renderer import FieldOnRays


@torch.no_grad()
def render_plainly(field: FieldOnRays, rays: RayBatch, samples: int) -> Composite:
    """Renders ray after ray by the same number of equal spans, without a grid: slow, and exact in the limit.

    Args:
        field: see `FieldOnRays`.
        rays: `[r]`.
        samples: of each ray.
    """
    colours, opacities, depths, last = [], [], [], []
    for number in range(len(rays)):
        edges = torch.linspace(float(rays.near[number]), float(rays.far[number]), samples + 1)
        span = Spans(torch.full((samples,), number), edges[:-1], edges[1:], len(rays))
        density, colour = field(rays, span)
        alpha = 1 - torch.exp(-density.reshape(-1) * span.length)
        transmittance = torch.cat([torch.ones(1), torch.cumprod(1 - alpha, dim=0)[:-1]])
        weight = transmittance * alpha
        opacity = weight.cumsum(dim=0)
        colours.append((weight[:, None] * colour).sum(dim=0))
        opacities.append(opacity[-1])
        depths.append(span.middle[(opacity < opacity[-1] / 2).sum()])
        last.append(colour[-1])
    return Composite(
        torch.stack(colours), torch.stack(opacities)[:, None], torch.stack(depths)[:, None], torch.stack(last)
    )
