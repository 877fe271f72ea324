"""Graphs of layers and their collapse, against numpy run layer by layer and counts made by hand."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from oracles import array, default_dtype, draw, graph_numpy, randomise
from random_graphs import random_graph

from eugen_nerf.core import ConfigError, DenseLinear, EUGenConfig, EUGenLinear, FeatureLayer, LayerGraph
from eugen_nerf.core.layers.products import hadamard_products
from eugen_nerf.core.layers.stage import Affine, _norm_factor


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


def _agree(ours: torch.Tensor, truth: np.ndarray, tolerance: float = 1e-12) -> None:
    assert ours.shape == truth.shape
    assert np.abs(array(ours) - truth).max() <= tolerance * max(1.0, np.abs(truth).max())


@pytest.mark.parametrize("seed", range(30))
def test_collapsed_equals_layer_by_layer(seed: int) -> None:
    graph, wiring, inputs = random_graph(seed, norm=[None, True, False][seed % 3])
    truth = graph_numpy(graph, wiring, [array(x) for x in inputs])
    outputs = [graph.names[v - len(inputs)] for v in graph.outputs]
    for name, value in graph.values(*inputs).items():
        _agree(value, truth[name])
    with_grad = graph(*inputs)
    with torch.no_grad():
        without_grad = graph(*inputs)
    for results in (with_grad, without_grad, graph.collapse()(*inputs)):
        for name, y in zip(outputs, results, strict=True):
            _agree(y, truth[name])
    if seed % 3 == 2:  # no norm: the path with gradients is the merged one
        assert all(y.requires_grad for y in with_grad)


@pytest.mark.parametrize("seed", range(30))
def test_collapse_never_costs_more_than_the_layers_one_by_one(seed: int) -> None:
    graph, _, _ = random_graph(seed)
    assert graph.multiply_adds() <= sum(graph.layer(name).multiply_adds() for name in graph.names)


@pytest.mark.parametrize("seed", range(10))
def test_costs_by_layer_add_up(seed: int) -> None:
    graph, _, _ = random_graph(seed)
    costs = graph.multiply_adds_by_layer()
    assert sum(costs.values()) == graph.multiply_adds()
    assert set(costs) <= set(graph.names)


def test_random_graphs_reach_both_branches() -> None:
    """Some maps are merged into their consumers and some outputs are formed once."""
    merged = formed = 0
    for seed in range(30):
        graph, _, _ = random_graph(seed)
        steps = graph.collapse().steps
        pieces = sum(len(graph.layer(name).pieces()) for name in graph.names)
        formed += len(steps) - pieces
        merged += sum(f is not None for stage, _ in steps for f in stage.factors)
    assert formed > 5
    assert merged > 5


def test_merged_gradients_equal_those_of_the_layers() -> None:
    graph, _, inputs = random_graph(5, norm=False)
    parameters = list(graph.parameters())
    last = graph.names[-1]
    assert graph.outputs[0] == len(inputs) + len(graph.names) - 1
    merged = torch.autograd.grad(graph(*inputs)[0].square().sum(), parameters, allow_unused=True)
    apart = torch.autograd.grad(graph.values(*inputs)[last].square().sum(), parameters, allow_unused=True)
    for m, a in zip(merged, apart, strict=True):
        m, a = (torch.zeros(1) if g is None else g for g in (m, a))
        assert (m - a).abs().max() <= 1e-10 * max(1.0, float(a.abs().max()))


def test_values_can_stop_early() -> None:
    graph, _, inputs = random_graph(3)
    assert list(graph.values(*inputs, upto="layer_1")) == ["layer_0", "layer_1"]


@pytest.mark.parametrize(("width", "features"), [(7, 3), (3, 7), (4, 3), (3, 3), (1, 5), (5, 0)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_qr_factor_has_the_norm_of_the_output(width: int, features: int, with_bias: bool) -> None:
    a, b = draw(width, features, seed=1), draw(width, seed=2)
    r, shift = _norm_factor(Affine(a, b if with_bias else None))
    assert r.shape == (min(width, features + 1), features)
    phi = draw(20, features, seed=3).numpy()
    truth = np.linalg.norm(phi @ a.numpy().T + (b.numpy() if with_bias else 0.0), axis=1)
    np.testing.assert_allclose(np.linalg.norm(phi @ r.numpy().T + shift.numpy(), axis=1), truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_qr_factor_in_short_dtypes(dtype: torch.dtype) -> None:
    a, b = draw(6, 4).to(dtype), draw(6, seed=2).to(dtype)
    r, shift = _norm_factor(Affine(a, b))
    assert r.dtype == shift.dtype == dtype
    phi = draw(10, 4, seed=4).numpy()
    truth = np.linalg.norm(phi @ array(a).T + array(b), axis=1)
    np.testing.assert_allclose(np.linalg.norm(phi @ array(r).T + array(shift), axis=1), truth, rtol=0.02)


def test_hadamard_products_against_loops() -> None:
    m = 3
    for degree in range(1, 5):
        for shared in (True, False):
            blocks = degree if shared else degree * (degree + 1) // 2
            u = draw(2, blocks * m, seed=degree).numpy()
            expected = np.ones((2, degree * m))
            index = 0
            for i in range(degree):
                for j in range(i + 1):
                    block = j if shared else index
                    for r in range(m):
                        expected[:, i * m + r] *= u[:, block * m + r]
                    index += 1
            np.testing.assert_allclose(hadamard_products(torch.from_numpy(u), degree, shared).numpy(), expected)


# ---- counts by hand


def _stack(*, norm: bool, width: int = 32, m: int = 8) -> LayerGraph:
    config = EUGenConfig(m, norm=norm)
    layers = {
        "a": EUGenLinear(5, width, config),
        "b": EUGenLinear(width, width, config),
        "c": DenseLinear(width, 3, "identity"),
    }
    return LayerGraph(layers, {"a": [0], "b": ["a"], "c": ["b"]}, [5], ["c"])


def test_multiply_adds_of_a_stack() -> None:
    graph = _stack(norm=False)
    assert graph.multiply_adds() == 8 * 5 + 8 * 8 + 3 * 8
    assert sum(graph.layer(n).multiply_adds() for n in graph.names) == (40 + 256) + (256 + 256) + 96
    assert list(graph.multiply_adds_by_layer().values()) == [8 * 5, 8 * 8, 3 * 8]
    # the norm of the 32 wide output comes from R, 9 x 8
    assert _stack(norm=True).multiply_adds() == 8 * 5 + (8 * 8 + 9 * 8) + 3 * 8


def test_a_map_is_not_merged_where_that_costs_more() -> None:
    """6 features of a layer 2 wide, read by 8 rows: 2*6 + 8*2 products formed first, 8*6 merged."""
    layers = {"a": EUGenLinear(3, 2, EUGenConfig(6, norm=False)), "b": DenseLinear(2, 8)}
    graph = LayerGraph(layers, {"a": [0], "b": ["a"]}, [3], ["b"])
    assert graph.multiply_adds() == 6 * 3 + 2 * 6 + 8 * 2


def test_the_norms_factor_counts_in_what_pays() -> None:
    """10 features of a layer 9 wide, read by 5 rows and the norm: 90 + 45 formed first, 50 + 9 * 10 merged."""
    layers = {"a": EUGenLinear(3, 9, EUGenConfig(10, norm=False)), "b": EUGenLinear(9, 2, EUGenConfig(5))}
    graph = LayerGraph(layers, {"a": [0], "b": ["a"]}, [3], ["b"])
    assert graph.multiply_adds() == 10 * 3 + (90 + 45) + 2 * 5


def test_an_output_that_is_also_read_is_formed_once() -> None:
    layers = {"a": EUGenLinear(3, 10, EUGenConfig(2, norm=False)), "b": DenseLinear(10, 4)}
    graph = LayerGraph(layers, {"a": [0], "b": ["a"]}, [3], ["a", "b"])
    assert graph.multiply_adds() == 2 * 3 + 10 * 2 + 4 * 10


def test_a_stack_without_norm_never_returns_to_its_width() -> None:
    plan = _stack(norm=False).collapse()
    shapes = [tuple(stage.weight.shape) for stage, _ in plan.steps]
    shapes += [tuple(f[0].shape) for stage, _ in plan.steps for f in stage.factors if f is not None]
    shapes += [tuple(a.weight.shape) for _, a in plan.outputs if a.weight is not None]
    assert shapes == [(8, 5), (8, 8), (3, 8)]
    assert all(32 not in shape for shape in shapes)


def test_layers_of_several_stages_collapse_whatever_their_widths() -> None:
    """`FeatureLayer.pieces` allows any stages with any maps between them."""

    class Pair(FeatureLayer):
        def __init__(self) -> None:
            super().__init__(4, 5)
            self.first = EUGenLinear(4, 7, EUGenConfig(3, 2, norm=False))
            self.second = EUGenLinear(7, 5, EUGenConfig(3, norm=False))

        def pieces(self) -> list:
            return self.first.pieces() + self.second.pieces()

    pair, x = Pair(), draw(6, 4)
    expected = array(pair.second(pair.first(x)))
    _agree(pair(x), expected)
    _agree(LayerGraph({"p": pair}, {"p": [0]}, [4], ["p"])(x)[0], expected)


# ---- the kept plan


def _changed(graph: LayerGraph, x: torch.Tensor, before: torch.Tensor) -> None:
    """The plan in use is the one of the present weights, and these are others than before."""
    with torch.no_grad():
        now = graph(x.to(graph.layer("a").weight.dtype))[0]
    _agree(now, array(graph.values(x.to(now.dtype))["c"]), 1e-12 if now.dtype == torch.float64 else 1e-4)
    assert not torch.equal(now.double(), before.double())


def test_the_plan_is_kept_until_a_weight_changes() -> None:
    graph, x = _stack(norm=True), draw(4, 5)
    with torch.no_grad():
        before = graph(x)[0]
    plan = graph.collapsed()
    assert graph.collapsed() is plan
    with torch.no_grad():
        graph.layer("b").projection_norm.add_(0.3)  # in place
    _changed(graph, x, before)
    assert graph.collapsed() is not plan


def test_the_plan_follows_an_optimiser_step() -> None:
    for optimiser_class in (torch.optim.Adam, torch.optim.SGD, torch.optim.RAdam):
        graph, x = _stack(norm=False), draw(4, 5)
        with torch.no_grad():
            before = graph(x)[0]
        optimiser = optimiser_class(graph.parameters(), lr=0.1)
        graph(x)[0].square().sum().backward()
        optimiser.step()
        _changed(graph, x, before)


def test_the_plan_follows_load_state_dict() -> None:
    graph, x = _stack(norm=True), draw(4, 5)
    other = _stack(norm=True)
    randomise(other, seed=8)
    with torch.no_grad():
        before = graph(x)[0]
        graph.load_state_dict(other.state_dict())
        _changed(graph, x, before)
        assert torch.equal(graph(x)[0], other(x)[0])


def test_the_plan_follows_a_change_of_dtype() -> None:
    graph, x = _stack(norm=True).float(), draw(4, 5)
    randomise(graph, seed=3)
    with torch.no_grad():
        short = graph(x.float())[0]
        assert short.dtype == torch.float32
        wide = graph.double()(x)[0]
    assert wide.dtype == torch.float64
    _changed(graph, x, short)


def test_the_plan_follows_a_replaced_layer() -> None:
    graph, x = _stack(norm=True), draw(4, 5)
    with torch.no_grad():
        before = graph(x)[0]
    graph.replace_layer("b", DenseLinear(32, 32))
    _changed(graph, x, before)
    with pytest.raises(ConfigError, match="layer 'b' is 32 -> 32, its replacement 32 -> 31"):
        graph.replace_layer("b", DenseLinear(32, 31))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_short_dtypes_are_kept_and_close(dtype: torch.dtype, tolerance: float) -> None:
    graph, x = _stack(norm=True), draw(20, 5)
    truth = array(graph.values(x)["c"])
    graph.to(dtype)
    with torch.no_grad():
        y = graph(x.to(dtype))[0]
    assert y.dtype == dtype
    assert np.abs(array(y) - truth).max() < tolerance * np.abs(truth).max()


def test_batch_shapes() -> None:
    graph, x = _stack(norm=True), draw(2, 3, 5)
    with torch.no_grad():
        flat, shaped, empty = graph(x.reshape(6, 5))[0], graph(x)[0], graph(x[:0])[0]
    assert shaped.shape == (2, 3, 3)
    torch.testing.assert_close(shaped.reshape(6, 3), flat)
    assert empty.shape == (0, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_collapsed_graph_is_a_snapshot(dtype: torch.dtype) -> None:
    """What `collapse` returned is not half changed, in no dtype, when training goes on."""
    graph, x = _stack(norm=True).to(dtype), draw(4, 5).to(dtype)
    plan = graph.collapse()
    before = plan(x)[0].clone()
    assert not before.requires_grad
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.add_(0.3)
    assert torch.equal(plan(x)[0], before)


def test_inference_mode_may_come_first() -> None:
    """A plan formed in inference mode serves later calls outside it, and keeps no autograd graph alive."""
    graph, x = _stack(norm=True), draw(4, 5)
    with torch.inference_mode():
        first = graph(x)[0].clone()
    for stage, _ in graph.collapsed().steps:
        held = [stage.weight, *(t for f in stage.factors if f is not None for t in f)]
        assert not any(t.grad_fn is not None or t.is_inference() for t in held)
    x = x.clone().requires_grad_()
    graph.collapsed()(x)[0].sum().backward()
    assert torch.isfinite(x.grad).all()
    _agree(graph(x)[0], array(first))


# ---- refusals


def test_wiring_errors() -> None:
    with pytest.raises(ConfigError, match="layer 'a' reads a value that comes after it"):
        LayerGraph({"a": DenseLinear(4, 4), "b": DenseLinear(4, 4)}, {"a": ["b"], "b": [0]}, [4], ["b"])
    with pytest.raises(ConfigError, match="layer 'a' reads a value that comes after it"):
        LayerGraph({"a": DenseLinear(4, 4)}, {"a": ["a"]}, [4], ["a"])
    with pytest.raises(ConfigError, match=r"layer 'b' \(number 1\) takes 5 inputs, its wiring brings 7"):
        LayerGraph({"a": DenseLinear(3, 4), "b": DenseLinear(5, 4)}, {"a": [0], "b": ["a", 0]}, [3], ["b"])


def test_wiring_to_nothing_is_refused() -> None:
    """Names and indices that do not exist: a ConfigError, never a KeyError or a silent read from the end."""
    layers = {"a": DenseLinear(4, 4), "b": DenseLinear(4, 4)}
    for wiring, outputs in (
        ({"a": [0], "b": ["typo"]}, ["b"]),
        ({"a": [0]}, ["b"]),
        ({"a": [0], "b": ["a"]}, ["typo"]),
        ({"a": [0], "b": [-1]}, ["b"]),
    ):
        with pytest.raises(ConfigError):
            LayerGraph(layers, wiring, [4], outputs)


def test_input_errors() -> None:
    graph = LayerGraph({"a": DenseLinear(5, 4)}, {"a": [0, 1]}, [3, 2], ["a"])
    for inputs, message in (
        ((torch.zeros(2, 3), torch.zeros(2, 3)), r"widths \[3, 3\], expected \[3, 2\]"),
        ((torch.zeros(2, 3),), r"widths \[3\], expected \[3, 2\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            graph(*inputs)
        with pytest.raises(ConfigError, match=message), torch.no_grad():
            graph(*inputs)
