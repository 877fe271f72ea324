"""Products of two projections: their formulas, what scales as its input does, gradients, starts and the closed form."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from oracles import array, draw, randomise

from eugen_nerf.core import (
    ConversionConfig,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    NeRFShape,
    Replacement,
    build_variant,
)
from eugen_nerf.core.choices import Product
from eugen_nerf.core.fitting.layer_batches import LayerBatch, Replay
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.core.layers.compiled_products import COMPILES, can_join
from eugen_nerf.core.layers.products import MEAN_SQUARE, PRODUCTS, features_in_place, hadamard_products, joined

HOMOGENEOUS: tuple[Product, ...] = ("harmonic", "minimum")


def config(product: Product, m: int = 8, **settings: object) -> EUGenConfig:
    return EUGenConfig(m, 2, "identity", norm=False, product=product, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("product", PRODUCTS)
def test_products_are_their_formulas(product: str) -> None:
    sizes = [-1e4, -3.0, -1.0, -1e-2, -1e-5, 0.0, 1e-3, 0.5, 1.0, 2.0, 1e6]
    pairs = torch.cartesian_prod(torch.tensor(sizes).double(), torch.tensor(sizes).double())
    exact = [oracles.PRODUCTS[product](a, b) for a, b in pairs.tolist()]
    np.testing.assert_allclose(joined(pairs[:, 0], pairs[:, 1], product).numpy(), exact, rtol=1e-12)


def test_harmonic_is_equation_1_with_a_complex_projection() -> None:
    """k = 1, `Phi(z) = Re z Im z / |z|` beside `Re z`, both of one complex G; rows a and b are its two parts."""
    layer = EUGenLinear(5, 3, config("harmonic")).double()
    randomise(layer, 4)
    assert layer.projection_bias is not None
    rows = np.concatenate([array(layer.projection), array(layer.projection_bias)[:, None]], axis=1)
    x = draw(40, 5)
    z = np.concatenate([x.numpy(), np.ones((40, 1))], axis=1) @ (rows[:8] + 1j * rows[8:]).T
    features = np.concatenate([z.real, z.real * z.imag / np.abs(z)], axis=1)
    difference = array(layer.features(x)) - features
    assert np.abs(difference).max() < 5e-7 / np.abs(z).min()  # epsilon is 1e-6 beside |z|^2


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("shared", [True, False])
def test_in_place_they_are_the_same(product: str, shared: bool) -> None:
    for dtype, tolerance in (
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.bfloat16, 0.03),
        (torch.float16, 4e-3),
    ):
        u = (3 * draw(50, 12 if shared else 18, seed=1)).to(dtype)
        exact = hadamard_products(u.double(), 2, shared, product)
        made = features_in_place(u.clone(), 2, shared, "identity", product)
        assert made.dtype == dtype
        assert float((made.double() - exact).abs().max()) <= tolerance * float(exact.abs().max())


@pytest.mark.parametrize("product", PRODUCTS)
def test_what_is_homogeneous_scales_as_its_input_does(product: Product) -> None:
    """A network of such layers without biases: `f(s x) = s f(x)`, s > 0; the others do not."""
    shape = NeRFShape(9, 5, 4, 24, (2,), 0, 1, 18)
    graph = build_variant(shape, "eugen", Replacement((".*",), (10,), config(product, bias=False))).double()
    with torch.no_grad():
        for name in ("density", "rgb"):
            graph.layer(name).bias.zero_()
    x = [draw(30, 9), draw(30, 5, seed=1)]
    for scale in (2.0, 100.0):
        for y, scaled in zip(graph(*x), graph(*(scale * v for v in x)), strict=True):
            error = float((scaled / scale - y).norm() / y.norm())
            assert error < 1e-4 if product in HOMOGENEOUS else error > 0.1


@pytest.mark.parametrize("product", HOMOGENEOUS)
def test_gradients_are_bounded_at_the_origin_and_everywhere(product: str) -> None:
    """No partial derivative is above 1, whatever the sizes; a plain product's grow with the other factor."""
    magnitudes = torch.logspace(-18, 18, 13)
    pairs = torch.cartesian_prod(torch.cat([-magnitudes, torch.zeros(1), magnitudes]), magnitudes)
    for a, b in (pairs.T, pairs.flip(1).T):
        factors = [a.clone().requires_grad_(), b.clone().requires_grad_()]
        for gradient in torch.autograd.grad(joined(*factors, product).sum(), factors):
            assert gradient.isfinite().all()
            assert float(gradient.abs().max()) <= 1 + 1e-5
    zero = torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    layer = EUGenLinear(5, 3, config(product, bias=False)).double()  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(layer(zero).sum(), zero)
    assert gradient.isfinite().all()
    assert float(gradient.norm()) <= 2 * float(layer.weight.abs().sum()) * float(layer.projection.norm(dim=1).max())


