"""Rays, and spans along them: what a renderer of trained fields passes from step to step.

Rays have different numbers of spans, so spans of all rays lie in one row, ray after ray, from near to far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RayBatch:
    """Rays `[r]` with unit directions."""

    origins: Tensor
    """`[r, 3]`."""
    directions: Tensor
    """`[r, 3]`."""
    near: Tensor
    """`[r]`: distance at which a ray begins."""
    far: Tensor
    """`[r]`: distance at which it ends."""
    times: Tensor | None = None
    """`[r]`, in [0, 1]; None for a scene that stands still."""
    areas: Tensor | None = None
    """Of the rays' pixels at distance 1, `[r]`; None where no field asks for them."""

    def part(self, first: int, last: int) -> RayBatch:
        """Some of the rays that follow one another."""
        values = (self.origins, self.directions, self.near, self.far, self.times, self.areas)
        return RayBatch(*(None if value is None else value[first:last] for value in values))  # type: ignore[arg-type]

    def __len__(self) -> int:
        """How many."""
        return len(self.origins)


@dataclass(frozen=True)
class Spans:
    """Spans `[n]` of some rays.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.marching.ray_spans import Spans
        >>> spans = Spans(torch.tensor([0, 0, 2]), torch.tensor([1.0, 2.0, 1.0]), torch.tensor([2.0, 3.0, 4.0]), 3)
        >>> spans.counts.tolist(), spans.first.tolist()
        ([2, 0, 1], [0, 2, 2])
        >>> spans.sums_before(torch.tensor([1.0, 5.0, 7.0])).tolist(), spans.sums(torch.ones(3)).tolist()
        ([0.0, 1.0, 0.0], [2.0, 0.0, 1.0])
    """

    ray: Tensor
    """Number of the ray, int64, not decreasing."""
    start: Tensor
    """Distance at which a span begins."""
    end: Tensor
    """Distance at which it ends."""
    num_rays: int
    """Rays in all, those without spans included."""

    def __len__(self) -> int:
        """How many."""
        return len(self.ray)

    @property
    def counts(self) -> Tensor:
        """Spans of each ray, int64 `[num_rays]`."""
        return torch.bincount(self.ray, minlength=self.num_rays)

    @property
    def first(self) -> Tensor:
        """Number of each ray's first span, int64 `[num_rays]`; of the next ray's where it has none."""
        counts = self.counts
        return counts.cumsum(0) - counts

    @property
    def length(self) -> Tensor:
        """Of each span."""
        return self.end - self.start

    @property
    def middle(self) -> Tensor:
        """Distance of the middle of each span."""
        return (self.start + self.end) / 2

    def of_rays(self, values: Tensor) -> Tensor:
        """Of values `[num_rays, ...]`, those of each span's ray: `[n, ...]`."""
        return values.index_select(0, self.ray)  # on a CPU several times as fast as a tensor in brackets

    def sums_before(self, values: Tensor) -> Tensor:
        """Of values `[n]`, the sum over the spans of the same ray that lie before each, in the values' dtype."""
        if not len(self):
            return values
        total = values.cumsum(0, dtype=torch.float64)
        before = total - values
        # what all rays before have summed up to
        others = before.index_select(0, self.first.clamp_max(len(self) - 1))
        return (before - self.of_rays(others)).to(values.dtype)

    def sums(self, values: Tensor) -> Tensor:
        """Of values `[n]` or `[n, channels]`, the sum over each ray: `[num_rays]` or `[num_rays, channels]`."""
        return values.new_zeros(self.num_rays, *values.shape[1:]).index_add_(0, self.ray, values)

    def select(self, which: Tensor) -> Spans:
        """Some of the spans, by their numbers int64 `[k]`, increasing."""
        ray, start, end = (values.index_select(0, which) for values in (self.ray, self.start, self.end))
        return Spans(ray, start, end, self.num_rays)
