"""Pruned graphs: the same numbers, fewer steps."""

from __future__ import annotations

import pytest
import torch
from plan_networks import inputs_of, network

from eugen_nerf.core import ConfigError
from eugen_nerf.core.prune import prune_outputs


@pytest.mark.parametrize("name", ["nerf", "bottleneck", "norm degree 2", "eugen bottleneck"])
def test_an_output_alone_is_what_it_was(name: str) -> None:
    graph = network(name)
    inputs, whole = inputs_of(graph), graph.collapse()
    for chosen, reads in (((0,), (0,)), ((1,), (0, 1)), ((1, 0), (0, 1)), ((0, 1), (0, 1))):
        pruned, kept = prune_outputs(whole, 2, chosen)
        assert kept == reads
        expected = whole(*inputs)
        for o, y in zip(chosen, pruned(*(inputs[i] for i in kept)), strict=True):
            assert torch.equal(y, expected[o])


def test_what_the_density_does_not_need_is_left_out() -> None:
    """The trunk's four steps, and neither the head nor what it makes of directions."""
    whole = network("nerf").collapse()
    pruned, _ = prune_outputs(whole, 2, (0,))
    assert (len(whole.steps), len(pruned.steps)) == (5, 4)
    assert pruned.multiply_adds() == whole.multiply_adds() - (24 + 5) * 18 - 18 * 3


@pytest.mark.parametrize("outputs", [(), (2,), (0, -1)])
def test_refusals(outputs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"of a graph that has \[0, 1\]: choose one or more"):
        prune_outputs(network("nerf").collapse(), 2, outputs)
