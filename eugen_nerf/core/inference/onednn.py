"""A collapsed network by oneDNN's matrix products, with bias and ReLU fused, on CPUs where torch has them.

torch sends float32 products to MKL, and makes a pass of its own for the ReLU. Training: `core/layers/cpu_products.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eugen_nerf.core.layers.cpu_products import multiplies_by_onednn, onednn_linear
from eugen_nerf.core.layers.products import features_in_place
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph

DTYPES = (torch.float32, torch.bfloat16)


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `OneDNNGraph` runs on a device in a dtype, and is no slower than torch's own products."""
    if device.type != "cpu" or dtype not in DTYPES:
        return False
    return has_fast_bfloat16(device) if dtype == torch.bfloat16 else multiplies_by_onednn(dtype)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the processor has bfloat16 products; elsewhere torch emulates them, slower than float32."""
    if device.type == "cpu":
        checks = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
        return any(supported() for supported in checks) and multiplies_by_onednn(torch.bfloat16)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@dataclass(frozen=True, eq=False)
class OneDNNStage(MergedStage):
    """A merged stage without diagonal blocks."""

    def __call__(self, segments: Sequence[Tensor]) -> Tensor:
        """Features `[n, degree * m]` of segments `[n, F_s]`."""
        joined = segments[0] if len(segments) == 1 else torch.cat(list(segments), dim=-1)
        if self.phi == "relu" and self.degree == 1 and self.norm is None:
            return onednn_linear(joined, self.weight, self.bias, "relu")
        u = onednn_linear(joined, self.weight, self.bias)
        if self.norm is not None:
            u = u + self.input_norm(segments) * self.norm
        return features_in_place(u, self.degree, self.shared, self.phi, self.product)


@dataclass(frozen=True, eq=False)
class OneDNNAffine(Affine):
    """An affine map likewise."""

    def __call__(self, features: Tensor) -> Tensor:
        """Maps features `[n, F]` to `[n, l]`."""
        return features if self.weight is None else onednn_linear(features, self.weight, self.bias)


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
