"""The EUGen layer against Eq. (1) in numpy, its closed-form start, gradients, dtypes and saving."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import FUNCTIONS, array, default_dtype, draw, eugen_numpy, projections, randomise
from torch import nn

from eugen_nerf.core import ConfigError, EUGenConfig, EUGenLinear, LayerGraph
from eugen_nerf.core.layers.activations import polynomial_fit

SETTINGS = [
    EUGenConfig(0, 0, "relu", "identity", "free"),
    EUGenConfig(3, 0, "relu", "identity", "tied", bias=False),
    EUGenConfig(5, 1, "relu", "identity", "free"),
    EUGenConfig(5, 1, "gelu", "identity", "free", norm=False),
    EUGenConfig(5, 1, "softplus", "tanh", "tied", bias=False),
    EUGenConfig(4, 1, "identity", "cos", "separate", projection="orthogonal"),
    EUGenConfig(3, 2, "relu", "relu", "tied", shared=True),
    EUGenConfig(3, 2, "sin", "identity", "tied", shared=False),
    EUGenConfig(2, 2, "sigmoid", "sin", "separate", shared=False, norm=False),
    EUGenConfig(4, 2, "gaussian", "identity", "free", shared=False, bias=False),
    EUGenConfig(4, 2, "relu", "identity", "free", shared=True, norm=False, bias=False),
    EUGenConfig(2, 3, "identity", "identity", "tied", shared=False),
    EUGenConfig(3, 3, "tanh", "gaussian", "separate", shared=True),
    EUGenConfig(2, 3, "cos", "identity", "free", projection="rademacher"),
    EUGenConfig(2, 4, "identity", "tanh", "separate", shared=False, projection="orthogonal"),
    EUGenConfig(3, 4, "tanh", "identity", "free", shared=False),
    EUGenConfig(3, 4, "identity", "identity", "tied", shared=True, bias=False, norm=False),
    EUGenConfig(4, 2, "identity", "identity", "free", norm=False, product="harmonic"),
    EUGenConfig(3, 2, "identity", "identity", "tied", shared=False, product="harmonic"),
    EUGenConfig(4, 2, "tanh", "identity", "free", product="minimum"),
    EUGenConfig(3, 2, "identity", "sin", "separate", shared=False, product="clamped"),
]


def _name(c: EUGenConfig) -> str:
    return f"k{c.degree}-{c.weights}-{c.phi}-{c.psi}-{c.shared}-{c.product}"


@pytest.mark.parametrize("config", SETTINGS, ids=_name)
def test_forward_is_equation_1(config: EUGenConfig) -> None:
    x = draw(4, 3, seed=config.degree)
    with default_dtype(torch.float64):
        layer = EUGenLinear(3, 2, config)
    as_built = layer(x)
    np.testing.assert_allclose(array(as_built), eugen_numpy(layer, x.numpy()), rtol=1e-10, atol=1e-12)
    randomise(layer, seed=3)  # norm columns, biases and coefficients away from their starting values
    after = layer(x)
    np.testing.assert_allclose(array(after), eugen_numpy(layer, x.numpy()), rtol=1e-10, atol=1e-12)
    if config.degree:
        assert (after - as_built).abs().max() > 1e-3


def test_separate_projections_differ_and_tied_ones_are_one() -> None:
    separate = EUGenLinear(3, 2, EUGenConfig(8, weights="separate"))
    assert not torch.equal(separate.projection, separate.weight_projection)
    assert not hasattr(EUGenLinear(3, 2, EUGenConfig(8, weights="tied")), "weight_projection")


def test_shared_projections_need_a_block_a_degree_and_independent_ones_a_triangle() -> None:
    assert EUGenLinear(5, 2, EUGenConfig(7, 3, shared=True)).projection.shape == (21, 5)
    assert EUGenLinear(5, 2, EUGenConfig(7, 3, shared=False)).projection.shape == (42, 5)


def test_multiply_adds_are_the_papers() -> None:
    """Under Eq. (2): m d k + k m l when shared, m d k (k+1)/2 + k m l when not (the constant term costs no product)."""
    d, m, k, out = 11, 6, 3, 5
    assert EUGenLinear(d, out, EUGenConfig(m, k, shared=True)).multiply_adds() == m * d * k + k * m * out
    assert EUGenLinear(d, out, EUGenConfig(m, k, shared=False)).multiply_adds() == m * d * 6 + k * m * out


def test_the_norm_column_starts_at_zero_and_matters_when_it_is_not() -> None:
    x = torch.tensor([[3.0, 4.0]])
    layer = EUGenLinear(2, 3, EUGenConfig(6, phi="identity", weights="free"))
    plain = EUGenLinear(2, 3, EUGenConfig(6, phi="identity", weights="free", norm=False))
    assert torch.equal(layer(x), plain(x))
    with torch.no_grad():
        layer.projection_norm.fill_(0.1)
    expected = plain(x) + 0.5 * plain.weight.sum(dim=1)  # |x| = 5
    torch.testing.assert_close(layer(x), expected)
    assert layer.uses_norm
    assert not plain.uses_norm


@pytest.mark.parametrize("width", [64, 512])
def test_a_stack_starts_with_the_weights_of_dense_layers_or_with_kaimings(width: int) -> None:
    """What two layers collapse to, `G_2 A_1`: a matrix m x m, for dense layers and ReLU as torch starts them."""
    m = 128
    stacks = {}
    for start in ("linear", "kaiming"):
        first = EUGenLinear(m, width, EUGenConfig(m, start=start, norm=False, seed=1))
        second = EUGenLinear(width, m, EUGenConfig(m, start=start, norm=False, seed=2))
        stacks[start] = float((second.projection @ first.weight).detach().std())
    dense = nn.Linear(m, m)
    assert stacks["linear"] == pytest.approx(float(dense.weight.detach().std()), rel=0.03)
    nn.init.kaiming_normal_(dense.weight, nonlinearity="relu")
    assert stacks["kaiming"] == pytest.approx(float(dense.weight.detach().std()), rel=0.03)


def test_the_scale_at_the_start_does_not_enter_the_estimate() -> None:
    linear, x = nn.Linear(3, 2), draw(5, 3).float()
    layers = [
        EUGenLinear.from_linear(linear, "relu", EUGenConfig(64, 2, weights="tied", start=start))
        for start in ("linear", "kaiming")
    ]
    torch.testing.assert_close(layers[0](x), layers[1](x))


def test_train_projection_decides_what_is_trained() -> None:
    fixed = EUGenLinear(4, 3, EUGenConfig(5, train_projection=False, weights="separate"))
    assert {n for n, _ in fixed.named_parameters()} == {"weight", "weight_bias", "bias"}
    trained = EUGenLinear(4, 3, EUGenConfig(5))
    names = {"weight", "bias", "projection", "projection_bias", "projection_norm"}
    assert {n for n, _ in trained.named_parameters()} == names
    assert torch.equal(EUGenLinear(4, 3, EUGenConfig(5, train_projection=False)).projection, trained.projection)


def test_construction_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first = EUGenLinear(4, 3, EUGenConfig(5, weights="separate", projection="orthogonal", seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    again = EUGenLinear(4, 3, EUGenConfig(5, weights="separate", projection="orthogonal", seed=3))
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_refusals() -> None:
    for d, out in ((0, 2), (2, 0)):
        with pytest.raises(ConfigError, match=f"widths of at least 1, got {d} -> {out}"):
            EUGenLinear(d, out)
    for m, k in ((4, -1), (0, 1), (-2, 0)):
        with pytest.raises(ConfigError, match=f"degree {k} and {m} features"):
            EUGenLinear(3, 2, EUGenConfig(m, k))
    for setting, message in (
        ({"weights": "loose"}, "choose free, tied or separate"),
        ({"phi": "swish"}, "'swish' is unknown"),
        ({"psi": "swish"}, "'swish' is unknown"),
        ({"projection": "sobol"}, "'sobol' is unknown"),
        ({"start": "zero"}, "choose kaiming or linear"),
        ({"product": "geometric"}, "'geometric' is unknown; choose one of plain, harmonic, minimum, clamped"),
        ({"product": "harmonic"}, "'harmonic' joins two projections, got degree 1; choose degree 2"),
        ({"product": "minimum", "degree": 3}, "'minimum' joins two projections, got degree 3; choose degree 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            EUGenLinear(3, 2, EUGenConfig(4, **setting))
    with pytest.raises(ConfigError, match="use weights='free'"):
        EUGenLinear(3, 2, EUGenConfig(4, weights="tied")).set_output(torch.zeros(2, 4), None)
    with pytest.raises(ConfigError, match=r"weight has shape \(2, 5\), the layer needs \(2, 4\)"):
        EUGenLinear(3, 2, EUGenConfig(4)).set_output(torch.zeros(2, 5), None)
    with pytest.raises(ConfigError, match="from_linear starts free or tied weights"):
        EUGenLinear.from_linear(nn.Linear(3, 2), "relu", EUGenConfig(4, weights="separate"))


# ---- closed-form start


def _linear(d: int, out: int, seed: int = 0, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(d, out, bias=bias).double()
    randomise(linear, seed)
    return linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("degree", [1, 2])
def test_free_start_is_the_least_squares_fit(degree: int, bias: bool) -> None:
    linear, x = _linear(4, 3), draw(300, 4, seed=1)
    with default_dtype(torch.float64):
        config = EUGenConfig(8, degree, norm=False, bias=bias, projection="orthogonal")
        layer = EUGenLinear.from_linear(linear, "relu", config, inputs=x)
    plus = np.concatenate([x.numpy(), np.ones((300, 1)), np.zeros((300, 1))], axis=1)
    columns = []
    for i in range(1, degree + 1):
        g = projections(layer, "projection")
        columns.append(np.maximum(np.prod([plus @ g[i, j].T for j in range(1, i + 1)], axis=0), 0.0))
    phi = np.concatenate([*columns, np.ones((300, 1))] if bias else columns, axis=1)
    y = np.maximum(x.numpy() @ array(linear.weight).T + array(linear.bias), 0.0)
    solution = np.linalg.lstsq(phi, y, rcond=None)[0]
    np.testing.assert_allclose(array(layer(x)), phi @ solution, atol=2e-4 * np.abs(y).max())
    best = np.square(phi @ solution - y).sum()
    fitted = np.square(array(layer(x)) - y).sum()
    assert best * (1 - 1e-12) <= fitted <= best * (1 + 1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_more_features_fit_better(given: bool) -> None:
    linear, x = _linear(6, 4), draw(2000, 6, seed=2)
    y = torch.relu(linear(x))
    errors = {}
    for m in (8, 512):
        inputs = x if given else None
        layer = EUGenLinear.from_linear(linear, "relu", EUGenConfig(m), inputs=inputs)
        assert layer.weight.dtype == torch.float64
        errors[m] = (layer(x) - y).square().mean().item()
    assert errors[512] < 0.05 * errors[8]


def test_tied_start_carries_the_fitted_polynomial() -> None:
    """For the identity the polynomial is exactly z, whatever its degree, and the layer is unbiased for W x + b."""
    for degree in (1, 2, 3):
        np.testing.assert_allclose(polynomial_fit("identity", degree), [0, 1, *[0] * (degree - 1)], atol=1e-10)
    linear, x = _linear(3, 2), draw(2, 3, seed=5)
    draws = []
    with default_dtype(torch.float64):
        for seed in range(400):
            config = EUGenConfig(16, 2, weights="tied", seed=seed)
            layer = EUGenLinear.from_linear(linear, "identity", config)
            draws.append(array(layer(x)))
        np.testing.assert_allclose(array(layer.coefficients) * 16, [1.0, 0.0], atol=1e-10)
    errors = np.std(draws, axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - array(linear(x))) < 4.5 * errors)


def test_tied_start_of_an_odd_function_needs_no_bias() -> None:
    """a_0 of an odd function is 0 up to rounding: bias=False must be possible."""
    linear = _linear(3, 2, bias=False)
    for function in ("identity", "sin", "tanh"):
        layer = EUGenLinear.from_linear(linear, function, EUGenConfig(8, weights="tied", bias=False))
        assert layer.bias is None


def test_tied_start_keeps_float64_projections_and_weights() -> None:
    linear = _linear(3, 2)
    layer = EUGenLinear.from_linear(linear, "relu", EUGenConfig(8, weights="tied"))
    assert torch.equal(layer.weight, linear.weight)


# ---- gradients


@pytest.mark.parametrize(
    "config",
    [
        EUGenConfig(3, 1, "softplus", "identity", "free"),
        EUGenConfig(2, 2, "tanh", "sin", "tied"),
        EUGenConfig(2, 2, "gelu", "tanh", "separate", shared=False),
        EUGenConfig(2, 3, "identity", "identity", "tied", norm=False, bias=False),
    ],
    ids=lambda c: f"{c.weights}-{c.degree}",
)
def test_gradients_and_double_gradients(config: EUGenConfig) -> None:
    with default_dtype(torch.float64):
        layer = EUGenLinear(3, 2, config)
    randomise(layer, seed=1)
    names = [n for n, _ in layer.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    x = draw(2, 3, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


@pytest.mark.parametrize("norm", [False, True])
def test_gradients_through_a_graph(norm: bool) -> None:
    with default_dtype(torch.float64):
        config = EUGenConfig(2, 2, "tanh", norm=norm)
        layers = {"a": EUGenLinear(2, 5, config), "b": EUGenLinear(7, 2, EUGenConfig(2, 1, "softplus", norm=norm))}
        graph = LayerGraph(layers, {"a": [0], "b": ["a", 0]}, [2], ["b"])
    randomise(graph, seed=2)
    names = [n for n, _ in graph.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in graph.parameters())

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(graph, dict(zip(names, parameters, strict=True)), (x,))[0]

    x = draw(2, 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


def test_the_norms_gradient_at_the_origin_is_zero() -> None:
    """Phi = Id, k = 1: dy/dx = A (G + n x^T/|x|), so what is left at x = 0 is A G."""
    layer = EUGenLinear(3, 2, EUGenConfig(4, phi="identity"))
    randomise(layer, seed=0)
    x = torch.zeros(1, 3, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v)[0], x)[:, 0]
    torch.testing.assert_close(jacobian, (layer.weight @ layer.projection).detach())
    layer(x).sum().backward()
    assert torch.equal(layer.projection_norm.grad, torch.zeros(4))
    hessian = torch.autograd.functional.hessian(lambda v: layer(v).sum(), x)
    assert torch.isfinite(hessian).all()
    mixed = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]], requires_grad=True)
    layer(mixed).sum().backward()
    direction = mixed.new_tensor([0.6, 0.8, 0.0])
    expected = (layer.weight @ (layer.projection + layer.projection_norm[:, None] * direction)).sum(dim=0)
    torch.testing.assert_close(mixed.grad[1], expected.detach())


# ---- shapes, dtypes, saving


@pytest.mark.parametrize("config", [EUGenConfig(4, 2), EUGenConfig(4, 2, weights="tied", shared=False)])
def test_batch_shapes(config: EUGenConfig) -> None:
    layer = EUGenLinear(3, 5, config)
    randomise(layer, seed=1)
    x = draw(2, 3, 3).float()
    y = layer(x)
    assert y.shape == (2, 3, 5)
    np.testing.assert_allclose(
        array(y).reshape(6, 5), eugen_numpy(layer, x.numpy().reshape(6, 3)), rtol=1e-4, atol=1e-5
    )
    assert layer(x[0, 0]).shape == (5,)
    empty = torch.zeros(0, 3, requires_grad=True)
    assert layer(empty).shape == (0, 5)
    layer(empty).sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros_like(layer.weight))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_dtypes_are_kept_and_agree(dtype: torch.dtype, tolerance: float) -> None:
    with default_dtype(torch.float64):
        layer = EUGenLinear(6, 4, EUGenConfig(8, 2, weights="tied"))
    randomise(layer, seed=2, spread=0.3)
    x = draw(10, 6, seed=1)
    truth = eugen_numpy(layer, x.numpy())
    y = layer.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert np.abs(array(y) - truth).max() < tolerance * np.abs(truth).max()


@pytest.mark.parametrize("config", [SETTINGS[2], SETTINGS[8], SETTINGS[12], SETTINGS[7]], ids=lambda c: c.weights)
@pytest.mark.parametrize("fixed", [True, False])
def test_saved_layers_give_the_same_output_bit_for_bit(config: EUGenConfig, fixed: bool) -> None:
    config = replace(config, train_projection=not fixed)
    layer = EUGenLinear(5, 4, replace(config, seed=1))
    other = EUGenLinear(5, 4, replace(config, seed=2))
    x = draw(9, 5).float()
    assert not torch.equal(layer(x), other(x))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert torch.equal(layer(x), other(x))
    assert int(other.seed) == 1


def test_every_activation_can_be_phi() -> None:
    x = draw(3, 2)
    for name in FUNCTIONS:
        with default_dtype(torch.float64):
            layer = EUGenLinear(2, 2, EUGenConfig(3, 2, phi=name))
        np.testing.assert_allclose(array(layer(x)), eugen_numpy(layer, x.numpy()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", ["free", "separate"])
def test_a_fixed_projection_still_sees_the_norm(weights: str) -> None:
    settings = {"num_features": 6, "norm": True, "weights": weights}
    fixed = EUGenLinear(4, 3, EUGenConfig(**settings, train_projection=False))
    trained = EUGenLinear(4, 3, EUGenConfig(**settings))
    assert fixed.projection_norm is not None
    assert trained.projection_norm is not None
    assert (fixed.projection_norm != 0).all(), "a column that stays zero would cost its multiply-adds for nothing"
    assert (trained.projection_norm == 0).all(), "a trained column starts at zero"
    fitted = EUGenLinear.from_linear(torch.nn.Linear(4, 3), "relu", EUGenConfig(num_features=6, norm=True))
    assert fitted.projection_norm is not None
    assert (fitted.projection_norm != 0).all()
