"""Collapsed graphs in less precise arithmetic, by plain post-training quantisation: bfloat16, or int8 weights.

A baseline: the gain of a dense network without a change of its layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.int8 import Int8Product, exact_int8
from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.core.networks.layer_graph import LayerGraph

Precision = Literal["bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "int8")


@dataclass(frozen=True, eq=False, kw_only=True)
class Int8Stage(MergedStage):
    """A merged stage with an int8 matrix, a scale a row, which quantises its inputs at each call."""

    multiply: Callable[[Tensor], Tensor]

    def project(self, joined: Tensor) -> Tensor:
        """`[..., blocks * m]` for joined segments."""
        return self.multiply(joined)


@dataclass(frozen=True, eq=False, kw_only=True)
class Int8Affine(Affine):
    """An affine map likewise."""

    multiply: Callable[[Tensor], Tensor]

    def __call__(self, features: Tensor) -> Tensor:
        """Maps features `[..., F]` to `[..., l]`."""
        return self.multiply(features)


class ReducedGraph:
    """A trained graph evaluated in another precision; it does not follow later changes of the graph's weights.

    Args:
        graph: trained network on the device that it will run on.
        precision: see `PRECISIONS`.

    Raises:
        ConfigError: int8 where torch has no such products (off the CPU, diagonal blocks) or they are wrong on this
            processor, or an unknown precision.
    """

    statement: str
    """Rounding and engine of the products, in one line."""

    def __init__(self, graph: LayerGraph, precision: Precision) -> None:
        collapsed = graph.collapse()
        device = next(graph.parameters()).device
        self._inputs = len(graph.input_widths)
        if precision == "bfloat16":
            self.graph = collapsed.cast(torch.bfloat16)
            self.dtype = torch.bfloat16
            slow = "" if has_fast_bfloat16(device) else " (no products of this processor's own: slow here)"
            self.statement = f"weights, features and products in bfloat16{slow}"
        elif precision == "int8":
            product = exact_int8(device)
            self.graph = _int8(collapsed, product)
            self.dtype = torch.float32
            self.statement = str(product)
        else:
            raise ConfigError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")

    def __call__(self, *inputs: Tensor, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Outputs `[..., width]` in float32 for inputs `[..., d_i]`, as `LayerGraph.forward` has them."""
        graph = self.graph if outputs is None else self.graph.pruned(self._inputs, outputs)[0]
        return tuple(y.float() for y in graph(*(x.to(self.dtype) for x in inputs)))


def reduce_precision(graph: LayerGraph, precision: Precision) -> str:
    """Makes a graph run in another precision in inference mode.

    It does not follow later changes of the graph's weights: set `graph.plan = None` to undo it.

    Args:
        graph: trained network on the device that it will run on; its `plan` is set.
        precision: bfloat16 or int8.

    Returns:
        Rounding and engine of the products, in one line.

    Raises:
        ConfigError: an unknown precision, or int8 where torch has no exact products of it.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import NeRFShape, build_nerf, reduce_precision
        >>> network, x = build_nerf(NeRFShape(27, trunk_width=16, head_width=0)), torch.rand(5, 27)
        >>> (exact,) = network(x)
        >>> print(reduce_precision(network, "bfloat16"))
        weights, features and products in bfloat16...
        >>> with torch.no_grad():
        ...     (rounded,) = network(x)
        >>> torch.allclose(rounded, exact, atol=0.05), torch.equal(rounded, exact)
        (True, False)
    """
    graph.plan = reduced = ReducedGraph(graph, precision)
    return reduced.statement


def _int8(graph: CollapsedGraph, product: Int8Product) -> CollapsedGraph:
    def stage(s: MergedStage) -> Int8Stage:
        if s.groups > 1:
            raise ConfigError("int8 products of diagonal blocks are not in torch: take bfloat16")
        bound = product.bind(s.weight, s.bias)
        return Int8Stage(
            s.weight, s.bias, s.norm, s.degree, s.shared, s.phi, product=s.product, factors=s.factors, multiply=bound
        )

    def affine(a: Affine) -> Affine:
        return a if a.weight is None else Int8Affine(a.weight, a.bias, multiply=product.bind(a.weight, a.bias))

    steps = tuple((stage(s), reads) for s, reads in graph.steps)
    return replace(graph, steps=steps, outputs=tuple((v, affine(a)) for v, a in graph.outputs))
