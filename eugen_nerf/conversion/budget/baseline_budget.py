"""A share of the multiply-adds for recipes that are there to be compared with, shared out with the same care."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from eugen_nerf.conversion.budget.budget_search import check_goal
from eugen_nerf.conversion.budget.field_preview import field_groups
from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import Plan
from eugen_nerf.conversion.graph_run import Conversion
from eugen_nerf.core import FeatureLayer
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.rank_importance import rank_curves
from eugen_nerf.core.fitting.recipes.low_rank import LowRank

_DECADES = 24
"""Prices of a multiply-add that are looked at reach so far down from one at which every layer has rank 1."""


def uniform_plan(conversion: Conversion, share: float) -> Plan:
    """The same share of features in every layer, as large as a share of the multiply-adds allows.

    For random projections, of which there is no preview.

    Raises:
        ConfigError: out of reach, or a share that makes no sense.
    """
    fields, layers = conversion.teacher.graph_fields(), conversion.candidates()

    def plan(part: float) -> Plan:
        return {
            name: {
                layer: max(1, round(part * min(found.in_features, found.out_features)))
                for layer in chosen
                if (found := fields[name].network.layer(layer))
            }
            for name, chosen in layers.items()
        }

    return _dearest(conversion, share, plan)


def rank_plan(conversion: Conversion, share: float, progress: Callable[[str, str], None] = lambda *_: None) -> Plan:
    """Ranks by what they are worth: all layers trade error for multiply-adds at one price.

    A layer whose best rank costs more than its own matrix stays dense. As for features, an error counts by what is seen
    of it where that is configured.

    Raises:
        ConfigError: out of reach, a share that makes no sense, or layers that are not dense.
    """
    fields, layers = conversion.teacher.graph_fields(), conversion.candidates()
    recipe = conversion.recipe
    assert isinstance(recipe, LowRank)
    groups = field_groups(conversion.teacher, layers)
    curves: dict[str, dict[str, Tensor]] = {}
    for group, together in groups.items():
        for name in together:
            found = rank_curves(fields[name].network, conversion.preview_batches(name), layers[name], recipe)
            if not conversion.config.output_aware:  # then layers' errors have no unit in common
                found = {layer: curve / curve[0].clamp_min(1e-300) for layer, curve in found.items()}
            earlier = curves.get(group, {})
            curves[group] = {layer: curve + earlier.get(layer, 0.0) for layer, curve in found.items()}
            progress(name, "ranks")
    highest = math.log10(max(float(curve[0]) for found in curves.values() for curve in found.values()) + 1e-300)

    def plan(part: float) -> Plan:
        price = 10 ** (highest - _DECADES * part)
        chosen: dict[str, dict[str, int]] = {}
        for group, together in groups.items():
            ranks = {n: _rank(fields[group].network.layer(n), curve, price) for n, curve in curves[group].items()}
            kept = {layer: rank for layer, rank in ranks.items() if rank is not None}
            chosen.update((name, kept) for name in together)
        return chosen

    return _dearest(conversion, share, plan)


def _rank(layer: FeatureLayer, curve: Tensor, price: float) -> int | None:
    """The rank whose error and cost are least together; None where the layer as it is does better."""
    each, whole = layer.in_features + layer.out_features, layer.in_features * layer.out_features
    ranks = torch.arange(1, len(curve))
    loss = curve[1:] + price * each * ranks
    best = int(loss.argmin())
    return int(ranks[best]) if float(loss[best]) < price * whole else None


def _dearest(conversion: Conversion, share: float, plan: Callable[[float], Plan]) -> Plan:
    """The dearest of plans `plan(0)` to `plan(1)`, of growing cost, within a share of the teacher's multiply-adds."""
    check_goal("macs", share, conversion.recipe)
    whole = query_macs(conversion.teacher)

    def cost(part: float) -> int:
        return query_macs(conversion.untrained(conversion.described(plan(part))))

    if cost(0.0) > share * whole:
        raise ConfigError(f"{share:.0%} of the multiply-adds are out of reach: the fewest are {cost(0.0):,}")
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= share * whole else (low, middle)
    return plan(low)
