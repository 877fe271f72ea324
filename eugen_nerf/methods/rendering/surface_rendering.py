"""Models of a signed distance rendered as surfaces: by the field alone, or led by a grid of it."""

from __future__ import annotations

from functools import partial

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.marching.ray_spans import RayBatch
from eugen_nerf.core.rendering.distance_grid import build_distance_grid
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
from eugen_nerf.fields.isdf import ISDFField


def render_surface(field: ISDFField, renderer: SurfaceRenderer, ray_bundle: RayBundle) -> dict[str, Tensor]:
    """`rgb`, `depth`, `z_depth`, `accumulation` and `normals` `[rays, channels]`; see `ISDFModel`.

    Args:
        field: the distance.
        renderer: what finds its surface.
        ray_bundle: rays `[rays]`, near and far planes set.
    """
    distance = partial(field.distance, mode=EvaluationMode.INFERENCE)
    found = renderer(distance, field.distance_and_gradient, _batch(ray_bundle))
    stretch = ray_bundle.metadata.get("directions_norm", torch.ones_like(found.depth))
    return {
        "rgb": found.shade.expand(-1, 3),
        "depth": found.depth,
        "z_depth": found.depth / stretch,
        "accumulation": found.hit,
        "normals": 0.5 * (found.normals + 1) * found.hit,
    }


def surface_renderers(field: ISDFField, box: Tensor) -> list[SurfaceRenderer]:
    """One by a grid of a field's distance over a box `[2, 3]`."""
    return [SurfaceRenderer(grid=build_distance_grid(partial(field.distance, mode=EvaluationMode.INFERENCE), box))]


def surface_queries(field: ISDFField, renderer: SurfaceRenderer, ray_bundle: RayBundle) -> float:
    """Points at which a renderer queries the field for a ray, on average, whether with their gradients or without."""
    queries = 0

    def distance(points: Tensor) -> Tensor:
        nonlocal queries
        queries += len(points)
        return field.distance(points, EvaluationMode.INFERENCE)

    def slope(points: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal queries
        queries += len(points)
        return field.distance_and_gradient(points)

    renderer(distance, slope, _batch(ray_bundle))
    return queries / len(ray_bundle)


def _batch(ray_bundle: RayBundle) -> RayBatch:
    assert ray_bundle.nears is not None
    assert ray_bundle.fars is not None
    return RayBatch(ray_bundle.origins, ray_bundle.directions, ray_bundle.nears[:, 0], ray_bundle.fars[:, 0])
