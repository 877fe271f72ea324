"""Models rendered by a grid of their trained densities, in place of their samplers and coarse networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.renderers import RGBRenderer
from torch import Tensor

from eugen_nerf.core.marching.density_grid import Density, DensityGrid, build_density_grid
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.fields.radiance_field import FieldOutputs

RATES = (1.5, 2.0, 3.0, 4.0, 6.0)
"""Rates that are tried, from few samples to many."""
CELLS = 128
"""Cells along the longest side of a scene that stands still."""
MOVING_CELLS, MOVING_SLICES = 80, 24
"""Likewise of one that moves, and its slices of time."""


def render_by_grid(
    renderer: GridRenderer,
    evaluate_spans: Callable[[RayBundle, Spans], FieldOutputs],
    ray_bundle: RayBundle,
    renderer_rgb: RGBRenderer,
) -> dict[str, Tensor]:
    """`rgb`, `depth` and `accumulation` `[rays, channels]`.

    Args:
        renderer: with the grid of the field's densities.
        evaluate_spans: see `GraphModel.evaluate_spans`.
        ray_bundle: rays `[rays]`, near and far planes set.
        renderer_rgb: the model's, for its background.
    """

    def field(rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        outputs = evaluate_spans(ray_bundle, spans)
        return outputs[FieldHeadNames.DENSITY], outputs[FieldHeadNames.RGB]

    result = renderer(field, rays_of(ray_bundle))
    background = renderer_rgb.get_background_color(
        renderer_rgb.background_color, shape=result.colour.shape, device=result.colour.device
    )
    rgb = result.colour + (1 - result.accumulation) * background
    return {"rgb": rgb.clamp(0, 1), "depth": result.depth, "accumulation": result.accumulation}


def rays_of(ray_bundle: RayBundle) -> RayBatch:
    """A bundle's rays `[rays]` as `core` takes them."""
    assert ray_bundle.nears is not None
    assert ray_bundle.fars is not None
    times = None if ray_bundle.times is None else ray_bundle.times[:, 0]
    near, far, areas = (v[:, 0] for v in (ray_bundle.nears, ray_bundle.fars, ray_bundle.pixel_area))
    return RayBatch(ray_bundle.origins, ray_bundle.directions, near, far, times, areas)


def grid_renderers(density: Density, ray_bundle: RayBundle) -> list[GridRenderer]:
    """Renderers by one grid of a trained density, from few samples to many.

    Args:
        density: see `GraphModel.trained_density`.
        ray_bundle: rays `[rays]` of many training views, near and far planes set; their times say that a scene moves.
    """
    cells, times = (CELLS, 1) if ray_bundle.times is None else (MOVING_CELLS, MOVING_SLICES)
    grid = grid_along_rays(density, ray_bundle, cells=cells, times=times)
    return [GridRenderer(grid, rate=rate) for rate in RATES]


def grid_along_rays(density: Density, ray_bundle: RayBundle, *, cells: int = 128, times: int = 1) -> DensityGrid:
    """The grid of a trained density over the box of all that some rays can meet.

    Args:
        density: see `GraphModel.trained_density`.
        ray_bundle: rays `[rays]` of many views, near and far planes set.
        cells: see `build_density_grid`.
        times: likewise.
    """
    rays = rays_of(ray_bundle)
    ends = torch.cat([rays.origins + rays.directions * t[:, None] for t in (rays.near, rays.far)])
    box = torch.stack([ends.amin(dim=0), ends.amax(dim=0)])
    return build_density_grid(density, box, cells=cells, times=times)
