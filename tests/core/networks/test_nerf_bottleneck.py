"""Networks with a linear bottleneck, or without a head: merged against layer by layer, and their cost by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from oracles import array, default_dtype, draw, graph_numpy, randomise
from torch import Tensor

from eugen_nerf.core import (
    ConfigError,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    LayerGraph,
    LowRankLinear,
    NeRFShape,
    Replacement,
    build_nerf,
    build_variant,
)
from eugen_nerf.core.layers.stage import Affine, Stage
from eugen_nerf.core.networks.nerf_mlp import VARIANTS, layer_specs, match_names

SHAPE = NeRFShape(
    position_width=9,
    direction_width=5,
    trunk_layers=3,
    trunk_width=16,
    skips=(2,),
    bottleneck_width=8,
    head_layers=2,
    head_width=6,
)
WIRING: dict[str, list[int | str]] = {
    "trunk_0": [0],
    "trunk_1": ["trunk_0"],
    "trunk_2": [0, "trunk_1"],
    "density": ["trunk_2"],
    "bottleneck": ["trunk_2"],
    "head_0": [1, "bottleneck"],
    "head_1": ["head_0"],
    "rgb": ["head_1"],
}
KINDS = ("dense", "eugen", "eugen with norm", "lowrank", "snnk", "monarch")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


def network(kind: str, shape: NeRFShape = SHAPE, m: int = 3, seed: int = 0) -> LayerGraph:
    """All hidden layers of one kind, with parameters that are not special."""
    m = 4 * m if kind == "monarch" else m  # whole blocks
    replacement = Replacement(("trunk_.*", "head_.*"), (m,), EUGenConfig(degree=2, norm=kind == "eugen with norm"))
    if not shape.head_width or kind == "monarch":  # the head is no multiple of its blocks
        replacement = replace(replacement, layers=("trunk_.*",))
    specs = {} if kind == "dense" else layer_specs(shape, kind.split()[0], replacement)
    graph = build_nerf(shape, specs)
    randomise(graph, seed, spread=0.4)
    return graph


def inputs(shape: NeRFShape = SHAPE) -> list[Tensor]:
    return [draw(6, shape.position_width), draw(6, shape.direction_width, seed=1)][: 2 if shape.head_width else 1]


def _agree(ours: Tensor, truth: np.ndarray) -> None:
    assert ours.shape == truth.shape
    assert np.abs(array(ours) - truth).max() <= 1e-12 * max(1.0, np.abs(truth).max())


# widths on both sides of where taking the bottleneck over pays: wide, as wide as the trunk, narrow, one
@pytest.mark.parametrize("bottleneck", [30, 16, 8, 3, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_outputs_are_those_of_the_layers(kind: str, bottleneck: int) -> None:
    shape = replace(SHAPE, bottleneck_width=bottleneck)
    graph, x = network(kind, shape, seed=bottleneck), inputs()
    values = graph.values(*x)
    assert list(values) == list(WIRING)
    assert values["bottleneck"].shape == (6, bottleneck)
    if kind != "snnk":  # the oracle has no such layer
        truth = graph_numpy(graph, WIRING, [array(v) for v in x])
        for name, value in values.items():
            _agree(value, truth[name])
    with_grad = graph(*x)
    with torch.no_grad():
        without_grad = graph(*x)
    for results in (with_grad, without_grad, graph.collapse()(*x)):
        assert len(results) == 2
        for name, y in zip(("density", "rgb"), results, strict=True):
            _agree(y, array(values[name]))
            assert float(y.detach().std()) > 1e-3  # an output, not a constant


@pytest.mark.parametrize("bottleneck", [16, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_gradients_are_those_of_the_layers(kind: str, bottleneck: int) -> None:
    graph, x = network(kind, replace(SHAPE, bottleneck_width=bottleneck), seed=2), inputs()
    parameters = [p for p in graph.parameters() if p.requires_grad]
    values = graph.values(*x)
    layered = torch.autograd.grad(sum(values[v].square().sum() for v in ("density", "rgb")), parameters)
    merged = torch.autograd.grad(sum(y.square().sum() for y in graph(*x)), parameters)
    for a, b in zip(merged, layered, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert any(bool(g.any()) for g in merged)


@pytest.mark.parametrize("bottleneck", [8, 0])
def test_a_linear_layer_with_two_reads_is_not_handed_on(bottleneck: int) -> None:
    """A head without layers: colour is linear in the directions and the trunk together."""
    shape = replace(SHAPE, head_layers=0, bottleneck_width=bottleneck)
    graph, x = network("dense", shape), inputs()
    wiring = {n: r for n, r in WIRING.items() if n in graph.names}
    wiring["rgb"] = [1, "bottleneck" if bottleneck else "trunk_2"]
    truth = graph_numpy(graph, wiring, [array(v) for v in x])
    with torch.no_grad():
        without_grad = graph(*x)
    for results in (graph(*x), without_grad):
        for name, y in zip(("density", "rgb"), results, strict=True):
            _agree(y, truth[name])


@pytest.mark.parametrize(("degree", "phi", "norm"), [*product((1, 2), ("identity", "relu", "sin"), (False, True))])
def test_a_stage_is_linear_where_its_features_are(degree: int, phi: str, norm: bool) -> None:
    """As a function, with the bias: f(a) + f(b) = f(a + b) + f(0)."""
    column = draw(3 * degree, seed=2) if norm else None
    stage = Stage(draw(3 * degree, 4), draw(3 * degree, seed=1), column, degree, True, phi)
    merged = stage.merge((Affine(),), (4,))
    a, b = draw(2, 20, 4, seed=3)
    difference = merged((a,)) + merged((b,)) - merged((a + b,)) - merged((torch.zeros(1, 4),))
    assert stage.linear == (float(difference.abs().max()) < 1e-12)


def test_a_collapse_follows_the_bottlenecks_weights() -> None:
    graph, x = network("eugen"), inputs()
    with torch.no_grad():
        before = graph(*x)
        graph.layer("bottleneck").bias.add_(1)  # type: ignore[union-attr, operator]
        after = graph(*x)
    assert torch.equal(before[0], after[0])
    _agree(after[1], array(graph.values(*x)["rgb"]))
    assert float((before[1] - after[1]).abs().max()) > 1e-3


# ---- cost


def dense_trunk(shape: NeRFShape) -> int:
    """Multiply-adds of the trunk and the density, by hand."""
    p, w = shape.position_width, shape.trunk_width
    later = sum(w * (w + (p if i in shape.skips else 0)) for i in range(1, shape.trunk_layers))
    return p * w + later + w


def test_a_dense_network_by_hand_with_the_bottleneck_taken_over() -> None:
    """Head of 6 reads the trunk's 16 features (96), cheaper than 16 -> 8 and 8 -> 6 (176); then 6 -> 6 and 6 -> 3."""
    graph = network("dense")
    trunk = 9 * 16 + 16 * 16 + 16 * (9 + 16) + 16 * 1
    assert dense_trunk(SHAPE) == trunk
    assert graph.multiply_adds() == trunk + 6 * 5 + 6 * 16 + 6 * 6 + 6 * 3
    # five stages: neither the outputs nor the bottleneck are steps of their own
    assert len(graph.collapsed().steps) == 5


