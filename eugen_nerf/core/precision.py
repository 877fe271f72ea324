"""Collapsed graphs in less precise arithmetic, as plain post-training quantisation has it: bfloat16, or int8 weights.

To compare with: what a dense network gains without a change of its layers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from eugen_nerf.core.collapsed import CollapsedGraph
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.graph import LayerGraph
from eugen_nerf.core.stage import Affine, MergedStage

Precision = Literal["bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "int8")


@dataclass(frozen=True)
class Int8Stage(MergedStage):
    """A merged stage whose matrix is int8, a scale a row, and whose inputs are quantised as they come."""

    packed: Any = None

    def project(self, joined: Tensor) -> Tensor:
        """`[..., blocks * m]` for joined segments."""
        return torch.ops.quantized.linear_dynamic(joined, self.packed)


@dataclass(frozen=True)
class Int8Affine(Affine):
    """An affine map likewise."""

    packed: Any = None

    def __call__(self, features: Tensor) -> Tensor:
        """Maps features `[..., F]` to `[..., l]`."""
        return torch.ops.quantized.linear_dynamic(features, self.packed)


class ReducedGraph:
    """A trained graph evaluated in another precision; it does not follow later changes of the graph's weights.

    Args:
        graph: trained network on the device that it is to run on.
        precision: see `PRECISIONS`.

    Raises:
        ConfigError: int8 where torch has no such products (off the CPU, diagonal blocks), or an unknown precision.
    """

    def __init__(self, graph: LayerGraph, precision: Precision) -> None:
        collapsed = graph.collapse()
        self._inputs = len(graph.input_widths)
        if precision == "bfloat16":
            self.graph = collapsed.cast(torch.bfloat16)
            self.dtype = torch.bfloat16
        elif precision == "int8":
            self.graph = _int8(collapsed)
            self.dtype = torch.float32
        else:
            raise ConfigError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")

    def __call__(self, *inputs: Tensor, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Outputs `[..., width]` in float32 for inputs `[..., d_i]`, as `LayerGraph.forward` has them."""
        graph = self.graph if outputs is None else self.graph.pruned(self._inputs, outputs)[0]
        return tuple(y.float() for y in graph(*(x.to(self.dtype) for x in inputs)))


def reduce_precision(graph: LayerGraph, precision: Precision) -> None:
    """Makes a graph answer in another precision where no gradients are asked for, until its weights are moved or
    changed by loading; raises as `ReducedGraph` does.
    """
    graph.evaluation = ReducedGraph(graph, precision)


def has_int8(device: torch.device) -> bool:
    """Whether torch multiplies int8 matrices there."""
    known = hasattr(torch.ops.quantized, "linear_prepack") and torch.backends.quantized.engine != "none"
    return device.type == "cpu" and known


def _int8(graph: CollapsedGraph) -> CollapsedGraph:
    steps = tuple((_int8_stage(stage), reads) for stage, reads in graph.steps)
    return replace(graph, steps=steps, outputs=tuple((v, _int8_affine(a)) for v, a in graph.outputs))


def _int8_stage(s: MergedStage) -> Int8Stage:
    if s.groups > 1:
        raise ConfigError("int8 products of diagonal blocks are not in torch: take bfloat16")
    packed = _pack(s.weight, s.bias)
    return Int8Stage(s.weight, s.bias, s.norm, s.degree, s.shared, s.phi, s.groups, s.factors, packed)


def _int8_affine(a: Affine) -> Affine:
    return a if a.weight is None else Int8Affine(a.weight, a.bias, _pack(a.weight, a.bias))


def _pack(weight: Tensor, bias: Tensor | None) -> Any:
    """Weights `[rows, columns]` rounded to int8 with the largest of a row as 127."""
    if not has_int8(weight.device):
        raise ConfigError(f"torch has no int8 products on {weight.device.type} here: take bfloat16, or --device cpu")
    scales = weight.detach().double().abs().amax(dim=1).clamp_min(1e-12) / 127
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        # torch means to move these products to another package; they are its fastest on a CPU while it has them
        warnings.simplefilter("ignore", UserWarning)
        rounded = torch.quantize_per_channel(weight.detach().float(), scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.detach().float())
