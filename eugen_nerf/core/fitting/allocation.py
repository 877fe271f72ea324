"""How many features for each layer: the least predicted error for a number of multiply-adds, over the whole range.

The cost is a sum of terms (`cost_terms.py`), the error a sum over layers. So the best choice is found by going through
the layers in order, with one set of undominated (cost, error) pairs for every choice of the widths that later terms
still depend on.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.cost_terms import Term, network_terms
from eugen_nerf.core.networks.layer_graph import LayerGraph

MAX_POINTS = 1024
"""Undominated choices kept for one state; more are thinned to the best in each of as many equal steps of cost."""


@dataclass(frozen=True)
class Allocation:
    """One choice of widths on the front."""

    num_features: dict[str, int]
    """m of every layer that may be converted; its full width where it stays as it is."""
    multiply_adds: int
    error: float
    """Predicted: the sum of the layers' own errors."""


def candidate_widths(width: int) -> tuple[int, ...]:
    """Numbers of features worth considering: multiples of a step, and the full width.

    The step is 16 (odd widths waste a processor), and finer for layers less than 128 wide: the power of two that leaves
    8 to 16 choices.
    """
    step = 1 << max(0, min(4, width.bit_length() - 4))
    return (*range(step, width, step), width)


def pareto_front(
    graph: LayerGraph,
    errors: Mapping[str, Sequence[float]],
    choices: Mapping[str, Sequence[int]] | None = None,
) -> list[Allocation]:
    """Every undominated choice of features, cheapest first.

    Exact as long as no state has more than `MAX_POINTS` undominated choices.

    Args:
        graph: as `network_terms` takes it.
        errors: for each dense layer that may be converted, its predicted error with 0, 1, ..., l features.
        choices: numbers of features to choose from; `candidate_widths` where None.

    Raises:
        ConfigError: nothing to convert, or a choice that a layer has no error for.
    """
    names = [name for name in graph.names if name in errors]
    widths = {n: tuple(choices[n]) if choices else candidate_widths(graph.layer(n).out_features) for n in names}
    return terms_front(network_terms(graph, names), widths, errors)


def terms_front(
    terms: Sequence[Term], widths: Mapping[str, Sequence[int]], errors: Mapping[str, Sequence[float]]
) -> list[Allocation]:
    """Every undominated choice of features, cheapest first, for a cost that is a sum of terms.

    Exact as long as no state has more than `MAX_POINTS` undominated choices.

    Args:
        terms: the cost.
        widths: numbers of features to choose from, by layer; quickest where layers that share a term are neighbours.
        errors: for each layer, its predicted error with 0, 1, ..., l features.

    Raises:
        ConfigError: nothing to choose, or a choice that a layer has no error for.
    """
    names = list(widths)
    if not names:
        raise ConfigError("no layer to allocate features to")
    for name in names:
        if not all(0 < m < len(errors[name]) for m in widths[name]):
            raise ConfigError(f"layer {name!r} takes 1 to {len(errors[name]) - 1} features, got {widths[name]}")
    open_terms = list(terms)
    fixed = [t for t in open_terms if not t.scope()]
    open_terms = [t for t in open_terms if t.scope()]
    # state: widths of the layers that later terms depend on; value: costs, errors and the choices made
    states: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {
        (): (
            torch.tensor([sum(t.cost({}) for t in fixed)]),
            torch.zeros(1, dtype=torch.float64),
            torch.zeros(1, 0, dtype=torch.long),
        )
    }
    frontier: list[str] = []
    for position, name in enumerate(names):
        known = set(names[: position + 1])
        ready = [t for t in open_terms if t.scope() <= known]
        open_terms = [t for t in open_terms if t not in ready]
        ahead = set().union(*(t.scope() for t in open_terms)) if open_terms else set()
        grown = [*frontier, name]
        kept = [i for i, n in enumerate(grown) if n in ahead]
        found: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Tensor]]] = {}
        for (key, (costs, losses, made)), m in itertools.product(states.items(), widths[name]):
            values = (*key, m)
            at = dict(zip(grown, values, strict=True))
            cost = costs + sum(t.cost(at) for t in ready)
            column = torch.full((len(made), 1), m)
            entry = (cost, losses + float(errors[name][m]), torch.cat([made, column], dim=1))
            found.setdefault(tuple(values[i] for i in kept), []).append(entry)
        states = {key: _undominated(*(torch.cat(part) for part in zip(*v, strict=True))) for key, v in found.items()}
        frontier = [grown[i] for i in kept]
    (costs, losses, made) = states[()]
    return [
        Allocation(dict(zip(names, (int(m) for m in row), strict=True)), int(cost), float(loss))
        for cost, loss, row in zip(costs, losses, made, strict=True)
    ]


def _undominated(costs: Tensor, losses: Tensor, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = losses.argsort(stable=True)
    order = order[costs[order].argsort(stable=True)]
    best_before = torch.cat([losses.new_full((1,), torch.inf), losses[order].cummin(0).values[:-1]])
    order = order[losses[order] < best_before]
    if len(order) > MAX_POINTS:
        position = (costs[order] - costs[order[0]]).double() / (costs[order[-1]] - costs[order[0]])
        bins = (position * (MAX_POINTS - 1)).long()
        last = torch.cat([bins[1:] != bins[:-1], torch.ones(1, dtype=torch.bool)])
        order = order[last]  # errors fall with the cost: the last of each step of cost is its best
    return costs[order], losses[order], made[order]


@dataclass(frozen=True)
class Combination:
    """Choices for several networks together."""

    parts: dict[str, Allocation]
    """By network."""
    multiply_adds: int
    error: float


def combined_front(fronts: Mapping[str, Sequence[Allocation]]) -> list[Combination]:
    """Every undominated combination of points of several fronts, cheapest first; costs and errors add up.

    Args:
        fronts: by network, as `pareto_front` returns them.
    """
    costs, losses = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.float64)
    made = torch.zeros(1, 0, dtype=torch.long)
    for front in fronts.values():
        own_costs = torch.tensor([point.multiply_adds for point in front])
        own_losses = torch.tensor([point.error for point in front], dtype=torch.float64)
        pairs = torch.cartesian_prod(torch.arange(len(costs)), torch.arange(len(front)))
        costs, losses, made = _undominated(
            costs[pairs[:, 0]] + own_costs[pairs[:, 1]],
            losses[pairs[:, 0]] + own_losses[pairs[:, 1]],
            torch.cat([made[pairs[:, 0]], pairs[:, 1:]], dim=1),
        )
    return [
        Combination({name: fronts[name][int(i)] for name, i in zip(fronts, row, strict=True)}, int(cost), float(loss))
        for cost, loss, row in zip(costs, losses, made, strict=True)
    ]


Point = TypeVar("Point", Allocation, Combination)


def within_budget(front: Sequence[Point], multiply_adds: float) -> Point:
    """The point of a front with the least error at a cost of at most `multiply_adds`.

    Raises:
        ConfigError: even the cheapest costs more; the message says how much.
    """
    affordable = [point for point in front if point.multiply_adds <= multiply_adds]
    if not affordable:
        raise ConfigError(
            f"{multiply_adds:,.0f} multiply-adds a query are out of reach: the fewest are {front[0].multiply_adds:,}"
        )
    return affordable[-1]
