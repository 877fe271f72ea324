"""Volume rendering of spans: from densities and colours to the colour, opacity and depth of rays."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.core.rendering.compiled_compositing import can_composite, sum_up_by_loops


class Composite(NamedTuple):
    """Rays `[r]` as rendered, without a background."""

    colour: Tensor
    """`[r, channels]`, times opacity."""
    accumulation: Tensor
    """Opacity `[r, 1]`."""
    depth: Tensor
    """`[r, 1]`: where half of the opacity is reached; 0 of rays without spans."""
    last_colour: Tensor
    """`[r, channels]`, that of each ray's last span."""


def rendering_weights(spans: Spans, density: Tensor) -> Tensor:
    """`T (1 - exp(-density * length))`, T the transmittance before a span (Eq. 3 of arXiv 2003.08934): `[n]`."""
    optical_depth = density * spans.length
    return torch.exp(-spans.sums_before(optical_depth)) * -torch.expm1(-optical_depth)


def composite(spans: Spans, density: Tensor, colour: Tensor) -> Composite:
    """Sums up what rays meet.

    Args:
        spans: `[n]` of r rays.
        density: of each, `[n]`.
        colour: of each, `[n, channels]`.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.rendering.compositing import composite
        >>> from eugen_nerf.core.marching.ray_spans import Spans
        >>> span = Spans(torch.tensor([0]), torch.tensor([1.0]), torch.tensor([2.0]), num_rays=2)
        >>> result = composite(span, torch.tensor([0.6931472]), torch.tensor([[1.0, 0.0, 0.0]]))
        >>> result.accumulation.flatten().tolist(), result.colour[0].tolist(), result.depth.flatten().tolist()
        ([0.5, 0.0], [0.5, 0.0, 0.0], [1.5, 0.0])
    """
    if can_composite(spans, density, colour):
        return Composite(*sum_up_by_loops(spans, density, colour))
    weights = rendering_weights(spans, density)
    accumulation = spans.sums(weights)
    before = spans.sums_before(weights)
    # the last span that begins before half of the opacity is reached
    reached = before <= 0.5 * spans.of_rays(accumulation)
    depth = weights.new_zeros(spans.num_rays)
    depth.scatter_reduce_(0, spans.ray, torch.where(reached, spans.middle, 0.0), "amax")
    counts = spans.counts
    last = colour.new_zeros(spans.num_rays, colour.shape[-1])
    some = (counts > 0).nonzero()[:, 0]
    last[some] = colour[(spans.first + counts - 1)[some]]
    return Composite(spans.sums(weights[:, None] * colour), accumulation[:, None], depth[:, None], last)
