"""What the paper proves (Thm 3.1-3.3, Sec. 3.1), by Monte Carlo with error bars."""

import math

import numpy as np
import pytest
import torch
from oracles import default_dtype, estimate, theorem_variance

from eugen_nerf.core import ConfigError, EUGenConfig, EUGenLinear

W = np.array([[0.5, -0.3, 0.2], [-0.4, 0.1, 0.6]])
B = np.array([0.3, -0.2])
X = np.array([[0.7, 0.4, -0.5], [-0.2, 0.9, 0.3]])
POLYNOMIALS = ([0.7], [0.4, -1.5], [0.0, 0.0, 1.2], [-0.3, 0.8, -1.1], [0.5, 0.0, 0.0, -1.3], [0.0, -1.0, 0.6, 0.4])


@pytest.mark.parametrize("projection", ["gaussian", "rademacher", "orthogonal"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("coefficients", POLYNOMIALS, ids=str)
def test_unbiased_estimate_of_polynomials(projection: str, shared: bool, coefficients: list[float]) -> None:
    """Thm 3.1: the mean over seeds is f(W x + b), negative and missing coefficients included."""
    seeds, m = 260, 6
    draws = np.zeros((seeds, 2, 2))
    x = torch.from_numpy(X)
    with default_dtype(torch.float64), torch.no_grad():
        for seed in range(seeds):
            config = EUGenConfig(num_features=m, projection=projection, shared=shared, seed=seed)
            layer = EUGenLinear.from_polynomial(
                3, 2, coefficients, config, weight=torch.from_numpy(W), bias=torch.from_numpy(B)
            )
            draws[seed] = layer(x).numpy()
    z = X @ W.T + B
    truth = sum(a * z**i for i, a in enumerate(coefficients))
    errors = draws.std(axis=0, ddof=1) / math.sqrt(seeds)
    assert np.all(np.abs(draws.mean(axis=0) - truth) <= 4.5 * errors + 1e-12)
    assert errors.max() < 0.25


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("m", [1, 2, 4])
def test_orthogonal_rows_leave_degree_two_unbiased(m: int, shared: bool) -> None:
    """The rows of G_21 and G_22 that meet in one product must be independent, so they may share no orthogonal block.

    Two orthogonal directions in one product give d / (d + 2) of the truth: at d = 4 a third less.
    """
    w = np.array([0.6, 0.8, 0.0, 0.0])
    seeds = 1200
    kind = {"projection": "orthogonal", "shared": shared, "bias": False, "norm": False, "num_features": m}
    draws = [estimate([0.0, 0.0, 1.0], w, w, EUGenConfig(seed=s, **kind)) for s in range(seeds)]
    assert abs(np.mean(draws) - 1.0) < 4.5 * np.std(draws) / math.sqrt(seeds)


@pytest.mark.parametrize(("projection", "tau"), [("gaussian", 3.0), ("rademacher", 1.0)])
@pytest.mark.parametrize("coefficients", [[0.0, 1.3], [0.0, 0.0, -0.8], [0.0, -1.0, 0.7]], ids=str)
def test_variance_formula_with_independent_entries(projection: str, tau: float, coefficients: list[float]) -> None:
    """Thm 3.2: the layer's m features are m independent draws of the estimator at m = 1."""
    m, d = 200_000, 4
    rng = np.random.default_rng(7)
    w, x = rng.normal(size=d) * 0.5, rng.normal(size=d) * 0.6
    config = EUGenConfig(num_features=m, projection=projection, shared=False, bias=False, norm=False, seed=21)
    with default_dtype(torch.float64), torch.no_grad():
        layer = EUGenLinear.from_polynomial(d, 1, coefficients, config, weight=torch.from_numpy(w)[None])
        terms = layer.weight_features()[0] * layer.features(torch.from_numpy(x)[None])[0]
        total = float(layer(torch.from_numpy(x)[None]))
    draws = m * terms.reshape(len(coefficients) - 1, m).sum(dim=0).numpy()
    assert draws.mean() == pytest.approx(total, rel=1e-9)  # these are the layer's own terms
    variance = theorem_variance(coefficients, w, x, tau)
    centred = (draws - draws.mean()) ** 2
    error = centred.std() / math.sqrt(m)
    assert abs(centred.mean() - variance) < 4.5 * error
    assert error < 0.05 * variance


def test_variance_falls_as_one_over_m() -> None:
    w, x = np.array([0.5, -0.2, 0.4]), np.array([0.3, 0.8, -0.5])
    seeds, coefficients = 1200, [0.0, 1.0]
    for m in (2, 32):
        kind = {"num_features": m, "shared": False, "bias": False, "norm": False}
        draws = np.array([estimate(coefficients, w, x, EUGenConfig(seed=s, **kind)) for s in range(seeds)])
        centred = (draws - draws.mean()) ** 2
        expected = theorem_variance(coefficients, w, x, 3.0) / m
        assert abs(centred.mean() - expected) < 4.5 * centred.std() / math.sqrt(seeds)


@pytest.mark.parametrize(
    ("coefficients", "m", "eps"), [([0.0, 1.0], 64, 1.0), ([0.0, 1.0], 300, 0.4), ([0.0, 0.5, -1.0], 400, 1.0)], ids=str
)
def test_tail_bound(coefficients: list[float], m: int, eps: float) -> None:
    """Thm 3.3 with Rademacher entries (c = 1) where the bound is below 0.5."""
    w, x = np.array([0.8, 0.6]), np.array([0.6, 0.8])
    k, d, dot = len(coefficients) - 1, 2, float(w @ x)
    eta1 = max(abs(a * dot**i) for i, a in enumerate(coefficients) if i)
    eta2 = max(abs(a) * (d * np.linalg.norm(x) * np.linalg.norm(w)) ** i for i, a in enumerate(coefficients) if i)
    bound = 2 * math.exp(-m * eps**2 / (2 * (eta1 + eta2) ** 2 * k**2))
    assert bound < 0.5
    kind = {"num_features": m, "projection": "rademacher", "shared": False, "bias": False, "norm": False}
    truth = sum(a * dot**i for i, a in enumerate(coefficients))
    errors = [abs(estimate(coefficients, w, x, EUGenConfig(seed=s, **kind)) - truth) for s in range(300)]
    assert np.mean(np.array(errors) >= eps) <= bound
    assert max(errors) > 0.05  # an estimate, not the truth itself


def test_orthogonal_rows_reduce_the_error_of_the_linear_term() -> None:
    """Sec. 3.1: a few percent of the iid error is left at m = d, about three quarters at m = d / 4."""
    d = 64
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.normal(size=(48, d)) / math.sqrt(d))
    x = torch.from_numpy(rng.normal(size=(48, d)))
    truth = x @ w.T

    def error(projection: str, m: int) -> float:
        total = 0.0
        for seed in range(40):
            config = EUGenConfig(num_features=m, projection=projection, bias=False, norm=False, seed=seed)
            layer = EUGenLinear.from_polynomial(d, 48, [0.0, 1.0], config, weight=w)
            total += float((layer(x) - truth).square().mean()) / 40
        return total

    with default_dtype(torch.float64), torch.no_grad():
        assert error("orthogonal", d) < 0.08 * error("gaussian", d)
        assert 0.6 < error("orthogonal", d // 4) / error("gaussian", d // 4) < 0.9


def test_polynomial_refusals() -> None:
    config = EUGenConfig(num_features=4)
    with pytest.raises(ConfigError, match="constant coefficient"):
        EUGenLinear.from_polynomial(3, 2, [], config)
    with pytest.raises(ConfigError, match=r"a_0 != 0 needs bias=True"):
        EUGenLinear.from_polynomial(3, 2, [1.0, 1.0], EUGenConfig(num_features=4, bias=False))
    with pytest.raises(ConfigError, match=r"weight has shape \(3, 2\), the layer needs \(2, 3\)"):
        EUGenLinear.from_polynomial(3, 2, [0.0, 1.0], config, weight=torch.zeros(3, 2))


def test_a_bias_inside_f_is_never_dropped_silently() -> None:
    """Without the bias entry, f(W x + b) is not what is estimated: the layer must refuse b."""
    config = EUGenConfig(num_features=4, bias=False)
    with pytest.raises(ConfigError, match="bias"):
        EUGenLinear.from_polynomial(3, 2, [0.0, 1.0], config, weight=torch.ones(2, 3), bias=torch.ones(2))
