"""A field as the description of a page: its encodings, its networks and its activations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import pack_bits
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.bundled_parts import Occupancy
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.core.bundles.radiance_bundle import RadianceBundle
from eugen_nerf.core.encodings.cube_encodings import CubeEncoding, SphericalEncoding
from eugen_nerf.core.encodings.hash_grid import PRECONDITION, HashGrid
from eugen_nerf.core.encodings.point_encodings import (
    BoxEncoding,
    ContractedEncoding,
    Encoding,
    FrequencyEncoding,
    OffAxisEncoding,
    PyramidEncoding,
)
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.stage import MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.web.data_blocks import DataBlocks, half_scale, short_steps
from eugen_nerf.web.rounding import Precision

MOST_WIDTH = 4096
"""Numbers of a layer that a page runs, at most."""
MOST_DEGREE = 8
"""Degree of a layer that a page runs, at most."""
GRID_FEATURES = (1, 2, 4)
"""Numbers of a hash grid's vertex that a page reads."""
PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0}
"""Activations with a parameter, and what it is where none is written."""


def describe_field(field: BundledField, blocks: DataBlocks, precision: Precision) -> dict[str, Any]:
    """A field's description; its numbers go into blocks.

    Args:
        field: whose numbers are rounded already.
        blocks: of the page.
        precision: that they were rounded to.

    Raises:
        ConfigError: layers or encodings that a page does not run.
    """
    network = _networks(field.network, blocks, precision)
    if isinstance(field, DistanceBundle):
        position = describe_encoding(field.position, blocks, precision)
        parts = {"kind": "distance", "position": position, "network": network, "output_scale": field.output_scale}
        return {**parts, "direction": None, "deformation": None, "occupancy": None}
    assert isinstance(field, RadianceBundle)
    moving = field.deformation
    deformation = None
    if moving is not None:
        deformation = {
            "position": describe_encoding(moving.position, blocks, precision),
            "time": describe_encoding(moving.time, blocks, precision),
            "network": _networks(moving.network, blocks, precision),
            "anchored": moving.anchored,
        }
    return {
        "kind": "radiance",
        "position": describe_encoding(field.position, blocks, precision),
        "direction": None if field.direction is None else describe_encoding(field.direction, blocks, precision),
        "network": network,
        "density": field.density,
        "density_bias": field.density_bias,
        "colour_padding": field.colour_padding,
        "deformation": deformation,
        "occupancy": None if field.occupancy is None else _occupancy(field.occupancy, blocks),
    }


def _networks(network: BundledGraph, blocks: DataBlocks, precision: Precision) -> dict[str, Any]:
    """A network's description; one of every width brings those of its other shares, each with numbers of its own."""
    wide, *others = (network.at_share(share) for share in network.shares or (1.0,))
    described = describe_network(wide.graph, wide.input_widths, blocks, half=precision.half)
    narrower = [describe_network(each.graph, each.input_widths, blocks, half=precision.half) for each in others]
    return {**described, **({"narrower": narrower} if narrower else {})}


def describe_network(
    graph: CollapsedGraph, input_widths: Sequence[int], blocks: DataBlocks, *, half: bool
) -> dict[str, Any]:
    """A network's description; its numbers go into blocks.

    Args:
        graph: without diagonal blocks.
        input_widths: width of each input.
        blocks: of the page.
        half: whether matrices are float16; vectors are float32.

    Raises:
        ConfigError: layers that a page does not run.
    """
    widths = [*input_widths, *(stage.num_features for stage, _ in graph.steps)]
    if max(widths) > MOST_WIDTH:
        raise ConfigError(f"a page runs layers of up to {MOST_WIDTH} features, this field has one of {max(widths)}")
    outputs = [
        {
            "reads": value,
            "rows": widths[value] if affine.weight is None else len(affine.weight),
            "weight": None if affine.weight is None else blocks.add_floats(affine.weight, half=half),
            "bias": None if affine.bias is None else blocks.add_floats(affine.bias),
        }
        for value, affine in graph.outputs
    ]
    if any(value < len(input_widths) for value, _ in graph.outputs):
        raise ConfigError("a page runs networks with at least one layer that is not affine; this field has one without")
    steps = [{**_stage(stage, blocks, half), "reads": list(reads)} for stage, reads in graph.steps]
    return {"inputs": list(input_widths), "steps": steps, "outputs": outputs}


