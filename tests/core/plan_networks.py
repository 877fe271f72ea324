"""Networks that inference plans and the fused kernel are tested on, and their outputs in numpy; as a script it runs the
kernel by Triton's interpreter, which must be chosen before triton is imported:

    TRITON_INTERPRET=1 python plan_networks.py results.npz
"""

from __future__ import annotations

import os
import sys
from functools import cache

import numpy as np
import torch
from oracles import Array, array, draw, graph_numpy, randomise
from torch import Tensor

from eugen_nerf.core import (
    CollapsedGraph,
    EUGenConfig,
    FrequencyEncoding,
    LayerGraph,
    NeRFShape,
    OffAxisEncoding,
    Replacement,
    build_variant,
    make_plan,
)
from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.inference.fused import Launch, run_fused
from eugen_nerf.core.inference.packed_format import FUSED_FUNCTIONS, FUSED_PRECISIONS, FusedPrecision, PackedNetwork
from eugen_nerf.core.inference.packing import pack
from eugen_nerf.core.inference.sinusoids import as_sinusoids
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.core.layers.stage import Affine, MergedStage

SHAPE = NeRFShape(9, 5, 4, 24, (2,), 0, 1, 18)
PROPOSAL = NeRFShape(9, 5, 3, 20, (), 0, 0, 0)
BOTTLENECK = NeRFShape(9, 5, 3, 24, (2,), 12, 2, 18)
WIDE = NeRFShape(70, 5, 3, 100, (2,), 0, 1, 33)
POINTS = NeRFShape(63, 27, 3, 24, (2,), 0, 1, 18)
SURFACE = NeRFShape(45, 0, 3, 24, (2,), 0, 0, 0, "distance", 1, "softplus100")
ROWS = 70
LAUNCHES = (Launch(16, 4, 1), Launch(32, 8, 3), Launch(128, 8, 1000))

FUSED = (
    *("nerf", "bottleneck", "proposal", "wide", "degree 1", "degree 2", "unshared", "low rank", "eugen bottleneck"),
    *("norm", "norm degree 2", "norm bottleneck", "wide norm", "softplus", "harmonic degree 2"),
)
"""Names of networks that the kernel knows."""
NETWORKS = (*FUSED, "monarch")
ENCODED = ("encoded", "encoded norm degree 2", "encoded off axis")
"""Names of networks whose inputs the kernel encodes itself."""


def network(name: str) -> LayerGraph:
    """A float32 network whose numbers are all random."""
    torch.manual_seed(0)  # monarch layers draw from torch's stream; all is drawn anew below
    config = EUGenConfig(
        degree=2 if "degree 2" in name or name in ("unshared", "wide norm") else 1,
        norm="norm" in name,
        shared=name != "unshared",
        phi={"softplus": "softplus", "harmonic degree 2": "identity"}.get(name, "relu"),
        product="harmonic" if name == "harmonic degree 2" else "plain",
    )
    words = {"proposal": PROPOSAL, "bottleneck": BOTTLENECK, "wide": WIDE, "axis": SURFACE, "encoded": POINTS}
    shape = next((shape for word, shape in words.items() if word in name.split()), SHAPE)
    dense = ("nerf", "bottleneck", "proposal", "wide", "encoded", "encoded off axis")
    variant = (
        "dense" if name in dense else {"low rank": "lowrank"}.get(name, "monarch" if name == "monarch" else "eugen")
    )
    # the factor of one layer's norm takes two chunks, with a tile of zeros below the diagonal
    chosen = (
        Replacement(("trunk_1",), (34,), config)
        if name == "wide norm"
        else Replacement(eugen=config, num_features=(10,))
    )
    graph = build_variant(shape, variant, chosen)
    spread = {"wide": 0.1, "wide norm": 0.03, "encoded norm degree 2": 0.15}.get(name, 0.25)
    randomise(graph, 1 + (*NETWORKS, *ENCODED).index(name), spread)
    return graph


def encodings_of(name: str) -> list[Encoding]:
    """What makes the inputs of one of `ENCODED` of points."""
    if name == "encoded off axis":
        return [OffAxisEncoding(3 * draw(3, 21, seed=40).float(), draw(3, seed=41).float(), 0.7)]
    return [FrequencyEncoding(3, 10, 0.0, 9.0), FrequencyEncoding(3, 4, 0.0, 3.0)]


def points_of(name: str, rows: int = ROWS) -> list[Tensor]:
    """float32 points `[rows, 3]`, as many as the network has inputs."""
    return [draw(rows, 3, seed=60 + i).float() for i in range(len(encodings_of(name)))]


def packed_of(name: str, precision: FusedPrecision) -> PackedNetwork:
    """One of `FUSED` or `ENCODED` as the kernel reads it."""
    graph = network(name)
    tables = [as_sinusoids(e) for e in encodings_of(name)] if name in ENCODED else None
    return pack(graph.collapse(), graph.input_widths, precision, tables)


def sample_inputs(name: str) -> list[Tensor]:
    """Inputs of a packed network."""
    return points_of(name) if name in ENCODED else inputs_of(network(name))


