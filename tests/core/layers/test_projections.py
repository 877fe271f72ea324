"""Random projections: their moments, orthogonality, determinism and refusals; and polynomial fits of activations."""

import math

import numpy as np
import pytest
import torch
from oracles import FUNCTIONS
from scipy import stats

from eugen_nerf.core import ConfigError
from eugen_nerf.core.layers.activations import ACTIVATIONS, activation, polynomial_fit
from eugen_nerf.core.layers.projections import PROJECTIONS, sample_projection, seeded_generator


def seeded(seed: int) -> torch.Generator:
    return seeded_generator(seed, "test")


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_entries_have_mean_zero_and_variance_one(kind: str) -> None:
    rows, columns = 4000, 16
    g = sample_projection(kind, rows, columns, generator=seeded(3), dtype=torch.float64).numpy()
    assert g.shape == (rows, columns)
    # error bars from the rows, which are independent (or blocks of rows, for orthogonal ones)
    groups = g.reshape(-1, columns, columns).mean(axis=1) if kind == "orthogonal" else g
    assert np.all(np.abs(g.mean(axis=0)) < 4.5 * groups.std(axis=0) / math.sqrt(len(groups)))
    squares = (g**2).mean(axis=1)
    blocks = squares.reshape(-1, columns).mean(axis=1)
    assert abs(squares.mean() - 1) <= 4.5 * blocks.std() / math.sqrt(len(blocks))
    if kind == "rademacher":
        assert set(np.unique(g)) == {-1.0, 1.0}


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_entries_of_a_row_are_uncorrelated(kind: str) -> None:
    rows, columns = 6000, 6
    g = sample_projection(kind, rows, columns, generator=seeded(5), dtype=torch.float64).numpy()
    covariance = g.T @ g / rows
    off = covariance[~np.eye(columns, dtype=bool)]
    assert np.abs(off).max() < 4.5 / math.sqrt(rows)  # Var(g_a g_b) = 1 for independent unit-variance entries


@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
def test_rows_are_independent_draws(kind: str) -> None:
    g = sample_projection(kind, 12, 5000, generator=seeded(6), dtype=torch.float64).numpy()
    off = (g @ g.T / 5000)[~np.eye(12, dtype=bool)]
    assert np.abs(off).max() < 4.5 / math.sqrt(5000)
    assert np.abs(off).max() > 1e-4  # orthogonal rows would give 0


@pytest.mark.parametrize("rows", [3, 8, 20])
def test_orthogonal_rows_are_exactly_orthogonal_within_blocks(rows: int) -> None:
    d = 8
    g = sample_projection("orthogonal", rows, d, generator=seeded(1), dtype=torch.float64).numpy()
    assert g.shape == (rows, d)
    products = g @ g.T
    for r in range(rows):
        for s in range(rows):
            if r != s and r // d == s // d:
                assert abs(products[r, s]) < 1e-12 * np.linalg.norm(g[r]) * np.linalg.norm(g[s]) + 1e-13
    if rows > d:  # blocks differ: their rows are not copies or multiples of the first block's
        lengths = np.linalg.norm(g, axis=1)
        cosines = np.abs(products) / np.outer(lengths, lengths)
        assert cosines[:d, d:].max() < 0.999


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
def test_row_lengths_are_chi_and_entries_normal(kind: str) -> None:
    d = 5
    g = sample_projection(kind, 300 * d, d, generator=seeded(11), dtype=torch.float64).numpy()
    assert stats.kstest(np.linalg.norm(g, axis=1), stats.chi(d).cdf).pvalue > 1e-4
    assert stats.kstest(g[::d, 2], "norm").pvalue > 1e-4  # one row a block, so that the sample is independent


