"""Networks trained merged compute what the networks that they were made of compute."""

import pytest
import torch
from oracles import draw, randomise

from eugen_nerf.core import (
    ConfigError,
    EUGenConfig,
    LayerGraph,
    NeRFShape,
    Replacement,
    build_variant,
    merged_for_training,
)
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.core.training.merged import MergedLayer

SHAPE = NeRFShape(9, 5, 4, 16, (2,), 0, 1, 8)
BOTTLENECK = NeRFShape(9, 5, 2, 16, (), 12, 1, 8)


def network(shape: NeRFShape = SHAPE, variant: str = "eugen", layers: str = ".*", **eugen: object) -> LayerGraph:
    settings = EUGenConfig(norm=False, **eugen) if "norm" not in eugen else EUGenConfig(**eugen)  # type: ignore[arg-type]
    graph = build_variant(shape, variant, Replacement((layers,), (6,), settings)).double()
    randomise(graph, 2)
    return graph


@pytest.mark.parametrize("shape", [SHAPE, BOTTLENECK])
@pytest.mark.parametrize(
    ("layers", "settings"),
    [
        (".*", {}),
        ("trunk_[01]", {}),
        (".*", {"degree": 2, "phi": "identity"}),
        (".*", {"degree": 2, "phi": "identity", "product": "harmonic"}),
        (".*", {"degree": 3, "shared": False, "phi": "gelu"}),
        (".*", {"weights": "tied"}),
        (".*", {"bias": False}),
    ],
)
def test_outputs_are_the_same_from_fewer_numbers(shape: NeRFShape, layers: str, settings: dict[str, object]) -> None:
    graph = network(shape, layers=layers, **settings)
    merged = merged_for_training(graph)
    inputs = [draw(30, 9), draw(30, 5, seed=1)]
    for y, truth in zip(merged(*inputs), graph(*inputs), strict=True):
        torch.testing.assert_close(y, truth, rtol=1e-11, atol=1e-11)
    assert merged.names == graph.names
    assert count_parameters(merged) < count_parameters(graph)
    assert merged.multiply_adds() <= graph.multiply_adds()
    kinds = {name: isinstance(merged.layer(name), MergedLayer) for name in merged.names}
    assert any(kinds.values())


def test_gradients_of_the_merged_matrices_are_those_that_reach_the_factors() -> None:
    """`dL/dA = G^T dL/dM` for the product `M = G A` of two layers that follow one another."""
    graph = network(NeRFShape(9, 5, 2, 16, (), 0, 1, 8))
    merged = merged_for_training(graph)
    inputs = [draw(30, 9), draw(30, 5, seed=1)]
    graph(*inputs)[0].square().sum().backward()
    merged(*inputs)[0].square().sum().backward()
    first, second, acts = graph.layer("trunk_0"), graph.layer("trunk_1"), merged.layer("trunk_1")
    torch.testing.assert_close(first.weight.grad, second.projection.T @ acts.weight.grad)  # type: ignore[operator, union-attr]


def test_a_network_trained_merged_collapses_to_itself() -> None:
    merged = merged_for_training(network(degree=2, phi="identity"))
    collapsed = merged.collapse()
    assert sum(t.numel() for t in collapsed.tensors()) == count_parameters(merged)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: network(norm=True), "the norm of their input"),
        (lambda: network(train_projection=False), "a fixed G"),
        (lambda: network(variant="lowrank"), "LowRankLinear: only dense and EUGen layers"),
    ],
)
def test_what_has_no_merged_form_is_refused(graph: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merged_for_training(graph())  # type: ignore[operator]


def test_an_output_keeps_its_map() -> None:
    layer = network().layer("trunk_0")
    alone = LayerGraph({"a": layer}, {"a": [0]}, [9], ["a"])
    with pytest.raises(ConfigError, match="'a' is an output"):
        merged_for_training(alone)
