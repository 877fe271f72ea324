"""A bundle's renderer as the description of a page."""

from __future__ import annotations

from typing import Any

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.bundles.bundled_surface import BundledSurface
from eugen_nerf.web.data_blocks import DataBlocks
from eugen_nerf.web.field_data import describe_field
from eugen_nerf.web.rounding import LEAST_DEPTH, MOST_DEPTH, Precision, density_levels


def describe_renderer(field: BundledField, blocks: DataBlocks, precision: Precision) -> dict[str, Any]:
    """The description of a field's renderer; its numbers go into blocks.

    Raises:
        ConfigError: proposals that a page does not run.
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
    if isinstance(renderer, BundledSurface):
        return renderer.tracing()
    assert isinstance(renderer, BundledProposals)
    proposals = [describe_field(proposal, blocks, precision) for proposal in renderer.proposals]  # type: ignore[arg-type]
    return {**renderer.describe(), "proposals": proposals}
