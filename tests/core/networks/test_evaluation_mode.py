"""The mode of an evaluation decides what a network runs, whatever PyTorch's gradient switch says."""

from __future__ import annotations

import pytest
import torch
from plan_networks import inputs_of, network

from eugen_nerf.core import EvaluationMode

NAMES = ["nerf", "eugen bottleneck", "norm degree 2"]


def test_the_current_mode_follows_the_gradient_switch() -> None:
    assert EvaluationMode.current() is EvaluationMode.DIFFERENTIABLE
    with torch.no_grad():
        assert EvaluationMode.current() is EvaluationMode.INFERENCE
    with torch.inference_mode():
        assert EvaluationMode.current() is EvaluationMode.INFERENCE


@pytest.mark.parametrize("name", NAMES)
def test_inference_is_the_collapsed_network_and_carries_no_gradient(name: str) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    found = graph(*inputs, mode=EvaluationMode.INFERENCE)
    assert not any(y.requires_grad for y in found)
    with torch.no_grad():
        expected = graph.collapse()(*inputs)
    assert all(torch.equal(y, truth) for y, truth in zip(found, expected, strict=True))


@pytest.mark.parametrize("outputs", [None, (0,)])
@pytest.mark.parametrize("name", NAMES)
def test_a_differentiable_evaluation_runs_no_plan(name: str, outputs: tuple[int, ...] | None) -> None:
    graph = network(name)
    inputs = [x for i, x in enumerate(inputs_of(graph)) if i in graph.needed_inputs(outputs)]
    expected = graph(*inputs, outputs=outputs)
    graph.plan = lambda *_, **__: pytest.fail("the plan ran")
    found = graph(*inputs, outputs=outputs, mode=EvaluationMode.DIFFERENTIABLE)
    assert all(y.requires_grad and torch.equal(y, truth) for y, truth in zip(found, expected, strict=True))
    with torch.no_grad():
        found = graph(*inputs, outputs=outputs, mode=EvaluationMode.DIFFERENTIABLE)
    assert all(torch.equal(y, truth) for y, truth in zip(found, expected, strict=True))
