"""Hash grids, against tiny-cuda-nn's published formulas one vertex at a time, quadrature and autograd."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from oracles import array, draw, randomise
from torch import Tensor

from eugen_nerf.core import ConfigError, HashGrid
from eugen_nerf.core.encodings.hash_grid import PRECONDITION, gather_sum, pyramid

Array = np.ndarray
LOG2 = 9
# 4^3 = 64 and 7^3 = 343 vertices are indexed densely, 11^3 = 1331 and 64^3 are hashed into 512 rows
RESOLUTIONS = (4, 7, 11, 64)


def level_size(n: int, log2: int) -> int:
    return min((n**3 + 7) // 8 * 8, 2**log2)


def corners_scalar(point: Array, n: int, size: int) -> dict[int, float]:
    """Weight of each row of a level for one point, in Python integers and floats."""
    position = [float(v) * (n - 1) + 0.5 for v in point]
    low = [math.floor(p) for p in position]
    found: dict[int, float] = defaultdict(float)
    for steps in product((0, 1), repeat=3):
        x, y, z = (corner + step for corner, step in zip(low, steps, strict=True))
        weight = 1.0
        for p, corner, step in zip(position, low, steps, strict=True):
            weight *= p - corner if step else 1 - (p - corner)
        if n**3 <= size:
            row = (x + y * n + z * n * n) % size
        else:
            row = (x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)) % size
        found[row] += weight
    return found


def forward_scalar(grid: HashGrid, points: Array, widths: Array) -> Array:
    """Features level by level, then the levels' mean weights."""
    table, log2 = array(grid.table), int(math.log2(max(grid.sizes)))
    rows_of = np.split(table, np.cumsum(grid.sizes)[:-1])
    out = []
    for group, sigmas in zip(points, widths, strict=True):
        features, scales = [], []
        for n, rows in zip(grid.resolutions, rows_of, strict=True):
            assert len(rows) == level_size(n, log2)
            total, known = np.zeros(grid.features), 0.0
            for point, sigma in zip(group, sigmas, strict=True):
                weight = math.erf(1 / math.sqrt(8 * float(sigma) ** 2 * (n - 1) ** 2))
                known += weight / len(group)
                for row, part in corners_scalar(point, n, len(rows)).items():
                    total += weight * part * rows[row] / len(group)
            start = (grid.init_range / PRECONDITION) ** 2
            features.append(total)
            scales.append((2 * known - 1) * math.sqrt(start + float(np.mean(rows**2))))
        out.append(np.concatenate([*features, scales]) * PRECONDITION)
    return np.stack(out)


def random_grid(resolutions: tuple[int, ...] = RESOLUTIONS, features: int = 3, seed: int = 0) -> HashGrid:
    grid = HashGrid(resolutions, features, LOG2).double()
    randomise(grid, seed)
    return grid