def _stage(stage: MergedStage, blocks: DataBlocks, half: bool) -> dict[str, Any]:
    if stage.degree > MOST_DEGREE:
        raise ConfigError(f"a page runs layers of degree up to {MOST_DEGREE}, this field has one of {stage.degree}")
    phi, parameter = activation_word(stage.phi)
    factors = [
        None
        if pair is None
        else {
            "rows": len(pair[0]),
            "weight": blocks.add_floats(pair[0], half=half),
            "bias": blocks.add_floats(pair[1]),
        }
        for pair in stage.factors
    ]
    return {
        "rows": len(stage.weight),
        "degree": stage.degree,
        "shared": stage.shared,
        "product": stage.product,
        "phi": phi,
        "parameter": parameter,
        "weight": blocks.add_floats(stage.weight, half=half),
        "bias": None if stage.bias is None else blocks.add_floats(stage.bias),
        "norm": None if stage.norm is None else blocks.add_floats(stage.norm),
        "factors": factors,
    }


def activation_word(phi: str) -> tuple[str, float | None]:
    """A function's name and its parameter: `leaky_relu(0.2)` is both."""
    match = re.fullmatch(r"(\w+)\((.+)\)", phi)
    return (phi, PARAMETERS.get(phi)) if match is None else (match[1], float(match[2]))


def describe_encoding(encoding: Encoding, blocks: DataBlocks, precision: Precision) -> dict[str, Any]:
    """An encoding's description; its numbers go into blocks."""
    described: dict[str, Any] = {"kind": encoding.kind}
    if isinstance(encoding, FrequencyEncoding | SphericalEncoding):
        return encoding.describe()
    if isinstance(encoding, CubeEncoding):
        described |= {"box": None if encoding.aabb is None else encoding.aabb.flatten().tolist()}
        return described | {"grid": _grid(encoding.grid, blocks, precision, 1.0)}
    if isinstance(encoding, OffAxisEncoding):
        described |= {"factor": encoding.factor, "centre": encoding.centre.tolist()}
        return described | {"waves": encoding.phases.shape[1], "phases": blocks.add_floats(encoding.phases)}
    if isinstance(encoding, ContractedEncoding):
        described |= {"count": encoding.count, "axes": len(encoding.directions)}
        return described | {"directions": blocks.add_floats(encoding.directions)}
    if isinstance(encoding, PyramidEncoding):
        # the grid's own spreads: rounding changes them by less than anything else
        spreads = (encoding.grid._spreads() * PRECONDITION).tolist()
        return described | {"grid": _grid(encoding.grid, blocks, precision), "spreads": spreads}
    assert isinstance(encoding, BoxEncoding)
    return described | {"grid": _grid(encoding.grid, blocks, precision), "box": encoding.aabb.flatten().tolist()}


def _grid(grid: HashGrid, blocks: DataBlocks, precision: Precision, factor: float = PRECONDITION) -> dict[str, Any]:
    """A grid whose features an encoding multiplies by a factor."""
    if grid.features not in GRID_FEATURES:
        allowed = ", ".join(map(str, GRID_FEATURES))
        raise ConfigError(f"a page reads hash grids with {allowed} numbers a vertex, this field's has {grid.features}")
    scales, parts = [], []
    for level in grid.table.detach().split(grid.sizes):
        if precision.table_bits == 8:
            steps, scale = short_steps(level)
        else:
            scale = half_scale(level)
            steps = (level.double() / scale).cpu().numpy().astype("<f2")
        parts.append(steps)
        scales.append(scale * factor)
    return {
        "resolutions": list(grid.resolutions),
        "features": grid.features,
        "shift": grid.shift,
        "sizes": list(grid.sizes),
        "bits": precision.table_bits,
        "scales": scales,
        "table": blocks.add_words(np.concatenate(parts)),
    }


def _occupancy(occupancy: Occupancy, blocks: DataBlocks) -> dict[str, Any]:
    cells = occupancy.cells.flatten() > 0
    box = occupancy.aabb.flatten().tolist()
    return {"resolution": len(occupancy.cells), "box": box, "bits": blocks.add_words(pack_bits(cells))}
