"""Moments as a stream and the closed-form solutions made from them, against numpy on the samples themselves."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles import draw

from eugen_nerf.core import ConfigError
from eugen_nerf.core.least_squares import MomentSums, best_ridge, greedy_columns, ridge_solution

pytestmark = pytest.mark.processor

Array = np.ndarray


def moments_of(phi: Array, y: Array, *, bias: bool = True) -> MomentSums:
    sums = MomentSums(phi.shape[1], y.shape[1], bias=bias)
    sums.add(torch.from_numpy(phi), torch.from_numpy(y))
    return sums


def problem(n: int, features: int, targets: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n, features)) * np.geomspace(0.1, 10, features) + rng.normal(size=features)
    return phi, phi @ rng.normal(size=(features, targets)) + 2 + 0.3 * rng.normal(size=(n, targets))


def residual(phi: Array, y: Array, bias: bool) -> float:
    """Least-squares error of all columns of phi, by numpy."""
    full = np.concatenate([phi, np.ones((len(phi), 1))], axis=1) if bias else phi
    if full.shape[1] == 0:
        return float(np.square(y).sum())
    return float(np.square(full @ np.linalg.lstsq(full, y, rcond=None)[0] - y).sum())


@pytest.mark.parametrize("bias", [True, False])
def test_a_stream_equals_one_batch_and_the_definition(bias: bool) -> None:
    phi, y = problem(97, 4, 3)
    stream = MomentSums(4, 3, bias=bias)
    for start in range(0, 97, 10):
        stream.add(torch.from_numpy(phi[start : start + 10]), torch.from_numpy(y[start : start + 10]))
    stream.add(torch.zeros(0, 4), torch.zeros(0, 3))
    full = np.concatenate([phi, np.ones((97, 1))], axis=1) if bias else phi
    for sums in (stream, moments_of(phi, y, bias=bias)):
        np.testing.assert_allclose(sums.gram.numpy(), full.T @ full, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(sums.cross.numpy(), full.T @ y, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(sums.energy.numpy(), np.square(y).sum(axis=0), rtol=1e-12)
        assert sums.count == 97
        assert sums.variation() == pytest.approx(np.square(y - y.mean(axis=0)).sum(), rel=1e-10)


def test_short_dtypes_are_summed_in_float64() -> None:
    phi = torch.full((4096, 1), 0.1)
    sums = MomentSums(1, 1, bias=False)
    sums.add(phi, phi)
    assert sums.gram.item() == pytest.approx(4096 * float(phi[0, 0].double()) ** 2, rel=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_squared_error_from_the_moments_is_the_direct_one(bias: bool) -> None:
    phi, y = problem(60, 5, 2)
    a, b = draw(2, 5, seed=1), draw(2, seed=2)
    direct = np.square(phi @ a.numpy().T + (b.numpy() if bias else 0) - y).sum()
    assert moments_of(phi, y, bias=bias).squared_error(a, b if bias else None) == pytest.approx(direct, rel=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.5])
def test_ridge_against_numpy(ridge: float, bias: bool) -> None:
    """The augmented least-squares problem: one more row sqrt(penalty) e_i a feature, none for the bias."""
    phi, y = problem(80, 5, 3, seed=4)
    penalty = ridge * np.square(phi).sum() / 5
    full = np.concatenate([phi, np.ones((80, 1))], axis=1) if bias else phi
    rows = np.sqrt(penalty) * np.eye(full.shape[1])[:5]
    left, right = np.concatenate([full, rows]), np.concatenate([y, np.zeros((5, 3))])
    expected = np.linalg.lstsq(left, right, rcond=None)[0]
    a, b = ridge_solution(moments_of(phi, y, bias=bias), ridge=ridge)
    np.testing.assert_allclose(a.numpy(), expected[:5].T, rtol=1e-7, atol=1e-9)
    if bias:
        np.testing.assert_allclose(b.numpy(), expected[5], rtol=1e-7, atol=1e-9)
    else:
        assert b is None


def test_ridge_has_no_unit() -> None:
    """Features a thousand times as large, with the same `ridge`: the same fit."""
    phi, y = problem(80, 4, 2)
    a, b = ridge_solution(moments_of(phi, y), ridge=0.1)
    scaled, shift = ridge_solution(moments_of(1000 * phi, y), ridge=0.1)
    np.testing.assert_allclose(1000 * scaled.numpy(), a.numpy(), rtol=1e-9)
    np.testing.assert_allclose(shift.numpy(), b.numpy(), rtol=1e-9)


@pytest.mark.parametrize(("n", "features"), [(60, 4), (60, 9), (5, 9)])
def test_a_singular_system_takes_the_moore_penrose_solution(n: int, features: int) -> None:
    """Columns of one length, the last a combination of the others (or fewer samples than features)."""
    phi = np.random.default_rng(n + features).normal(size=(n, features))
    phi[:, -1] = phi[:, :2].sum(axis=1)
    phi /= np.linalg.norm(phi, axis=0)
    y = np.random.default_rng(1).normal(size=(n, 2))
    a, _ = ridge_solution(moments_of(phi, y, bias=False), ridge=0.0)
    np.testing.assert_allclose(a.numpy(), (np.linalg.pinv(phi, rcond=1e-9) @ y).T, rtol=1e-6, atol=1e-8)


def test_singular_systems_of_any_scale_reach_the_least_squares_error() -> None:
    """Dead, doubled and badly scaled features, with a bias: nothing blows up and the fit is the best there is."""
    phi, y = problem(70, 5, 2)
    phi = np.concatenate([phi, np.zeros((70, 1)), 1e-5 * phi[:, :1], 3 * np.ones((70, 1))], axis=1)
    sums = moments_of(phi, y)
    a, b = ridge_solution(sums, ridge=0.0)
    direct = np.square(phi @ a.numpy().T + b.numpy() - y).sum()
    assert direct == pytest.approx(residual(phi, y, True), rel=1e-8)
    assert float(a[:, 5].abs().max()) < 1e-9  # the dead feature
    # fewer samples than features still gives numbers, and here an exact fit
    few = moments_of(phi[:3], y[:3])
    assert few.squared_error(*ridge_solution(few, ridge=0.0)) < 1e-8 * np.square(y[:3]).sum()


def test_best_ridge_takes_the_smallest_held_out_error() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 1))
    phi, unseen = rng.normal(size=(34, 30)), rng.normal(size=(200, 30))
    y, y_unseen = (x @ truth + 3 * rng.normal(size=(len(x), 1)) for x in (phi, unseen))
    fit, held_out, ridges = moments_of(phi, y), moments_of(unseen, y_unseen), (1e-9, 1e-3, 1e-1, 1.0, 100.0)

    def direct(ridge: float) -> float:
        a, b = ridge_solution(fit, ridge=ridge)
        return float(np.square(unseen @ a.numpy().T + b.numpy() - y_unseen).sum())

    errors = [direct(r) for r in ridges]
    best = int(np.argmin(errors))
    assert 0 < best < len(ridges) - 1  # neither end wins, so the choice says something
    a, b, ridge, relative = best_ridge(fit, held_out, ridges)
    assert ridge == ridges[best]
    assert relative == pytest.approx(errors[best] / np.square(y_unseen - y_unseen.mean()).sum(), rel=1e-8)
    expected_a, expected_b = ridge_solution(fit, ridge=ridge)
    assert torch.equal(a, expected_a)
    assert torch.equal(b, expected_b)


def test_refusals() -> None:
    sums = MomentSums(3, 2)
    with pytest.raises(ConfigError, match="needs samples and got none"):
        ridge_solution(sums, ridge=0.1)
    for bad in (float("nan"), float("inf")):
        for phi, y in ((torch.full((2, 3), bad), torch.ones(2, 2)), (torch.ones(2, 3), torch.full((2, 2), bad))):
            with pytest.raises(ConfigError, match="not finite"):
                sums.add(phi, y)
    assert sums.count == 0  # what was refused left no trace
    assert not sums.gram.any()
    sums.add(torch.ones(2, 3), torch.ones(2, 2))
    with pytest.raises(ConfigError, match=r"at least 0, got -0\.1"):
        ridge_solution(sums, ridge=-0.1)
    with pytest.raises(ConfigError, match="no held-out samples"):
        best_ridge(sums, MomentSums(3, 2))
    for count in (0, 4, -1):
        with pytest.raises(ConfigError, match=f"cannot choose {count} features of 3 rows"):
            greedy_columns(sums, count)


# ---- greedy choice of features


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_brute_force_forward_selection(seed: int, bias: bool) -> None:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(50, 7)) @ rng.normal(size=(7, 7)) + 2 * rng.normal(size=7)
    y = phi @ rng.normal(size=(7, 3)) + rng.normal(size=(50, 3))
    expected: list[int] = []
    for _ in range(7):
        rest = [c for c in range(7) if c not in expected]
        expected.append(min(rest, key=lambda c: residual(phi[:, [*expected, c]], y, bias)))
    sums = moments_of(phi, y, bias=bias)
    chosen = greedy_columns(sums, 7).tolist()
    assert chosen == expected
    errors = [residual(phi[:, chosen[:m]], y, bias) for m in range(8)]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(errors))
    for m in range(1, 7):
        assert greedy_columns(sums, m).tolist() == chosen[:m]  # nested


def test_greedy_recovers_a_planted_support() -> None:
    rng = np.random.default_rng(2)
    phi = rng.normal(size=(400, 30)) * np.geomspace(1e-3, 1e3, 30)  # a feature's scale must not decide
    support = [3, 11, 17, 26]
    y = (phi[:, support] / np.linalg.norm(phi[:, support], axis=0)) @ np.diag([4.0, 3.0, 2.0, 1.0])
    y = y + 0.002 * rng.normal(size=y.shape)
    assert greedy_columns(moments_of(phi, y), 4).tolist() == support


def test_greedy_metric_measures_the_error_downstream() -> None:
    """Only the second target counts: the feature that explains the loud first one is left."""
    rng = np.random.default_rng(3)
    phi = rng.normal(size=(100, 3))
    y = np.stack([100 * phi[:, 0], phi[:, 2]], axis=1)
    sums = moments_of(phi, y)
    assert greedy_columns(sums, 1).tolist() == [0]
    assert greedy_columns(sums, 1, metric=torch.tensor([[0.0, 1.0]])).tolist() == [2]
    metric = rng.normal(size=(4, 2))
    mapped = y @ metric.T
    best = min(range(3), key=lambda c: residual(phi[:, [c]], mapped, True))
    assert greedy_columns(sums, 1, metric=torch.from_numpy(metric)).tolist() == [best]


def test_greedy_leaves_useless_features_for_last() -> None:
    rng = np.random.default_rng(5)
    phi = rng.normal(size=(200, 4))
    phi = np.concatenate([np.zeros((200, 1)), 7 * np.ones((200, 1)), phi, phi[:, :1]], axis=1)  # dead, constant, double
    y = phi[:, 2:6] @ rng.normal(size=(4, 2)) + 5
    chosen = greedy_columns(moments_of(phi, y), 7).tolist()
    assert sorted(chosen) == list(range(7))
    assert set(chosen[:4]) in ({2, 3, 4, 5}, {3, 4, 5, 6})
    best = min(residual(phi[:, [c]], y, True) for c in range(7))
    assert residual(phi[:, chosen[:1]], y, True) == pytest.approx(best, rel=1e-9)


def test_selected_moments_are_those_of_the_selected_columns() -> None:
    phi, y = problem(40, 6, 2)
    columns = [4, 1, 3]
    for bias in (True, False):
        part = moments_of(phi, y, bias=bias).select(torch.tensor(columns))
        whole = moments_of(phi[:, columns], y, bias=bias)
        np.testing.assert_allclose(part.gram.numpy(), whole.gram.numpy(), rtol=1e-12)
        np.testing.assert_allclose(part.cross.numpy(), whole.cross.numpy(), rtol=1e-12)
        a, b = ridge_solution(part, ridge=0.0)
        error = part.squared_error(a, b)
        assert error == pytest.approx(residual(phi[:, columns], y, bias), rel=1e-8)


def test_adding_to_selected_moments_leaves_the_others_alone() -> None:
    phi, y = problem(40, 4, 2)
    sums = moments_of(phi, y)
    energy = sums.energy.clone()
    sums.select(torch.tensor([0, 1])).add(torch.ones(3, 2), torch.ones(3, 2))
    assert torch.equal(sums.energy, energy)
