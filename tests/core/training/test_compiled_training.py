"""Training steps of EUGen networks go through torch.compile in one piece, with the gradients that they have without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plan_networks import inputs_of, network

from eugen_nerf.core import EUGenConfig, EUGenLinear

NAMES = (
    "nerf",
    "degree 1",
    "degree 2",
    "unshared",
    "norm",
    "norm degree 2",
    "low rank",
    "eugen bottleneck",
    "softplus",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_no_graph_break(name: str) -> None:
    graph, inputs = network(name), inputs_of(network(name), rows=12)

    def loss(*inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([y.square().mean() for y in graph(*inputs)]).sum()

    expected = torch.autograd.grad(loss(*inputs), list(graph.parameters()), allow_unused=True)
    torch._dynamo.reset()
    # fullgraph raises at the first break; this backend runs the captured graph and its derivative without a C compiler
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*inputs), list(graph.parameters()), allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-7)


@pytest.mark.processor
@pytest.mark.parametrize("config", [EUGenConfig(), EUGenConfig(degree=2), EUGenConfig(norm=False, phi="softplus")])
def test_a_layer_alone_has_no_graph_break(config: EUGenConfig) -> None:
    torch._dynamo.reset()
    layer, x = EUGenLinear(10, 12, replace(config, num_features=6)), torch.randn(5, 10)
    explained = torch._dynamo.explain(layer)(x)
    assert explained.graph_break_count == 0
    assert explained.graph_count == 1
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