@pytest.mark.parametrize("bottleneck", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("head", [1, 4, 16, 50])
@pytest.mark.parametrize("width", [8, 32])
def test_a_dense_network_costs_the_cheaper_of_both_ways(width: int, bottleneck: int, head: int) -> None:
    shape = replace(SHAPE, trunk_width=width, bottleneck_width=bottleneck, head_width=head, head_layers=1)
    graph = network("dense", shape)
    formed, taken = width * bottleneck + bottleneck * head, width * head
    assert graph.multiply_adds() == dense_trunk(shape) + min(formed, taken) + head * 5 + 3 * head
    if formed != taken:
        assert len(graph.collapsed().steps) == (4 if taken < formed else 5)


def test_a_very_narrow_bottleneck_is_formed() -> None:
    """32 -> 2 and 2 -> 16 cost 96, 32 -> 16 would cost 512; the outputs are right all the same."""
    shape = replace(SHAPE, trunk_width=32, bottleneck_width=2, head_width=16)
    for kind in KINDS:
        graph, x = network(kind, shape, m=12), inputs(shape)
        assert any(s.weight.shape[0] == 2 for s, _ in graph.collapsed().steps)
        with torch.no_grad():
            for name, y in zip(("density", "rgb"), graph(*x), strict=True):
                _agree(y, array(graph.values(*x)[name]))
    graph = network("dense", shape)
    assert graph.multiply_adds() == dense_trunk(shape) + (32 * 2 + 2 * 16) + 5 * 16 + 16 * 16 + 3 * 16


@pytest.mark.parametrize(("width", "bottleneck", "m"), [*product((8, 24), (1, 8, 24), (1, 6, 20))])
def test_eugen_networks_cost_no_more_than_unmerged(width: int, bottleneck: int, m: int) -> None:
    """By hand: a trunk layer and a head layer of m features, both affine maps formed or taken over."""
    shape = NeRFShape(9, 5, 1, width, (), bottleneck, 1, 10)
    replacement = Replacement(("trunk_0", "head_0"), (m,), EUGenConfig(norm=False))
    graph = build_variant(shape, "eugen", replacement)
    fixed = m * 9 + m * 5 + 3 * m  # the encodings' projections, and rgb on the head's features
    trunk_formed = m * width + width  # with the density
    both_formed = fixed + trunk_formed + width * bottleneck + bottleneck * m
    ways = {
        both_formed,
        fixed + trunk_formed + width * m,  # only the trunk's
        fixed + m + m * bottleneck + bottleneck * m,  # only the bottleneck's
        fixed + m + m * m,  # neither
    }
    head_formed = m * 10 + 3 * 10 - 3 * m  # what forming the head's output of width 10 for rgb adds
    costs = ways | {cost + head_formed for cost in ways}
    assert graph.multiply_adds() in costs
    assert graph.multiply_adds() <= min(both_formed, both_formed + head_formed)


def test_cheapest_eugen_network_by_hand() -> None:
    """Few features: neither trunk nor bottleneck nor head outputs are formed."""
    shape = NeRFShape(9, 5, 1, 24, (), 24, 1, 10)
    graph = build_variant(shape, "eugen", Replacement(("trunk_0", "head_0"), (4,), EUGenConfig(norm=False)))
    assert graph.multiply_adds() == 4 * 9 + 4 * 1 + 4 * 4 + 4 * 5 + 3 * 4
    assert len(graph.collapsed().steps) == 2


# ---- density alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_a_network_for_density_alone(kind: str, layers: int) -> None:
    shape = replace(SHAPE, trunk_layers=layers, skips=(2,) if layers == 3 else (), head_width=0)
    graph, x = network(kind, shape), inputs(shape)
    assert graph.names == (*(f"trunk_{i}" for i in range(layers)), "density")
    assert graph.input_widths == (9,)
    truth = array(graph.values(*x)["density"])
    if kind != "snnk":
        wiring = {n: r for n, r in WIRING.items() if n in graph.names}
        if layers == 1:
            wiring["density"] = ["trunk_0"]
        _agree(graph.values(*x)["density"], graph_numpy(graph, wiring, [array(x[0])])["density"])
    (with_grad,) = graph(*x)
    with torch.no_grad():
        (without_grad,) = graph(*x)
    _agree(with_grad, truth)
    _agree(without_grad, truth)
    assert truth.shape == (6, 1)
    if kind == "dense":
        assert graph.multiply_adds() == dense_trunk(shape)
    with pytest.raises(ConfigError, match=r"inputs have widths \[9, 5\], expected \[9\]"):
        graph(*inputs())


# ---- names and widths


def test_linear_layers_are_not_replaceable() -> None:
    assert SHAPE.replaceable() == ("trunk_0", "trunk_1", "trunk_2", "head_0", "head_1")
    alone = replace(SHAPE, head_width=0)
    assert alone.replaceable() == ("trunk_0", "trunk_1", "trunk_2")
    for shape in (SHAPE, alone, replace(SHAPE, bottleneck_width=0)):
        graph = build_nerf(shape)
        linear = set(graph.names) - set(shape.replaceable())
        assert linear == {"density"} | ({"rgb"} if shape.head_width else set()) | (
            {"bottleneck"} if shape.head_width and shape.bottleneck_width else set()
        )
        for name in graph.names:
            layer = graph.layer(name)
            assert isinstance(layer, DenseLinear)
            assert layer.function == ("identity" if name in linear else "relu")
    for shape, pattern in ((SHAPE, "bottleneck"), (alone, "head_.*")):
        with pytest.raises(ConfigError, match="matches no layer; there are: trunk_0, trunk_1, trunk_2"):
            match_names([pattern], shape.replaceable())


def test_every_replaceable_name_is_replaced() -> None:
    kinds = {"eugen": EUGenLinear, "lowrank": LowRankLinear}
    for (kind, found), shape in product(kinds.items(), (SHAPE, replace(SHAPE, head_width=0))):
        graph = network(kind, shape)
        replaced = tuple(n for n in graph.names if isinstance(graph.layer(n), found))
        assert replaced == shape.replaceable()


def test_narrowed_widths_keep_their_proportions() -> None:
    assert SHAPE.narrowed(8) == replace(SHAPE, trunk_width=8, bottleneck_width=4, head_width=3)
    assert SHAPE.narrowed(16) == SHAPE
    assert SHAPE.narrowed(1) == replace(SHAPE, trunk_width=1, bottleneck_width=1, head_width=1)
    nothing = replace(SHAPE, bottleneck_width=0, head_width=0)
    assert nothing.narrowed(4) == replace(nothing, trunk_width=4)  # what is left out stays out
    for width in (1, 5, 16):
        graph = build_nerf(SHAPE.narrowed(width))
        assert graph.layer("trunk_1").out_features == width
        assert [y.shape for y in graph(*inputs())] == [(6, 1), (6, 3)]


@pytest.mark.parametrize("head_width", [128, 0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_a_bottleneck_and_peers_of_equal_cost(variant: str, head_width: int) -> None:
    shape = NeRFShape(63, 27, 4, 128, (2,), 64, 1, head_width)
    replacement = Replacement(("trunk_.*", "head_.*") if head_width else ("trunk_.*",), (32,))
    graph = build_variant(shape, variant, replacement)
    assert ("bottleneck" in graph.names) == bool(head_width)
    target = build_variant(shape, "eugen", replacement).multiply_adds()
    if variant in ("lowrank", "narrow"):
        assert abs(graph.multiply_adds() / target - 1) < 0.05
    if variant == "dense":
        assert graph.multiply_adds() > 1.5 * target