def test_orthogonal_directions_are_uniform() -> None:
    """The sign convention of QR would leave the first row's leading entries of one sign."""
    d, blocks = 4, 800
    g = sample_projection("orthogonal", d * blocks, d, generator=seeded(2)).numpy().reshape(blocks, d, d)
    positive = (g > 0).mean(axis=0)
    assert np.abs(positive - 0.5).max() < 4.5 * 0.5 / math.sqrt(blocks)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_seed_decides_and_dtypes_agree(kind: str) -> None:
    first, again = (sample_projection(kind, 7, 5, generator=seeded(4)) for _ in range(2))
    other = sample_projection(kind, 7, 5, generator=seeded(5))
    double = sample_projection(kind, 7, 5, generator=seeded(4), dtype=torch.float64)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(double.float(), first)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_global_random_state_is_neither_read_nor_moved(kind: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sample_projection(kind, 6, 4, generator=seeded(9))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(sample_projection(kind, 6, 4, generator=seeded(9)), first)


def test_no_rows_are_allowed() -> None:
    for kind in PROJECTIONS:
        assert sample_projection(kind, 0, 3, generator=seeded(0)).shape == (0, 3)


def test_refusals_name_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'sobol' is unknown.*gaussian, rademacher, orthogonal"):
        sample_projection("sobol", 2, 2, generator=seeded(0))
    with pytest.raises(ConfigError, match="got -1 x 3"):
        sample_projection("gaussian", -1, 3, generator=seeded(0))
    with pytest.raises(ConfigError, match="got 2 x 0"):
        sample_projection("orthogonal", 2, 0, generator=seeded(0))
    with pytest.raises(ConfigError, match=r"'swish' is unknown.*relu"):
        activation("swish")


def test_activations_against_numpy() -> None:
    z = np.linspace(-4, 4, 41)
    assert set(FUNCTIONS) == set(ACTIVATIONS)
    for name, function in FUNCTIONS.items():
        np.testing.assert_allclose(activation(name)(torch.from_numpy(z)).numpy(), function(z), rtol=1e-12, atol=1e-14)


def test_polynomial_fit_of_relu_is_its_hermite_projection() -> None:
    """relu = 1/sqrt(2 pi) + z/2 + (z^2 - 1)/(2 sqrt(2 pi)) + ... in Hermite polynomials, scaled by homogeneity."""
    root = math.sqrt(2 * math.pi)
    np.testing.assert_allclose(polynomial_fit("relu", 0).numpy(), [1 / root], atol=1e-4)
    np.testing.assert_allclose(polynomial_fit("relu", 1).numpy(), [1 / root, 0.5], atol=1e-4)
    for s in (0.3, 1.0, 2.5):
        expected = [s / (2 * root), 0.5, 1 / (2 * root * s)]
        np.testing.assert_allclose(polynomial_fit("relu", 2, scale=s).numpy(), expected, rtol=1e-3)


def test_polynomial_fit_minimises_the_gaussian_error() -> None:
    """Normal equations by Gauss-Hermite quadrature: the residual is orthogonal to every power."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    scale = 0.8
    for name, function in (("tanh", np.tanh), ("sin", np.sin), ("gaussian", lambda z: np.exp(-z * z / 2))):
        a = polynomial_fit(name, 3, scale=scale).numpy()
        z = scale * nodes
        residual = function(z) - sum(a[i] * z**i for i in range(4))
        for power in range(4):
            assert abs((weights * residual * nodes**power).sum()) / weights.sum() < 1e-5


def test_polynomial_fit_refusals() -> None:
    for degree, scale in ((-1, 1.0), (2, 0.0), (2, -1.0), (2, math.inf), (2, math.nan)):
        with pytest.raises(ConfigError, match="degree >= 0 and scale > 0"):
            polynomial_fit("relu", degree, scale=scale)


def test_purposes_and_seeds_have_streams_of_their_own() -> None:
    """One seed for weights and for the inputs that they are tried on has made both the same numbers."""
    streams = [
        torch.rand(20_000, generator=seeded_generator(seed, purpose)).numpy()
        for seed in (0, 1, -1, 2**40)
        for purpose in ("weights", "inputs", "batches")
    ]
    streams += [torch.rand(20_000, generator=torch.Generator().manual_seed(seed)).numpy() for seed in (0, 1)]
    correlation = np.corrcoef(np.stack(streams)) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)
    assert torch.equal(
        torch.rand(9, generator=seeded_generator(3, "a")), torch.rand(9, generator=seeded_generator(3, "a"))
    )
