"""Networks that inference plans and the fused kernel are tested on, and their outputs in numpy; as a script it runs the
kernel by Triton's interpreter, which must be chosen before triton is imported:

    TRITON_INTERPRET=1 python plan_networks.py results.npz
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch
from oracles import Array, array, draw, graph_numpy, randomise
from torch import Tensor

from eugen_nerf.core import EUGenConfig, LayerGraph, NeRFShape, Replacement, build_variant, make_plan
from eugen_nerf.core.fused import run_fused
from eugen_nerf.core.packed import FUSED_PRECISIONS, pack

SHAPE = NeRFShape(9, 5, 4, 24, (2,), 0, 1, 18)
PROPOSAL = NeRFShape(9, 5, 3, 20, (), 0, 0, 0)
BOTTLENECK = NeRFShape(9, 5, 3, 24, (2,), 12, 2, 18)
WIDE = NeRFShape(70, 5, 3, 100, (2,), 0, 1, 33)
ROWS = 70

FUSED = ("nerf", "bottleneck", "proposal", "wide", "degree 1", "degree 2", "unshared", "low rank", "eugen bottleneck")
"""Names of networks that the kernel knows."""
NETWORKS = (*FUSED, "norm", "norm degree 2", "monarch", "softplus")


def network(name: str) -> LayerGraph:
    """A float32 network whose numbers are all random."""
    torch.manual_seed(0)  # monarch layers draw from torch's stream; all is drawn anew below
    config = EUGenConfig(
        degree=2 if name in ("degree 2", "unshared", "norm degree 2") else 1,
        norm=name.startswith("norm"),
        shared=name != "unshared",
        phi="softplus" if name == "softplus" else "relu",
    )
    shapes = {"proposal": PROPOSAL, "bottleneck": BOTTLENECK, "eugen bottleneck": BOTTLENECK, "wide": WIDE}
    dense = ("nerf", "bottleneck", "proposal", "wide")
    variant = (
        "dense" if name in dense else {"low rank": "lowrank"}.get(name, "monarch" if name == "monarch" else "eugen")
    )
    graph = build_variant(shapes.get(name, SHAPE), variant, Replacement(num_features=(10,), eugen=config))
    randomise(graph, 1 + NETWORKS.index(name), spread=0.1 if name == "wide" else 0.25)
    return graph


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

    for name in FUSED:
        graph = network(name)
        inputs = inputs_of(graph)
        for precision in FUSED_PRECISIONS:
            keep(f"{name}/{precision}", run_fused(pack(graph.collapse(), graph.input_widths, precision), *inputs))
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
    found["statement"], found["deviation"] = np.array(str(plan)), np.array(plan.deviation)
    np.savez(path, **found)


if __name__ == "__main__":
    _run(sys.argv[1])
