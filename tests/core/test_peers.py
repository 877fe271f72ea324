"""Dense, low-rank and SNNK layers against plain formulas."""

import math

import numpy as np
import pytest
import torch
from oracles import FUNCTIONS, array, default_dtype, draw, layer_numpy, randomise
from torch import nn

from eugen_nerf.core import (
    ConfigError,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    LayerGraph,
    LayerSpec,
    LowRankLinear,
    SNNKLinear,
    count_parameters,
)


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
    with pytest.raises(ConfigError, match="'conv' is unknown; choose dense, eugen, lowrank or snnk"):
        LayerSpec("conv", num_features=2).build(6, 5)  # type: ignore[arg-type]


def test_parameter_counts() -> None:
    graph = LayerGraph({"a": DenseLinear(3, 4), "b": LowRankLinear(4, 5, 2)}, {"a": [0], "b": ["a"]}, [3], ["b"])
    assert count_parameters(graph) == 3 * 4 + 4 + 2 * 4 + 5 * 2 + 5
    fixed = EUGenLinear(6, 5, EUGenConfig(4, train_projection=False))
    assert count_parameters(fixed) == 5 * 4 + 5
