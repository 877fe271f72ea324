"""A collapsed network by oneDNN's matrix products, with bias and ReLU fused, on CPUs where torch has them.

torch sends float32 products to MKL, which does not use the widest registers of every processor (on a Zen 5: 105 against
240 GFLOP/s on one core), and makes a pass of its own for the ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from eugen_nerf.core.layers.products import features_in_place
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph

DTYPES = (torch.float32, torch.bfloat16)


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `OneDNNGraph` runs on a device in a dtype, and is no slower than torch's own products."""
    if device.type != "cpu" or dtype not in DTYPES:
        return False
    return has_fast_bfloat16(device) if dtype == torch.bfloat16 else _multiplies(dtype)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the processor has bfloat16 products; elsewhere torch emulates them, slower than float32."""
    if device.type == "cpu":
        checks = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
        return any(supported() for supported in checks) and _multiplies(torch.bfloat16)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products of this dtype here, by a trial: its build, or ONEDNN_MAX_CPU_ISA, may allow less than
    the processor does.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False  # torch.compile itself calls this product; it has no public name
    try:
        _linear(torch.ones(2, 3, dtype=dtype), torch.ones(4, 3, dtype=dtype), None, "relu")
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class OneDNNStage(MergedStage):
    """A merged stage without diagonal blocks."""

    def __call__(self, segments: Sequence[Tensor]) -> Tensor:
        """Features `[n, degree * m]` of segments `[n, F_s]`."""
        joined = segments[0] if len(segments) == 1 else torch.cat(list(segments), dim=-1)
        if self.phi == "relu" and self.degree == 1 and self.norm is None:
            return _linear(joined, self.weight, self.bias, "relu")
        u = _linear(joined, self.weight, self.bias, "none")
        if self.norm is not None:
            u = u + self.input_norm(segments) * self.norm
        return features_in_place(u, self.degree, self.shared, self.phi, self.product)


@dataclass(frozen=True, eq=False)
class OneDNNAffine(Affine):
    """An affine map likewise."""

    def __call__(self, features: Tensor) -> Tensor:
        """Maps features `[n, F]` to `[n, l]`."""
        return features if self.weight is None else _linear(features, self.weight, self.bias, "none")


class OneDNNGraph:
    """A collapsed graph whose products are oneDNN's.

    oneDNN's ReLU turns NaN into 0. Inputs that are not all finite are therefore evaluated by the graph itself, which
    passes NaN on; so is every input where a weight is not finite.

    Args:
        graph: on a CPU, in one of `DTYPES`.
    """

    def __init__(self, graph: CollapsedGraph) -> None:
        self.plain = graph
        steps = tuple((_stage(stage), reads) for stage, reads in graph.steps)
        self.fused = replace(
            graph, steps=steps, outputs=tuple((v, OneDNNAffine(a.weight, a.bias)) for v, a in graph.outputs)
        )
        self.sound = all(bool(t.isfinite().all()) for t in graph.tensors())

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs `[n, width]` for inputs `[n, d_i]`, in the graph's dtype."""
        sound = self.sound and all(math.isfinite(float(x.sum())) for x in inputs)
        return (self.fused if sound else self.plain)(*inputs)


def _stage(s: MergedStage) -> MergedStage:
    if s.groups > 1:
        return s
    return OneDNNStage(
        s.weight.contiguous(), s.bias, s.norm, s.degree, s.shared, s.phi, product=s.product, factors=s.factors
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, function: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, function, [], "")