@pytest.mark.parametrize("product", PRODUCTS)
def test_gradients_and_their_gradients(product: str) -> None:
    """Signed distances are trained through the gradient in the inputs, so second derivatives are needed too."""
    a, b = (draw(6, seed=seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(lambda a, b: joined(a, b, product), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: joined(a, b, product), (a, b))


@pytest.mark.skipif(not COMPILES, reason="numba is not installed")
@pytest.mark.parametrize("product", ["harmonic", "minimum", "clamped"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.02)])
def test_compiled_loops_are_the_formulas(product: str, dtype: torch.dtype, tolerance: float) -> None:
    """Values, gradients, and gradients of gradients, by one thread and by two."""
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        u = (2 * draw(3000, 14, seed=3)).to(dtype).requires_grad_()
        exact = u.detach().double().requires_grad_()
        assert can_join(u, product)
        assert not can_join(exact, product)
        found, truth = (hadamard_products(v, 2, True, product) for v in (u, exact))
        weights = draw(3000, 14, seed=4).to(dtype)
        pulled = torch.autograd.grad((found * weights).sum(), u, retain_graph=True)[0]
        (pulled_twice,) = torch.autograd.grad((found * weights).sum(), u, create_graph=True)
        (expected,) = torch.autograd.grad((truth * weights.double()).sum(), exact, create_graph=True)
        pairs = [(found, truth), (pulled, expected), (pulled_twice, expected)]
        if product == "harmonic" and dtype == torch.float32:
            second = [torch.autograd.grad(g.square().sum(), v)[0] for g, v in ((pulled_twice, u), (expected, exact))]
            pairs.append((second[0], second[1]))
        for ours, theirs in pairs:
            assert ours.dtype == dtype
            size = float(theirs.detach().abs().quantile(0.99))
            assert float((ours.detach().double() - theirs.detach()).abs().max()) <= 10 * tolerance * size
    torch.set_num_threads(before)


@pytest.mark.skipif(not COMPILES, reason="numba is not installed")
@pytest.mark.parametrize("product", ["harmonic", "minimum", "clamped"])
def test_compiled_loops_pass_on_what_is_no_number(product: str) -> None:
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 1.5, -0.5])
    a, b = torch.cartesian_prod(odd, odd).T
    for dtype in (torch.float32, torch.bfloat16):
        u = torch.stack([a, b], dim=1).to(dtype)
        made = features_in_place(u.clone(), 2, True, "identity", product)
        torch.testing.assert_close(made[:, 1], joined(u[:, 0], u[:, 1], product), equal_nan=True, rtol=0.01, atol=0)


def test_they_run_in_inference_mode_and_beside_one_another() -> None:
    shape, replacement = NeRFShape(9, 5, 3, 24, (), 0, 1, 18), Replacement((".*",), (10,), config("harmonic"))
    graph = build_variant(shape, "eugen", replacement)
    x = [draw(5000, 9).float(), draw(5000, 5, seed=1).float()]
    truth = [y.detach() for y in graph(*x)]
    with torch.inference_mode():
        for y, expected in zip(graph(*x), truth, strict=True):
            torch.testing.assert_close(y, expected)
    with ThreadPoolExecutor(2) as threads, torch.no_grad():
        halves = list(threads.map(lambda part: graph.collapse()(*(v[part::2] for v in x)), range(2)))
    for part, outputs in enumerate(halves):
        for y, expected in zip(outputs, truth, strict=True):
            torch.testing.assert_close(y.detach(), expected[part::2])


def test_half_precision_does_not_overflow() -> None:
    a, b = torch.tensor([3e4, -500.0], dtype=torch.float16), torch.tensor([-3e4, 1200.0], dtype=torch.float16)
    for product in HOMOGENEOUS:
        expected = [oracles.PRODUCTS[product](float(x), float(y)) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(joined(a, b, product).double().numpy(), expected, rtol=2e-3)


@pytest.mark.parametrize("product", PRODUCTS)
def test_mean_squares_are_those_that_the_start_counts_on(product: str) -> None:
    square = joined(draw(200_000), draw(200_000, seed=1), product).square().mean()
    assert float(square) == pytest.approx(MEAN_SQUARE[product], rel=0.02)


@pytest.mark.parametrize("product", HOMOGENEOUS)
def test_the_start_keeps_the_size_of_values(product: Product) -> None:
    """Through ten layers, by Kaiming's start."""
    x = y = draw(200, 256)
    for seed in range(10):
        y = EUGenLinear(256, 256, config(product, 128, bias=False, seed=seed)).double()(y).detach()
    assert 0.6 < float(y.square().mean() / x.square().mean()) < 1.7


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_closed_form_finds_a_layer_of_its_own_kind(product: Product) -> None:
    """Outputs of a layer are fitted exactly by another with the same projections (Eq. 31)."""
    old = DenseLinear(6, 5, "relu").double()
    truth = EUGenLinear(6, 5, config(product, 4, seed=3)).double()
    randomise(truth, 1)
    eugen, x = config(product, 4), draw(400, 6)
    recipe = recipe_named("random")
    layer = recipe.new_layer(old, 4, eugen, seed=3)
    assert isinstance(layer, EUGenLinear)
    truth.projection.data.copy_(layer.projection)
    truth.projection_bias.data.copy_(layer.projection_bias)  # type: ignore[union-attr, arg-type]
    y = truth(x).detach()
    replay = Replay(
        lambda: (LayerBatch(p, q, None, i == 4) for i, (p, q) in enumerate(zip(x.split(80), y.split(80), strict=True)))
    )
    error, _ = recipe.fit(layer, old, replay, torch.eye(5).double(), ConversionConfig(recipe="random", eugen=eugen))
    assert error < 1e-12
    torch.testing.assert_close(layer.weight, truth.weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias, truth.bias, rtol=1e-5, atol=1e-5)


def test_an_unbiased_start_has_the_plain_product() -> None:
    """Thm 3.1 holds for it alone, as it holds for no outer function alone."""
    linear, settings = torch.nn.Linear(3, 2), config("harmonic", 64, weights="tied")
    layer = EUGenLinear.from_linear(linear, "relu", settings)
    assert layer.config.product == "plain"
    x = draw(5, 3).float()
    torch.testing.assert_close(layer(x), EUGenLinear.from_linear(linear, "relu", replace(settings, product="plain"))(x))
