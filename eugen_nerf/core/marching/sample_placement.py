"""Where along a ray a field is queried: many samples where they matter, few where they do not.

The midpoint rule over spans of length d errs by about `w d^2` in each, `w` being the rendering weight per length. With
`n = integral of 1 / d` samples, the sum of errors `integral of w d` times d is least where `d` goes as `w^(-1/3)`
(stationarity of `integral of w d^2 + k / d`): so samples are placed by the density `w^(1/3)`, and a ray has as many as
the integral of that asks for, in place of the same number for every ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eugen_nerf.core.marching.ray_spans import Spans

MAX_SAMPLES = 64
"""Samples at most of a run: of spans of a ray that touch one another."""


def place_samples(
    spans: Spans, optical_depth: Tensor, *, rate: float, early_stop: float, min_weight: float, unit: float
) -> Spans:
    """Spans to query a field in, at their middles: from the optical depths that a grid of densities has along rays.

    Args:
        spans: occupied ones `[n]`.
        optical_depth: of each, `[n]`.
        rate: samples of a run whose light ends within one unit of length.
        early_stop: transmittance below which a ray ends.
        min_weight: rendering weight per unit of length below which a span is left out.
        unit: length that the two are meant for: the side of a cell.

    Returns:
        New spans; at least one of every run that has any weight, and none across the gap between two runs.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.marching.ray_spans import Spans
        >>> from eugen_nerf.core.marching.sample_placement import place_samples
        >>> wall = Spans(torch.tensor([0, 0]), torch.tensor([2.0, 3.0]), torch.tensor([3.0, 4.0]), num_rays=1)
        >>> placed = place_samples(wall, torch.tensor([9.0, 9.0]), rate=2, early_stop=1e-3, min_weight=1e-3, unit=1.0)
        >>> [round(x, 2) for x in placed.start.tolist()], [round(x, 2) for x in placed.end.tolist()]
        ([2.0, 2.55], [2.55, 4.0])
    """
    transmittance = torch.exp(-spans.sums_before(optical_depth))
    weight = transmittance * -torch.expm1(-optical_depth) / (spans.length / unit).clamp_min(1e-6)
    counted = (weight >= min_weight) & (transmittance >= early_stop)
    # one more behind each: within a cell the field can be less dense than the cell's mean, and let light pass
    counted[1:] |= counted[:-1] & (spans.ray[1:] == spans.ray[:-1])
    chosen = counted.nonzero()[:, 0]
    spans, weight = spans.select(chosen), weight.index_select(0, chosen).clamp_min(min_weight)
    if not len(spans):
        return spans
    measure = weight.pow(1 / 3) * (spans.length / unit)
    opens = torch.ones(len(spans), dtype=torch.bool, device=measure.device)
    opens[1:] = (spans.ray[1:] != spans.ray[:-1]) | (spans.start[1:] - spans.end[:-1] > 1e-3 * unit)
    first = opens.nonzero()[:, 0]
    last = torch.cat([first[1:], first.new_tensor([len(spans)])]) - 1
    until = measure.cumsum(0, dtype=torch.float64)
    before = until - measure
    total = until[last] - before[first]
    counts = (rate * total).round().clamp(1, MAX_SAMPLES).long()
    # edges at equal shares of a run's measure: one more than it has samples
    edges = counts + 1
    run = torch.arange(len(first), device=first.device).repeat_interleave(edges)
    number = torch.arange(len(run), device=run.device) - _of(edges.cumsum(0) - edges, run)
    wanted = _of(before[first], run) + number / _of(counts, run) * _of(total, run)
    span = torch.searchsorted(until, wanted).clamp(_of(first, run), _of(last, run))
    passed = ((wanted - _of(before, span)) / _of(measure, span)).clamp(0, 1).float()
    distance = torch.lerp(_of(spans.start, span), _of(spans.end, span), passed)
    inner = (number < _of(counts, run)).nonzero()[:, 0]
    ray = _of(_of(spans.ray, first), _of(run, inner))
    return Spans(ray, _of(distance, inner), _of(distance, inner + 1), spans.num_rays)


def _of(values: Tensor, numbers: Tensor) -> Tensor:
    """Some of values `[n]`: on a CPU several times as fast as a tensor in brackets."""
    return values.index_select(0, numbers)
