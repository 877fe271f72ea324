"""A collapsed network as a shader of its queries, by the page's own generator of WGSL, which V8 runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from eugen_nerf.core.encodings.cube_encodings import SphericalEncoding
from eugen_nerf.core.encodings.point_encodings import Encoding, FrequencyEncoding, OffAxisEncoding
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.web.data_blocks import DataBlocks
from eugen_nerf.web.field_data import MOST_WIDTH, activation_word, describe_encoding, describe_network
from eugen_nerf.web.module_bundling import bundle_modules
from eugen_nerf.web.page import own_sources
from eugen_nerf.web.rounding import Precision

ENTRY = "native/network_jobs.js"
BUFFERS = ("tables", "vectors", "matrices")
"""Names by which the script gives what it made."""
MOST_INPUTS = 4
"""Of a network: each is a buffer, and WebGPU promises eight a shader."""
MOST_PROJECTIONS = 8
"""Of a layer: a thread keeps the sums of all of them."""
SUMMED_WIDTH = 4
"""Widest output that threads sum up together; the matrix of a wider one is a layer more."""
SHADER_ENCODINGS = (FrequencyEncoding, OffAxisEncoding, SphericalEncoding)
"""Kinds of encodings that the shader computes from points."""
POINTS = {1: 1, 3: 2}
"""Inputs of so many coordinates that it encodes at most: a time; a position and a direction."""


class NetworkShader(NamedTuple):
    """WGSL, and what its buffers hold."""

    code: str
    rows: int
    """Of a workgroup."""
    table: bytes
    """The program of layers."""
    vectors: bytes
    """Biases, norm columns and frequencies, float32."""
    matrices: bytes
    """Float32 or float16."""


def shader_gap(graph: CollapsedGraph, input_widths: Sequence[int]) -> str | None:
    """One line that says what of a network the page's layers do not know; None where they know all.

    Args:
        graph: the network.
        input_widths: width of each input, as the network reads it (encoded, where it is encoded).
    """
    if not 1 <= len(input_widths) <= MOST_INPUTS:
        return f"the network has {len(input_widths)} inputs, the shader takes 1 to {MOST_INPUTS}"
    widest = max([*input_widths, *(stage.num_features for stage, _ in graph.steps)])
    if widest > MOST_WIDTH:
        return f"a value of the network is {widest} wide, the shader takes at most {MOST_WIDTH}"
    for i, (stage, _) in enumerate(graph.steps):
        if (gap := _stage_gap(stage)) is not None:
            return f"step {i} of the collapsed network {gap}"
    for i, (v, affine) in enumerate(graph.outputs):
        if affine.weight is None and v < len(input_widths):
            return f"output {i} is input {v} itself, the shader writes what layers make"
        if affine.weight is not None and not 1 <= len(affine.weight) <= MOST_WIDTH:
            return f"output {i} is {len(affine.weight)} wide, the shader takes 1 to {MOST_WIDTH}"
    return None


def network_shader(
    graph: CollapsedGraph,
    input_widths: Sequence[int],
    encodings: Sequence[Encoding | None],
    *,
    half: bool,
    shared_bytes: int,
    software: bool,
) -> NetworkShader:
    """The shader of a network that has no `shader_gap`.

    Args:
        graph: float32, on the CPU.
        input_widths: width of each input, as the network reads it.
        encodings: for each input one of `SHADER_ENCODINGS`, which the shader computes from points, or None.
        half: whether matrices are float16.
        shared_bytes: memory that a workgroup of the adapter shares.
        software: whether the adapter is the processor.

    Raises:
        ConfigError: a network that does not fit the adapter, or matrices that do not fit float16.
    """
    blocks = DataBlocks()
    precision = Precision(half=False, table_bits=16, density_levels=255)
    network = describe_network(_with_layers_for_outputs(graph, input_widths), input_widths, blocks, half=False)
    network["encodings"] = [
        None
        if encoding is None
        else {**describe_encoding(encoding, blocks, precision), "coordinates": point_width(encoding)}
        for encoding in encodings
    ]
    # beyond 32 KiB fewer workgroups would run side by side
    gpu = {"sharedBytes": min(shared_bytes, 1 << 15), "software": software}
    values = {"network": network, "blocks": blocks.table, "half": half, "gpu": gpu}
    from py_mini_racer import MiniRacer

    with MiniRacer() as script:
        evaluate: Callable[[str], Any] = script.eval
        evaluate(_generator())
        binary = blocks.binary()
        evaluate(f"native.numbersOf({len(binary)})")[:] = binary
        made = json.loads(evaluate(f"native.shader({json.dumps(values)})"))
        if "error" in made:
            raise ConfigError(made["error"])
        table, vectors, matrices = (bytes(evaluate(f"native.buffer('{name}')")) for name in BUFFERS)
    return NetworkShader(made["code"], made["tile"], table, vectors, _halved(matrices) if half else matrices)


def on_shader(encodings: Sequence[Encoding | None]) -> tuple[Encoding | None, ...]:
    """The encodings that the shader computes; None in place of all others."""
    room, kept = dict(POINTS), []
    for encoding in encodings:
        fits = isinstance(encoding, SHADER_ENCODINGS) and room.get(point_width(encoding), 0) > 0
        if fits and encoding is not None:
            room[point_width(encoding)] -= 1
        kept.append(encoding if fits else None)
    return tuple(kept)


def point_width(encoding: Encoding) -> int:
    """Coordinates of the points of one of `SHADER_ENCODINGS`."""
    return encoding.width if isinstance(encoding, FrequencyEncoding) else 3


@cache
def known_activations() -> frozenset[str]:
    """Names of element-wise functions that the page's layers know, without their parameters."""
    from py_mini_racer import MiniRacer

    with MiniRacer() as script:
        evaluate: Callable[[str], Any] = script.eval
        evaluate(_generator())
        return frozenset(json.loads(evaluate("native.activations()")))


def _stage_gap(stage: MergedStage) -> str | None:
    if stage.groups > 1:
        return "has diagonal blocks (Monarch), which the shader does not know"
    name, _ = activation_word(stage.phi)
    if name not in known_activations():
        return f"has the function {stage.phi}, the shader knows {', '.join(sorted(known_activations()))}"
    projections = stage.degree if stage.shared else stage.degree * (stage.degree + 1) // 2
    if projections > MOST_PROJECTIONS:
        return f"has degree {stage.degree} and {projections} projections, the shader takes at most {MOST_PROJECTIONS}"
    return None


def _with_layers_for_outputs(graph: CollapsedGraph, input_widths: Sequence[int]) -> CollapsedGraph:
    """The same graph, where matrices of wide outputs, and of inputs, are layers without a function."""
    steps, outputs = list(graph.steps), []
    for v, affine in graph.outputs:
        if affine.weight is None or (len(affine.weight) <= SUMMED_WIDTH and v >= len(input_widths)):
            outputs.append((v, affine))
        else:
            outputs.append((len(input_widths) + len(steps), Affine()))
            steps.append((MergedStage(affine.weight, affine.bias, None, 1, True, "identity"), (v,)))
    return replace(graph, steps=tuple(steps), outputs=tuple(outputs))


def _halved(matrices: bytes) -> bytes:
    numbers = np.frombuffer(matrices, dtype="<f4")
    with np.errstate(over="ignore"):
        half = numbers.astype("<f2")
    if not np.isfinite(half).all():
        raise ConfigError(f"a weight of {np.abs(numbers).max():.3g} does not fit float16: take float32")
    return half.tobytes()


@cache
def _generator() -> str:
    """The generator as one script without imports."""
    return bundle_modules(own_sources(), ENTRY)