@cache
def truth(name: str) -> list[Array]:
    """Expected outputs: float64, encodings from their formulas."""
    inputs = [array(x) for x in sample_inputs(name)]
    if name == "encoded off axis":
        encoding = encodings_of(name)[0]
        assert isinstance(encoding, OffAxisEncoding)
        x = (inputs[0] - array(encoding.centre)) * 0.7
        phase = x @ array(encoding.phases)
        inputs = [np.concatenate([x, np.sin(phase), np.cos(phase)], axis=1)]
    elif name in ENCODED:
        inputs = [_frequencies(x, count) for x, count in zip(inputs, (10, 4), strict=True)]
    return truth_of(network(name), [torch.from_numpy(x) for x in inputs])


def _frequencies(x: Array, count: int) -> Array:
    """Coordinate by coordinate, octave by octave, then all of it a quarter of a turn later, then the points."""
    phases = np.stack([2 * np.pi * 2.0**k * x[:, c] for c in range(x.shape[1]) for k in range(count)], axis=1)
    return np.concatenate([np.sin(phases), np.cos(phases), x], axis=1)


def functions_packed(function: str, precision: FusedPrecision = "float32") -> PackedNetwork:
    """A function of three numbers and nothing else: what a layer with the identity for a matrix makes."""
    stage = MergedStage(torch.eye(3), None, None, 1, True, function)
    return pack(CollapsedGraph(((stage, (0,)),), ((1, Affine()),)), [3], precision)


def joined_packed(product: str, precision: FusedPrecision = "float32") -> PackedNetwork:
    """The product of each of three numbers with each of three others, in one output after the former."""
    stage = MergedStage(torch.eye(6), None, None, 2, True, "identity", product=product)
    return pack(CollapsedGraph(((stage, (0,)),), ((1, Affine()),)), [6], precision)


def pairs() -> Tensor:
    """Factors of products, float32 `[63, 6]`: all sizes of `arguments` beside one another, and nothing that is none."""
    x = arguments()[:-1]
    return torch.cat([x, x.flip(0).roll(1, 1)], dim=1)


def arguments() -> Tensor:
    """Inputs of functions, float32 `[64, 3]`: small, large, round 0 and, in the last row, not a number."""
    x = torch.cat([torch.linspace(-8, 8, 96), torch.linspace(-90, 90, 90), torch.tensor([0.0, 1e-6, -1e-6])])
    return torch.cat([x, torch.full((3,), torch.nan)]).view(64, 3)


def inputs_of(graph: LayerGraph, rows: int = ROWS) -> list[Tensor]:
    """float32 inputs `[rows, d_i]`."""
    return [draw(rows, width, seed=50 + i).float() for i, width in enumerate(graph.input_widths)]


def truth_of(graph: LayerGraph, inputs: list[Tensor]) -> list[Array]:
    """Outputs in float64, layer by layer."""
    names, first = graph.names, len(graph.input_widths)
    wiring = {n: [v if v < first else names[v - first] for v in graph.reads[n]] for n in names}
    values = graph_numpy(graph, wiring, [array(x) for x in inputs])
    return [values[names[v - first]] for v in graph.outputs]


def strided(inputs: list[Tensor]) -> list[Tensor]:
    """The same numbers, the first input's columns far apart, the last one's rows further than they are wide."""
    wide = torch.cat([inputs[-1], inputs[-1]], dim=1)
    return [inputs[0].T.contiguous().T, wide[:, : inputs[-1].shape[1]]][: len(inputs)]


def _run(path: str) -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    found: dict[str, Array] = {}

    def keep(key: str, outputs: tuple[Tensor, ...]) -> None:
        found.update({f"{key}/{i}": y.numpy() for i, y in enumerate(outputs)})

    for name in (*FUSED, *ENCODED):
        for precision in FUSED_PRECISIONS:
            keep(f"{name}/{precision}", run_fused(packed_of(name, precision), *sample_inputs(name)))
    for product in PRODUCTS:
        keep(f"joined {product}", run_fused(joined_packed(product), pairs()))
    for function in FUSED_FUNCTIONS:
        keep(function, run_fused(functions_packed(function), arguments()))
    points = points_of("encoded norm degree 2")
    for launch in LAUNCHES:
        keep(f"{launch}", run_fused(packed_of("encoded norm degree 2", "float32"), *points, launch=launch))
    keep("strided points", run_fused(packed_of("encoded norm degree 2", "float32"), *strided(points)))
    graph = network("degree 2")
    packed, inputs = pack(graph.collapse(), graph.input_widths), inputs_of(graph)
    for count in (0, 1, 64):
        keep(f"rows/{count}", run_fused(packed, *(x[:count] for x in inputs)))
    keep("strided", run_fused(packed, *strided(inputs)))
    keep("one direction", run_fused(packed, inputs[0], inputs[1][:1].expand(ROWS, -1)))
    broken = inputs[0].clone()
    broken[3, 2] = torch.nan
    keep("nan", run_fused(packed, broken, inputs[1]))
    plan = make_plan(graph, inputs, backend="triton")
    with torch.inference_mode():
        keep("plan", plan(inputs[0].view(7, 10, -1), inputs[1].view(7, 10, -1)))
    encoded = make_plan(network("encoded"), points_of("encoded"), backend="triton", encodings=encodings_of("encoded"))
    keep("plan of points", encoded(*points_of("encoded")))
    keep("part of points", encoded(points_of("encoded")[0], outputs=(0,)))
    found["statement of points"] = np.array(str(encoded))
    found["statement"], found["deviation"] = np.array(str(plan)), np.array(plan.deviation)
    np.savez(path, **found)


if __name__ == "__main__":
    _run(sys.argv[1])
