"""The backends of inference plans: how each evaluates a collapsed network on rows of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.fused import check_fused, run_fused
from eugen_nerf.core.inference.onednn import OneDNNGraph, has_fast_bfloat16, has_onednn
from eugen_nerf.core.inference.packing import pack
from eugen_nerf.core.inference.sinusoids import as_sinusoids
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph

Backend = Literal["eager", "compile", "triton"]
BACKENDS: tuple[Backend, ...] = ("eager", "compile", "triton")
PlanDtype = Literal["float32", "bfloat16"]
PLAN_DTYPES: tuple[PlanDtype, ...] = ("float32", "bfloat16")
Run = Callable[..., tuple[Tensor, ...]]
Encodings = tuple[Encoding | None, ...]


def machine_plan(device: torch.device) -> tuple[Backend, PlanDtype]:
    """The backend and dtype that are fastest on a device: bfloat16 where the processor multiplies it fast."""
    backend: Backend = "triton" if device.type == "cuda" else "eager"
    return backend, "bfloat16" if has_fast_bfloat16(device) else "float32"


def make_runner(
    graph: CollapsedGraph,
    widths: Sequence[int],
    backend: Backend,
    dtype: PlanDtype,
    samples: Sequence[Tensor],
    encodings: Encodings,
) -> Run:
    """A function that evaluates a network by one backend.

    Args:
        graph: collapsed network.
        widths: of its inputs, encoded where they are.
        backend: eager, compile or triton.
        dtype: of weights, features and products.
        samples: `[n, d_i]`, typical inputs, on the device that it will run on; the kernel is checked on them.
        encodings: for each input its encoding, or None.

    Returns:
        A function of inputs `[n, d_i]` that returns outputs `[n, width]`.

    Raises:
        ConfigError: a network or an encoding that the kernel cannot evaluate.
        RuntimeError: outputs of the kernel that are wrong.
    """
    if backend == "triton":
        waves = [None if e is None else as_sinusoids(e) for e in encodings]
        for e, table in zip(encodings, waves, strict=True):
            if e is not None and table is None:
                raise ConfigError(f"the fused kernel computes no {e.kind} encoding")
        packed = pack(graph, widths, dtype, waves)
        check_fused(packed, *samples)
        return lambda *inputs: run_fused(packed, *inputs)
    precise = getattr(torch, dtype)
    cast = graph.cast(precise)
    prepared = OneDNNGraph(cast) if backend == "eager" and has_onednn(samples[0].device, precise) else cast

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return prepared(*(x.to(precise) for x in encoded(encodings, inputs)))

    if backend == "compile":
        run.__code__ = run.__code__.replace()  # one plan is no recompilation of another, which torch counts and ends
        return torch.compile(run, dynamic=False)
    return run


def encoded(encodings: Encodings, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs as the network reads them, encoded where there are encodings; those ignore the scale."""
    return [x if e is None else e(x, x[..., :1]) for e, x in zip(encodings, inputs, strict=True)]


def output_widths(graph: CollapsedGraph, input_widths: Sequence[int]) -> tuple[int, ...]:
    """Width of each output of a network with inputs of these widths."""
    widths = [*input_widths, *(stage.num_features for stage, _ in graph.steps)]
    return tuple(widths[v] if a.weight is None else a.weight.shape[0] for v, a in graph.outputs)


def leading_shape(inputs: Sequence[Tensor], widths: Sequence[int]) -> tuple[int, ...]:
    """The shape that inputs share before their last dimension.

    Raises:
        ConfigError: another number of inputs, other widths, or several leading shapes.
    """
    shapes = [tuple(x.shape) for x in inputs]
    if [s[-1:] for s in shapes] != [(width,) for width in widths]:
        raise ConfigError(f"inputs have shapes {shapes}; give {len(widths)} whose last dimensions are {list(widths)}")
    leading = {s[:-1] for s in shapes}
    if len(leading) > 1:
        raise ConfigError(f"inputs have shapes {shapes}; all dimensions but the last must agree")
    return leading.pop()