def groups(n: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points in the unit cube and widths from far below the finest cell to above the coarsest."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random((n, size, 3))), torch.from_numpy(10 ** rng.uniform(-4, 0, (n, size)))


# ---- where the vertices are


def borders() -> Array:
    """The cube's corners, points on its faces, points on cells' faces of the dense levels."""
    exact = [*product((0.0, 1.0), repeat=3), (0.5, 0.0, 1.0), (1.0, 0.25, 0.75), (0.5, 0.5, 0.5), (1 / 6, 1 / 2, 5 / 6)]
    return np.array(exact)


@pytest.mark.parametrize("level", range(len(RESOLUTIONS)))
def test_rows_and_weights_are_tiny_cuda_nns(level: int) -> None:
    grid = HashGrid(RESOLUTIONS, 2, LOG2)
    n, size = RESOLUTIONS[level], grid.sizes[level]
    assert grid.hashed[level] == (n**3 > 2**LOG2)
    points = np.concatenate([borders(), np.random.default_rng(level).random((40, 3))])
    rows, weights = grid.corners(torch.from_numpy(points), level)
    assert rows.shape == weights.shape == (8, len(points))
    assert int(rows.min()) >= 0
    assert int(rows.max()) < size
    for i, point in enumerate(points):
        found, expected = np.zeros(size), np.zeros(size)
        np.add.at(found, rows[:, i].numpy(), array(weights[:, i]))
        for row, weight in corners_scalar(point, n, size).items():
            expected[row] += weight
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_hashes_at_large_coordinates_wrap_like_unsigned_integers() -> None:
    grid = HashGrid((8192,), 1, 21)
    points = np.concatenate([borders(), np.random.default_rng(0).random((100, 3))])
    rows, _ = grid.corners(torch.from_numpy(points), 0)
    for i, point in enumerate(points):
        assert {int(r) for r in rows[:, i]} == set(corners_scalar(point, 8192, 2**21))


def test_points_outside_are_moved_to_the_border() -> None:
    grid = random_grid()
    outside = torch.tensor([[[-0.3, 0.5, 1.7]]]).double()
    widths = torch.full((1, 1), 0.01).double()
    assert torch.equal(grid(outside, widths), grid(outside.clamp(0, 1), widths))


def test_a_weight_multiplies_all_corners() -> None:
    grid = HashGrid(RESOLUTIONS, 1, LOG2)
    points, weight = groups(5, 4)[0], draw(5, 4, seed=1)
    rows, plain = grid.corners(points, 1)
    same_rows, weighted = grid.corners(points, 1, weight)
    assert torch.equal(rows, same_rows)
    torch.testing.assert_close(weighted, plain * weight, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(plain.sum(dim=0), torch.ones(5, 4).double())


# ---- features


@pytest.mark.parametrize("size", [1, 6])
def test_features_against_scalar_arithmetic(size: int) -> None:
    grid = random_grid()
    points, widths = groups(7, size, seed=2)
    points[0, 0], points[1, 0] = torch.zeros(3), torch.ones(3)
    found = grid(points, widths)
    assert found.shape == (7, grid.out_features) == (7, 4 * (3 + 1))
    np.testing.assert_allclose(array(found), forward_scalar(grid, array(points), array(widths)), rtol=1e-11, atol=1e-12)


def test_float32_and_no_points() -> None:
    grid = random_grid().float()
    points, widths = groups(9, 6, seed=3)
    found = grid(points.float(), widths.float())
    assert found.dtype == torch.float32
    expected = forward_scalar(grid, array(points.float()), array(widths.float()))
    np.testing.assert_allclose(array(found), expected, rtol=0, atol=1e-4)
    assert grid(torch.zeros(0, 6, 3), torch.zeros(0, 6)).shape == (0, grid.out_features)


def test_the_pooled_features_are_a_mean_over_the_group() -> None:
    grid = random_grid()
    points, widths = groups(3, 6, seed=4)
    single = grid(points.reshape(18, 1, 3), widths.reshape(18, 1)).reshape(3, 6, -1).mean(dim=1)
    torch.testing.assert_close(grid(points, widths), single, rtol=1e-11, atol=1e-13)


# ---- the weight of a width


@pytest.mark.parametrize("cells", [0.05, 0.3, 1.0, 4.0])
def test_the_weight_is_the_gaussians_mass_within_one_cell(cells: float) -> None:
    """By the midpoint rule; read from the feature that holds the weight itself."""
    n = 11
    grid = random_grid((n,), 1)
    sigma, edge = cells / (n - 1), 0.5 / (n - 1)
    middle = (np.arange(20_000) + 0.5) / 20_000 * 2 * edge - edge
    density = np.exp(-(middle**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    mass = density.sum() * 2 * edge / 20_000
    spread = math.sqrt(float(np.mean(array(grid.table) ** 2)) + (grid.init_range / PRECONDITION) ** 2)
    feature = grid(torch.full((1, 1, 3), 0.4).double(), torch.full((1, 1), sigma).double())[0, -1]
    assert (feature.item() / (PRECONDITION * spread) + 1) / 2 == pytest.approx(mass, rel=1e-7)


@pytest.mark.parametrize("axes", [1, 3])
def test_down_weighting_goes_the_way_of_a_real_blur(axes: int) -> None:
    """The finest signal a level can hold, +1 and -1 on neighbouring vertices, blurred by quadrature over a Gaussian."""
    n, nodes = 32, 41
    grid = HashGrid((n,), 1, 15).double()
    index = np.arange(n)
    parity = sum(np.meshgrid(index, index, index, indexing="ij")[2 - axis] for axis in range(axes)) % 2  # x is fastest
    with torch.no_grad():
        grid.table.copy_(torch.from_numpy((1.0 - 2.0 * parity).reshape(-1, 1)))
    vertex = (16 - 0.5) / (n - 1)
    node = np.linspace(-4, 4, nodes)
    mass = np.exp(-(node**2) / 2) / np.exp(-(node**2) / 2).sum()
    offsets = np.array(list(product(node, repeat=axes)))
    masses = np.prod(np.array(list(product(mass, repeat=axes))), axis=1)

    def amplitude(points: Array, sigma: float) -> Array:
        widths = torch.full((len(points), 1), sigma).double()
        return array(grid(torch.from_numpy(points)[:, None], widths))[:, 0] / PRECONDITION

    centre = np.full((1, 3), vertex)
    assert amplitude(centre, 1e-9)[0] == pytest.approx(1, abs=1e-9)
    cells = [0.003, 0.05, 0.15, 0.3, 0.6, 1.2]
    ours, real = [], []
    for c in cells:
        sigma = c / (n - 1)
        points = np.full((len(offsets), 3), vertex)
        points[:, :axes] += sigma * offsets
        real.append(float(masses @ amplitude(points, 1e-9)))
        ours.append(amplitude(centre, sigma)[0])
    for values in (real, ours):
        assert 0.98 < values[0] <= 1 + 1e-12
        # strictly, once the Gaussian is wide enough to matter in float64
        assert all(later <= earlier for earlier, later in pairwise(values))
        assert all(later < earlier for earlier, later in pairwise(values[2:]))
    assert abs(real[-1]) < 0.05
    assert amplitude(centre, 1000 / (n - 1))[0] < 1e-3
    assert all(a >= b for a, b in zip(ours, real, strict=True))  # it damps less, and never amplifies


# ---- gradients


def plain_gather(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    return (weights[..., None] * table[index.long()]).sum(dim=-2)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_gather_sum_and_its_gradients_against_plain_indexing(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    index = torch.from_numpy(rng.integers(0, 6, (2, 5, 8))).to(dtype)  # eight out of six: repeats within and across
    table, weights, cotangents = draw(6, 3), draw(2, 5, 8, seed=1), draw(2, 5, 3, seed=2)
    results = []
    for function in (gather_sum, plain_gather):
        t, w = table.clone().requires_grad_(), weights.clone().requires_grad_()
        y = function(t, index, w)
        results.append((y.detach(), *torch.autograd.grad((y * cotangents).sum(), (t, w))))
    for ours, truth in zip(*results, strict=True):
        assert ours.shape == truth.shape
        torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(
        lambda t, w: gather_sum(t, index, w), (table.requires_grad_(), weights.requires_grad_())
    )


def test_gather_sum_gives_each_gradient_alone() -> None:
    index = torch.tensor([[0, 1, 1]])
    for wanted in (0, 1):
        leaves = [draw(3, 2), draw(1, 3, seed=1)]
        leaves[wanted].requires_grad_()
        (ours,) = torch.autograd.grad(gather_sum(leaves[0], index, leaves[1]).sum(), leaves[wanted])
        (truth,) = torch.autograd.grad(plain_gather(leaves[0], index, leaves[1]).sum(), leaves[wanted])
        torch.testing.assert_close(ours, truth)


def test_gradients_reach_table_points_and_widths() -> None:
    """By finite differences, for the pooled features: the weight feature takes the table's spread as a constant."""
    grid = random_grid((4, 11), 2)
    points = groups(3, 2, seed=6)[0].requires_grad_()
    known = torch.from_numpy(np.random.default_rng(7).random((2, 3, 2))).requires_grad_()
    table = grid.table.detach().clone().requires_grad_()

    def pooled(points: Tensor, known: Tensor, table: Tensor) -> Tensor:
        function = _Pool(grid)
        return torch.func.functional_call(function, {"grid.table": table}, (points, known))

    assert torch.autograd.gradcheck(pooled, (points, known, table), nondet_tol=0, fast_mode=True)
    widths = torch.full((3, 2), 0.05).double().requires_grad_()
    assert torch.autograd.gradcheck(grid, (points, widths))


class _Pool(torch.nn.Module):
    def __init__(self, grid: HashGrid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, points: Tensor, known: Tensor) -> Tensor:
        return self.grid.pool(points, known)


# ---- spread and decay


def test_the_weight_feature_follows_a_changed_table() -> None:
    grid = random_grid()
    points, widths = groups(4, 6, seed=8)
    before = grid.state_dict()["table"].clone()

    def check() -> Tensor:
        found = grid(points, widths)
        truth = forward_scalar(grid, array(points), array(widths))
        np.testing.assert_allclose(array(found), truth, rtol=1e-11, atol=1e-12)
        return found.detach()

    first = check()
    optimizer = torch.optim.Adam(grid.parameters(), lr=0.5)
    grid(points, widths).sum().backward()
    optimizer.step()
    assert float((check() - first)[:, -4:].abs().min()) > 1e-6
    grid.load_state_dict({"table": before})
    assert torch.equal(check(), first)
    for factor in (2, 3):  # fresh tensors of the same version
        grid.table = torch.nn.Parameter(factor * before)
        assert float((check() - first)[:, -4:].abs().min()) > 1e-6
    with torch.no_grad():
        grid.table.mul_(0.25)
    check()


def test_the_weight_feature_gives_the_table_no_gradient() -> None:
    grid = random_grid()
    points, widths = groups(4, 6, seed=9)
    out = grid(points, widths.requires_grad_())
    (table_grad,) = torch.autograd.grad(out[:, -4:].sum(), grid.table, retain_graph=True)
    assert not table_grad.any()
    (widths_grad,) = torch.autograd.grad(out[:, -4:].sum(), widths)
    assert bool((widths_grad <= 0).all())
    assert bool((widths_grad < 0).any())


def test_rendering_in_inference_mode_does_not_stop_training() -> None:
    grid = random_grid()
    points, widths = groups(4, 6, seed=10)
    with torch.inference_mode():
        rendered = grid(points, widths)
    trained = grid(points, widths.requires_grad_())
    trained.sum().backward()
    assert widths.grad is not None
    assert torch.equal(rendered, trained.detach())


def test_decay_is_the_sum_of_the_levels_means() -> None:
    grid = random_grid()
    levels = np.split(array(grid.table), np.cumsum(grid.sizes)[:-1])
    loss = grid.decay_loss()
    assert loss.item() == pytest.approx(sum(np.mean(level**2) for level in levels), rel=1e-12)
    assert loss.item() != pytest.approx(4 * np.mean(array(grid.table) ** 2), rel=1e-3)  # small levels count as much
    (gradient,) = torch.autograd.grad(loss, grid.table)
    expected = np.concatenate([2 * level / level.size for level in levels])
    np.testing.assert_allclose(array(gradient), expected, rtol=1e-12)


# ---- construction


def test_the_start_is_seeded_small_and_our_own() -> None:
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    one, same, other = (HashGrid((4, 40), 4, 12, 1e-2, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.table, same.table)
    assert not torch.equal(one.table, other.table)
    assert one.table.shape == (64 + 4096, 4)
    drawn = array(one.table).ravel() * PRECONDITION / 1e-2
    assert np.abs(drawn).max() <= 1
    # uniform: mean 0 and variance 1/3, to five standard errors
    assert abs(drawn.mean()) < 5 * math.sqrt(1 / 3 / drawn.size)
    assert abs(np.mean(drawn**2) - 1 / 3) < 5 * math.sqrt(4 / 45 / drawn.size)
    assert set(one.state_dict()) == {"table"}


def test_sizes_are_rounded_up_to_eight() -> None:
    assert HashGrid((2, 3, 4, 9), 1, 8).sizes == (8, 32, 64, 256)
    assert HashGrid((2, 3, 4, 9), 1, 8).hashed == (False, False, False, True)
    assert HashGrid((8,), 1, 9).hashed == (False,)  # 8^3 = 2^9 fits exactly


@pytest.mark.parametrize(
    ("resolutions", "features", "log2"), [((), 1, 5), ((1, 4), 1, 5), ((4,), 0, 5), ((4,), 1, 2), ((4,), 1, 27)]
)
def test_refusals(resolutions: tuple[int, ...], features: int, log2: int) -> None:
    with pytest.raises(ConfigError, match=rf"resolutions of at least 2.*{features} features, log2 table size {log2}$"):
        HashGrid(resolutions, features, log2)


def test_pyramids_double() -> None:
    assert pyramid(16, 8192) == (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    assert pyramid(5, 20) == (5, 10, 20)
    assert pyramid(7, 7) == (7,)
    for lowest, highest in ((16, 24), (16, 8), (0, 8), (-2, -8), (16, 8191)):
        with pytest.raises(ConfigError, match=f"{highest} is not {lowest} times 2, 4, 8"):
            pyramid(lowest, highest)
