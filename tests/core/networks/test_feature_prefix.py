"""Networks at a share of their features: equal to networks that were built so narrow, in every form they take."""

import copy

import pytest
import torch
from oracles import draw, randomise

from eugen_nerf.core import (
    BundledGraph,
    ConfigError,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    LayerGraph,
    NeRFShape,
    Replacement,
    build_variant,
    make_plan,
    merged_for_training,
)

SHAPE = NeRFShape(9, 5, 4, 16, (2,), 0, 1, 8)
BOTTLENECK = NeRFShape(9, 5, 3, 16, (2,), 12, 1, 8)
SETTINGS = {
    "dense": (SHAPE, "dense", {}),
    "degree 1": (SHAPE, "eugen", {}),
    "degree 2": (SHAPE, "eugen", {"degree": 2, "phi": "identity", "product": "harmonic"}),
    "unshared": (SHAPE, "eugen", {"degree": 2, "shared": False}),
    "bottleneck": (BOTTLENECK, "eugen", {"degree": 2}),
    "merged": (SHAPE, "eugen", {"degree": 2, "phi": "identity", "product": "minimum"}),
}


def network(name: str) -> LayerGraph:
    shape, variant, eugen = SETTINGS[name]
    replacement = Replacement((".*",), (8,), EUGenConfig(norm=False, **eugen))  # type: ignore[arg-type]
    graph = build_variant(shape, variant, replacement).double()
    randomise(graph, 3)
    return merged_for_training(graph) if name == "merged" else graph


def inputs() -> list[torch.Tensor]:
    return [draw(20, 9), draw(20, 5, seed=1)]


def narrow_twin(graph: LayerGraph, share: float) -> LayerGraph:
    """A network of fewer features, built layer by layer; the numbers of the first features are copied one by one."""
    layers = {}
    first = len(graph.input_widths)
    rows = {v: list(range(w)) for v, w in enumerate(graph.input_widths)}  # of every value, those that are kept
    for value, name in enumerate(graph.names, start=first):
        old = graph.layer(name)
        offset, columns = 0, []
        for v in graph.reads[name]:
            columns += [offset + r for r in rows[v]]
            offset += graph.width(v)
        if isinstance(old, EUGenLinear):  # its outputs keep their width, its features are fewer
            m = old.config.num_features
            kept = round(share * m)
            new = EUGenLinear(len(columns), old.out_features, EUGenConfig(**{**vars(old.config), "num_features": kept}))
            blocks = len(old.projection) // m
            places = [b * m + r for b in range(blocks) for r in range(kept)]
            made = [i * m + r for i in range(old.config.degree) for r in range(kept)]
            new = new.double()
            new.projection.data.copy_(old.projection.data[places][:, columns])
            new.projection_bias.data.copy_(old.projection_bias.data[places])  # type: ignore[union-attr, arg-type]
            new.weight.data.copy_(old.weight.data[:, made])
            new.bias.data.copy_(old.bias.data)  # type: ignore[union-attr, arg-type]
            rows[value] = list(range(old.out_features))
            layers[name] = new
            continue
        assert isinstance(old, DenseLinear)
        kept = old.out_features if old.function == "identity" else round(share * old.out_features)
        dense = DenseLinear(len(columns), kept, old.function).double()
        dense.weight.data.copy_(old.weight.data[:kept][:, columns])
        dense.bias.data.copy_(old.bias.data[:kept])
        rows[value] = list(range(kept))
        layers[name] = dense
    wiring = {name: list(graph.reads[name]) for name in graph.names}
    return LayerGraph(layers, wiring, graph.input_widths, [graph.names[v - first] for v in graph.outputs])


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", ["dense", "degree 1", "degree 2", "unshared", "bottleneck"])
def test_a_share_is_a_network_built_so_narrow(name: str, share: float) -> None:
    graph = network(name)
    twin = narrow_twin(graph, share)
    whole = graph(*inputs())
    graph.share = share
    for y, truth in zip(graph(*inputs()), twin(*inputs()), strict=True):
        torch.testing.assert_close(y, truth, rtol=1e-10, atol=1e-10)
    assert graph.multiply_adds() == twin.multiply_adds()
    assert sum(graph.multiply_adds_by_layer().values()) == graph.multiply_adds()
    if share < 1:
        assert not torch.allclose(graph(*inputs())[1], whole[1])
    graph.share = 1.0
    assert all(torch.equal(a, b) for a, b in zip(graph(*inputs()), whole, strict=True))


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_form_is_of_the_share(name: str) -> None:
    """Differentiable, collapsed, planned and bundled; a change of the share drops what was of another."""
    graph = network(name)
    for share in (0.5, 0.25):
        graph.share = share
        expected = [y.detach() for y in graph(*inputs())]
        with torch.no_grad():
            collapsed = graph(*inputs())
            graph.plan = make_plan(graph, inputs())
            planned = graph(*inputs())
            bundled = BundledGraph(graph.collapse(), graph.input_widths)(*inputs())
        for form, tolerance in ((collapsed, 1e-10), (planned, 1e-5), (bundled, 1e-10)):
            for y, truth in zip(form, expected, strict=True):
                assert float((y - truth).abs().max()) <= tolerance * float(truth.abs().max())
        assert copy.deepcopy(graph).share == share
    graph.share = 0.75
    assert graph.plan is None


def test_gradients_reach_the_first_features_alone() -> None:
    graph = network("merged")
    graph.share = 0.5
    sum(y.square().sum() for y in graph(*inputs())).backward()
    grad = graph.layer("trunk_1").weight.grad
    assert isinstance(grad, torch.Tensor)
    blocks = grad.view(2, 8, 2, 8)  # of a and b, features of each; of a and their product, features of each
    assert blocks[:, :4, :, :4].abs().min() > 0
    assert blocks[:, 4:].abs().max() == 0
    assert blocks[:, :, :, 4:].abs().max() == 0


def test_the_norm_is_that_of_the_narrow_input() -> None:
    graph = build_variant(SHAPE, "eugen", Replacement((".*",), (8,), EUGenConfig(degree=2))).double()
    randomise(graph, 3)
    graph.share = 0.5
    twin = narrow_twin(graph, 0.5)
    for name in graph.names:
        old, new = graph.layer(name), twin.layer(name)
        if isinstance(old, EUGenLinear):
            kept = [b * 8 + r for b in range(2) for r in range(4)]
            new.projection_norm.data.copy_(old.projection_norm.data[kept])  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        for y, truth in zip(graph(*inputs()), twin(*inputs()), strict=True):
            torch.testing.assert_close(y, truth, rtol=1e-9, atol=1e-9)
    with pytest.raises(ConfigError, match="uses the norm of its inputs has no share"):
        graph(*inputs())


def test_refusals() -> None:
    graph = network("dense")
    for share in (0.0, -0.5, 1.5):
        with pytest.raises(ConfigError, match=f"above 0 and at most 1, got {share}"):
            graph.share = share
    monarch = build_variant(NeRFShape(9, 5, 3, 16, (), 0, 1, 8), "monarch", Replacement(num_features=(8,)))
    monarch.share = 0.5
    with pytest.raises(ConfigError, match=r"diagonal blocks .Monarch. have no prefix"):
        monarch.collapse()
