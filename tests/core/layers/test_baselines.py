"""Dense, low-rank, Monarch and SNNK layers against plain formulas."""

import math

import numpy as np
import pytest
import torch
from oracles import FUNCTIONS, array, default_dtype, draw, layer_numpy, randomise
from torch import nn

from eugen_nerf.core import (
    CollapsedGraph,
    ConfigError,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    LayerGraph,
    LayerSpec,
    LowRankLinear,
    MonarchLinear,
    SNNKLinear,
)
from eugen_nerf.core.layers.stage import Affine, Stage
from eugen_nerf.core.spec import count_parameters


@pytest.mark.parametrize(("name", "function"), [("relu", nn.functional.relu), ("gelu", nn.functional.gelu)])
def test_dense_is_a_linear_layer_and_its_activation(name: str, function: object) -> None:
    layer, x = DenseLinear(5, 3, name), draw(7, 5).float()
    expected = function(nn.functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), expected)
    assert layer.multiply_adds() == 15


def test_dense_starts_as_torch_does() -> None:
    torch.manual_seed(5)
    layer = DenseLinear(5, 3)
    torch.manual_seed(5)
    linear = nn.Linear(5, 3)
    assert torch.equal(layer.weight, linear.weight)
    assert torch.equal(layer.bias, linear.bias)


@pytest.mark.parametrize("function", ["relu", "tanh", "identity"])
def test_low_rank_against_numpy(function: str) -> None:
    with default_dtype(torch.float64):
        layer = LowRankLinear(6, 5, 2, function)
    randomise(layer, seed=1)
    x = draw(8, 6)
    np.testing.assert_allclose(array(layer(x)), layer_numpy(layer, x.numpy()), rtol=1e-12, atol=1e-14)
    matrix = torch.autograd.functional.jacobian(lambda v: layer.up @ (layer.down @ v), x[0])
    assert np.linalg.matrix_rank(array(matrix)) == 2
    assert layer.multiply_adds() == 6 * 2 + 2 * 5


def test_low_rank_refusals() -> None:
    for rank in (0, 6):
        with pytest.raises(ConfigError, match=f"rank {rank} makes no sense for a 6 -> 5 layer; choose 1 to 5"):
            LowRankLinear(6, 5, rank)
    with pytest.raises(ConfigError, match="'swish' is unknown"):
        LowRankLinear(6, 5, 2, "swish")


@pytest.mark.parametrize("width", [8, 7])  # whole blocks, and one that is padded
def test_monarch_against_numpy(width: int) -> None:
    with default_dtype(torch.float64):
        layer = MonarchLinear(width, 6, 4, "gelu", blocks=2)
    randomise(layer, seed=1)
    x = draw(5, 3, width)
    np.testing.assert_allclose(array(layer(x)).reshape(15, 6), layer_numpy(layer, x.numpy().reshape(15, width)), 1e-12)
    assert layer.multiply_adds() == 4 * 4 + 6 * 2
    assert layer(x[:0]).shape == (0, 3, 6)
    assert torch.autograd.gradcheck(layer, (x[0].requires_grad_(),))


def test_monarch_reaches_every_output_from_every_input() -> None:
    layer = MonarchLinear(8, 8, 16, "identity")
    matrix = torch.autograd.functional.jacobian(layer, torch.zeros(8))
    assert (matrix != 0).all(), "the permutation between the blocks mixes them"
    first = Stage(layer.first, None, None, 1, True, "identity", groups=4).merge((Affine(),), (8,))
    alone = torch.autograd.functional.jacobian(lambda v: first((v,)), torch.zeros(8))
    assert (alone != 0).sum() == 16 * 2, "one matrix of diagonal blocks does not"


def test_monarch_in_a_graph_is_not_merged_and_can_be_written_out() -> None:
    layers = {"a": EUGenLinear(7, 8, EUGenConfig(4)), "b": MonarchLinear(8, 8, 4, "relu"), "c": DenseLinear(8, 3)}
    graph = LayerGraph(layers, {"a": [0], "b": ["a"], "c": ["b"]}, [7], ["c"])
    x = draw(5, 7).float()
    collapsed = graph.collapse()
    assert collapsed.multiply_adds() == 7 * 4 + 4 * 8 + 4 * 2 + 8 * 1 + 8 * 3
    written_out = collapsed.ungrouped([7])
    assert all(stage.groups == 1 for stage, _ in written_out.steps)
    for y in (collapsed(x)[0], written_out(x)[0], graph(x)[0]):
        torch.testing.assert_close(y, graph.values(x)["c"])
    assert torch.equal(
        CollapsedGraph(collapsed.steps[:1], ()).ungrouped([7]).steps[0][0].weight, layers["a"].projection
    )


def test_monarch_refusals() -> None:
    for width, inner, blocks in ((8, 6, 4), (6, 8, 4), (8, 0, 4), (8, 8, 1)):
        with pytest.raises(ConfigError, match=f"got {inner} inner and {width} outputs"):
            MonarchLinear(8, width, inner, blocks=blocks)


