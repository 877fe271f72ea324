"""Volume rendering of spans in one pass over them, compiled by numba for CPUs where it is installed."""

from __future__ import annotations

import torch
from torch import Tensor

from eugen_nerf.core.layers.loop_threads import COMPILES, in_parts
from eugen_nerf.core.layers.plain_tensors import are_plain
from eugen_nerf.core.marching.ray_spans import Spans

_ROWS = 1 << 12
"""Fewest rays that are worth a thread of their own."""


def can_composite(spans: Spans, density: Tensor, colour: Tensor) -> bool:
    """Whether `sum_up_by_loops` takes these: float32 on a CPU that need no gradients."""
    tensors = (spans.start, spans.end, density, colour)
    single = are_plain(spans.ray, *tensors) and all(x.dtype == torch.float32 for x in tensors)
    return COMPILES and single and not any(x.requires_grad for x in tensors)


def sum_up_by_loops(spans: Spans, density: Tensor, colour: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of `Composite`, for the arguments of `composite`."""
    from eugen_nerf.core.rendering.compositing_kernels import composite_rays

    given = tuple(x.contiguous().numpy() for x in (spans.ray, spans.start, spans.end))
    values = tuple(x.contiguous().numpy() for x in (density, colour))
    summed, last = (colour.new_zeros(spans.num_rays, colour.shape[-1]) for _ in range(2))
    accumulation, depth = (density.new_zeros(spans.num_rays) for _ in range(2))
    found = tuple(x.numpy() for x in (summed, accumulation, depth, last))

    def run(rays: slice) -> None:
        composite_rays(given, *values, (rays.start, rays.stop), *found)

    in_parts(run, spans.num_rays, _ROWS)
    return summed, accumulation[:, None], depth[:, None], last
