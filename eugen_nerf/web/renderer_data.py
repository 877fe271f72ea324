"""A bundle's renderer as the description of a page."""

from __future__ import annotations

from typing import Any

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_scene import SURFACE
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.rendering.surface_renderer import TRACING, SurfaceRenderer
from eugen_nerf.web.data_blocks import DataBlocks
from eugen_nerf.web.rounding import LEAST_DEPTH, MOST_DEPTH, Precision, density_levels


def describe_renderer(field: BundledField, blocks: DataBlocks, precision: Precision) -> dict[str, Any]:
    """The description of a field's renderer; its numbers go into blocks.

    Raises:
        ConfigError: a renderer that a page does not have.
    """
    renderer = field.rendered_scene().renderer
    if isinstance(renderer, BundledGrid):
        return {
            **renderer.describe(),
            "low": renderer.low.tolist(),
            "occupied": len(renderer.density),
            "bits": blocks.add_words(renderer.bits),
            "levels": precision.density_levels,
            "depths": [LEAST_DEPTH, MOST_DEPTH],
            "density": blocks.add_words(density_levels(renderer, precision.density_levels)),
        }
    if isinstance(renderer, SurfaceRenderer):
        return {"kind": SURFACE, **{key: getattr(renderer, key) for key in TRACING}}
    raise ConfigError("pages render fields by grids of densities; this bundle has another renderer")