@pytest.mark.parametrize("function", ["gaussian", "sin", "cos"])
def test_snnk_is_unbiased(function: str) -> None:
    linear = nn.Linear(3, 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.5, -0.4, 0.3], [-0.2, 0.6, 0.1]]))
        linear.bias.copy_(torch.tensor([0.4, -0.7]))
    x = torch.tensor([[0.6, -0.3, 0.5], [0.2, 0.7, -0.4]], dtype=torch.float64)
    truth = FUNCTIONS[function](array(linear(x)))
    draws = []
    with torch.no_grad():
        for seed in range(100):
            draws.append(array(SNNKLinear(3, 2, 8000, function, norm_factor=True, linear=linear, seed=seed)(x)))
    errors = np.std(draws, axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - truth) < 4.5 * errors)
    assert errors.max() < 0.01


def test_snnk_norm_factor_is_the_exponential_of_the_squared_norm() -> None:
    """For sin and cos every frequency is 1, so the factor is exp(|x|^2 / 2) for all features (the bias is zero)."""
    linear, x = nn.Linear(3, 2).double(), draw(5, 3)
    plain, full = (SNNKLinear(3, 2, 8, "cos", norm_factor=n, linear=linear) for n in (False, True))
    factor = np.exp(0.5 * np.square(x.numpy()).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(array(full(x)), array(plain(x)) * factor, rtol=1e-12)


def test_snnk_without_the_factor_collapses() -> None:
    layer, x = SNNKLinear(3, 2, 8), draw(5, 3).float()
    expected = np.cos(x.numpy() @ array(layer.projection).T + array(layer.phase)) @ array(layer.weight).T
    graph = LayerGraph({"a": layer}, {"a": [0]}, [3], ["a"])
    for y in (layer(x), graph(x)[0], graph.collapsed()(x)[0]):
        np.testing.assert_allclose(array(y), expected, atol=1e-5)


def test_snnk_refusals() -> None:
    for function in ("relu", "softplus", "gelu"):
        with pytest.raises(ConfigError, match=f"'{function}' grows and has none. Choose gaussian, sin or cos"):
            SNNKLinear(3, 2, 4, function)
    with pytest.raises(ConfigError, match="at least 1 feature, got 0"):
        SNNKLinear(3, 2, 0)
    graph = LayerGraph({"a": SNNKLinear(3, 2, 4, norm_factor=True)}, {"a": [0]}, [3], ["a"])
    with pytest.raises(ConfigError, match="norm_factor=True cannot be collapsed"):
        graph.collapse()


def test_specs_build_what_they_name() -> None:
    expected = {"dense": DenseLinear, "eugen": EUGenLinear, "lowrank": LowRankLinear, "snnk": SNNKLinear}
    assert type(LayerSpec("monarch", num_features=4).build(6, 8)) is MonarchLinear
    for kind, cls in expected.items():
        layer = LayerSpec(kind, num_features=4, seed=9).build(6, 5)
        assert type(layer) is cls
        assert (layer.in_features, layer.out_features) == (6, 5)
    eugen = LayerSpec("eugen", num_features=4, seed=9, eugen=EUGenConfig(77, 2, seed=1)).build(6, 5)
    assert (eugen.config.num_features, eugen.config.seed, eugen.config.degree) == (4, 9, 2)
    assert LayerSpec("lowrank", num_features=20).build(6, 5).down.shape == (5, 6)


def test_spec_refusals() -> None:
    for m in (0, 25, -3):
        with pytest.raises(ConfigError, match=f"{m} features make no sense for a 6 -> 5 layer; choose 1 to 24"):
            LayerSpec("eugen", num_features=m).build(6, 5)
    with pytest.raises(ConfigError, match="'conv' is unknown; choose dense, eugen, lowrank, snnk or monarch"):
        LayerSpec("conv", num_features=2).build(6, 5)  # type: ignore[arg-type]


def test_parameter_counts() -> None:
    graph = LayerGraph({"a": DenseLinear(3, 4), "b": LowRankLinear(4, 5, 2)}, {"a": [0], "b": ["a"]}, [3], ["b"])
    assert count_parameters(graph) == 3 * 4 + 4 + 2 * 4 + 5 * 2 + 5
    fixed = EUGenLinear(6, 5, EUGenConfig(4, train_projection=False))
    assert count_parameters(fixed) == 5 * 4 + 5


@pytest.mark.parametrize("kind", ["dense", "lowrank", "monarch"])
def test_baselines_start_as_he_et_al_do_where_asked_for(kind: str) -> None:
    """The matrix that the activation follows has variance 2 / fan-in, and biases are zero."""
    torch.manual_seed(0)
    layer = LayerSpec(kind, num_features=64, start="kaiming").build(256, 256)  # type: ignore[arg-type]
    stage = layer.pieces()[-1][0]
    assert float(stage.weight.square().mean()) == pytest.approx(2 / stage.weight.shape[1], rel=0.05)
    assert not stage.bias.any()  # type: ignore[union-attr]
    torch.manual_seed(0)
    plain = LayerSpec(kind, num_features=64).build(256, 256).pieces()[-1][0]  # type: ignore[arg-type]
    assert float(plain.weight.abs().max()) <= plain.weight.shape[1] ** -0.5
    with pytest.raises(ConfigError, match=r"start=.he. is unknown; choose linear or kaiming"):
        LayerSpec(kind, num_features=4, start="he").build(8, 8)  # type: ignore[arg-type]
