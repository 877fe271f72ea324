"""Norms taken for constant: only where that hardly changes outputs, and with what it changes stated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plan_networks import inputs_of, network

from eugen_nerf.core import LayerGraph, make_plan
from eugen_nerf.core.inference.norm_folding import fold_norms


def uses(graph: LayerGraph) -> int:
    return sum(stage.norm is not None for stage, _ in graph.collapse().steps)


def test_nothing_is_dropped_unless_asked_for() -> None:
    graph = network("norm")
    left = fold_norms(graph.collapse(), inputs_of(graph), 0.0)
    assert (left.dropped, left.total) == (0, uses(graph))
    assert make_plan(graph, inputs_of(graph)).norms == (0, uses(graph))
    plain = network("nerf")
    assert fold_norms(plain.collapse(), inputs_of(plain), 0.5).total == 0


@pytest.mark.parametrize("tolerance", [1e-3, 0.05, 10.0])
def test_all_that_was_dropped_together_stays_within_the_tolerance(tolerance: float) -> None:
    graph = network("norm")
    inputs = inputs_of(graph)
    left = fold_norms(graph.collapse(), inputs, tolerance)
    expected, found = graph.collapse()(*inputs), left.graph(*inputs)
    largest = max(float(y.abs().max()) for y in expected)
    change = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    assert change <= tolerance * largest
    assert sum(stage.norm is not None for stage, _ in left.graph.steps) == left.total - left.dropped
    if tolerance == 10.0:
        assert left.dropped == left.total > 0
        assert left.graph.multiply_adds() < graph.multiply_adds()


def test_a_column_of_zeros_is_left_out_and_changes_no_bit() -> None:
    collapsed = network("norm").collapse()
    steps = [
        (replace(s, norm=torch.zeros_like(s.norm)) if i % 2 else s, reads)
        for i, (s, reads) in enumerate(collapsed.steps)
    ]
    zeroed = replace(collapsed, steps=tuple(steps))
    inputs = inputs_of(network("norm"))
    left = fold_norms(zeroed, inputs, 0.0)
    assert left.total > left.dropped == sum(s.norm is not None for i, (s, _) in enumerate(collapsed.steps) if i % 2) > 0
    assert all(torch.equal(a, b) for a, b in zip(left.graph(*inputs), zeroed(*inputs), strict=True))
    assert left.graph.multiply_adds() < zeroed.multiply_adds()


def test_a_constant_norm_costs_nothing() -> None:
    """Inputs on a sphere: the mean is the norm."""
    graph = network("norm")
    inputs = [5 * torch.nn.functional.normalize(x, dim=-1) for x in inputs_of(graph)]
    collapsed = graph.collapse()
    left = fold_norms(collapsed, inputs, 1e-5)
    assert left.graph.steps[0][0].norm is None


def test_a_plan_states_what_was_dropped() -> None:
    graph = network("norm")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, drop_norm=10.0)
    dropped, total = plan.norms
    assert dropped == total == uses(graph)
    assert f"; no norm in {total} of the {total} steps that had one" in str(plan)
    with torch.no_grad():
        expected = graph(*inputs)
    changes = [float((a - b).abs().max()) for a, b in zip(plan(*inputs), expected, strict=True)]
    assert plan.deviation == pytest.approx(max(changes), rel=1e-3)
    (density,) = plan(inputs[0], outputs=(0,))
    assert float((density - expected[0]).abs().max()) == pytest.approx(plan.part((0,)).deviation, rel=1e-3)
