"""A share of the multiply-adds for recipes without a preview, allocated with the same care: they are baselines."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import Plan
from eugen_nerf.conversion.teachers.teacher import FieldProgress, Teacher, no_progress
from eugen_nerf.core.errors import ConfigError

_DECADES = 24
"""Prices of a multiply-add that are tried reach so far down from one at which every layer has rank 1."""


def uniform_plan(teacher: Teacher, share: float) -> Plan:
    """The same share of features in every layer, as large as a share of the multiply-adds allows.

    For random projections, of which there is no preview.

    Raises:
        ConfigError: out of reach.
    """
    sizes = teacher.layer_sizes()

    def plan(part: float) -> Plan:
        return {
            name: {layer: max(1, round(part * min(size))) for layer, size in layers.items()}
            for name, layers in sizes.items()
        }

    return _dearest(teacher, share, plan)


def rank_plan(teacher: Teacher, share: float, progress: FieldProgress = no_progress) -> Plan:
    """Ranks by what they are worth: all layers trade error for multiply-adds at one price.

    A layer whose best rank costs more than its own matrix stays dense. As for features, an error counts by its effect
    on rendered colours where that is configured.

    Raises:
        ConfigError: out of reach, or layers that are not dense.
    """
    sizes = teacher.layer_sizes()
    curves, groups = teacher.rank_curves(progress)
    highest = math.log10(max(float(curve[0]) for found in curves.values() for curve in found.values()) + 1e-300)

    def plan(part: float) -> Plan:
        price = 10 ** (highest - _DECADES * part)
        chosen: dict[str, dict[str, int]] = {}
        for group, together in groups.items():
            ranks = {layer: _rank(*sizes[group][layer], curve, price) for layer, curve in curves[group].items()}
            kept = {layer: rank for layer, rank in ranks.items() if rank is not None}
            chosen.update((name, kept) for name in together)
        return chosen

    return _dearest(teacher, share, plan)


def _rank(inputs: int, outputs: int, curve: Tensor, price: float) -> int | None:
    """The rank whose error and cost are least together; None where the layer as it is does better."""
    each, whole = inputs + outputs, inputs * outputs
    ranks = torch.arange(1, len(curve))
    loss = curve[1:] + price * each * ranks
    best = int(loss.argmin())
    return int(ranks[best]) if float(loss[best]) < price * whole else None


def _dearest(teacher: Teacher, share: float, plan: Callable[[float], Plan]) -> Plan:
    """The dearest of plans `plan(0)` to `plan(1)`, of growing cost, within a share of the teacher's multiply-adds."""
    whole = query_macs(teacher.model)

    def cost(part: float) -> int:
        return query_macs(teacher.sketch(plan(part)))

    if cost(0.0) > share * whole:
        raise ConfigError(f"{share:.0%} of the multiply-adds are out of reach: the fewest are {cost(0.0):,}")
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= share * whole else (low, middle)
    return plan(low)
