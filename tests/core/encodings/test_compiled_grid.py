"""The compiled interpolation: PyTorch's operations are the oracle, forwards and backwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from eugen_nerf.core import HashGrid
from eugen_nerf.core.encodings import compiled_grid, hash_grid

pytestmark = [
    pytest.mark.processor,
    pytest.mark.skipif(not compiled_grid.COMPILES, reason="numba is not installed"),
]
GRIDS = {
    "dense and hashed": ((4, 8, 16), 4, 9),
    "one feature": ((2, 5, 11), 1, 12),
    "three features, all hashed": ((16, 32), 3, 5),
    "from vertex to vertex": ((9, 17), 2, 10),
}
SHIFTS = {"from vertex to vertex": 0.0}


def _grid(name: str) -> HashGrid:
    resolutions, features, log2 = GRIDS[name]
    grid = HashGrid(resolutions, features, log2, shift=SHIFTS.get(name, 0.5))
    with torch.no_grad():
        grid.table.copy_(torch.randn(grid.table.shape, generator=torch.Generator().manual_seed(1)))
    return grid


def _points(groups: int, members: int) -> Tensor:
    """Inside, beyond every side, and on vertices, edges and the border."""
    drawn = torch.rand(groups, members, 3, generator=torch.Generator().manual_seed(2)) * 1.4 - 0.2
    drawn[::3] = (drawn[::3] * 8).round() / 8
    return drawn


def _pooled(grid: HashGrid, points: Tensor, weights: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    grid.table.grad = None
    pooled = grid.pool(points, weights)
    pooled.backward(upstream)
    assert grid.table.grad is not None
    return pooled.detach(), grid.table.grad


@pytest.fixture(params=(1, 2), ids=("one thread", "two threads"))
def _threads(request: pytest.FixtureRequest) -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("members", [1, 6])
@pytest.mark.parametrize("shared", [False, True], ids=["own weights", "shared weights"])
@pytest.mark.parametrize("name", GRIDS)
def test_it_is_what_pytorch_computes(name: str, shared: bool, members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, points = _grid(name), _points(200, members)
    drawn = [torch.rand(200, members, generator=torch.Generator().manual_seed(i)) for i in range(len(grid.sizes))]
    weights = torch.stack(drawn[:1] if shared else drawn)
    upstream = torch.randn(200, len(grid.sizes), grid.features, generator=torch.Generator().manual_seed(9))
    calls: list[int] = []
    compiled = hash_grid.pool_compiled
    monkeypatch.setattr(hash_grid, "pool_compiled", lambda *given: calls.append(1) or compiled(*given))
    found = _pooled(grid, points, weights, upstream)
    apart = _pooled(grid, points.movedim(-1, 0).contiguous().movedim(0, -1), weights, upstream)
    assert len(calls) == 2
    monkeypatch.setattr(hash_grid, "can_pool", lambda *_: False)
    expected = _pooled(grid, points, weights, upstream)
    assert len(calls) == 2
    for mine, same, theirs in zip(found, apart, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        assert torch.equal(mine, same), "memory layouts change nothing"


def test_no_points_give_no_features() -> None:
    grid = _grid("one feature")
    pooled, grad = _pooled(grid, torch.zeros(0, 1, 3), torch.zeros(3, 0, 1), torch.zeros(0, 3, 1))
    assert pooled.shape == (0, 3, 1)
    assert not grad.any()


def test_what_is_not_a_number_stays_so() -> None:
    points = torch.full((3, 1, 3), 0.5)
    points[0, 0, 1], points[1, 0, 2] = float("nan"), float("inf")
    pooled = _grid("dense and hashed").pool(points, torch.ones(1, 3, 1))
    assert pooled[0].isnan().all()
    assert pooled[1:].isfinite().all(), "infinity is beyond the border"


def test_others_are_left_to_pytorch() -> None:
    table, points, weights = nn.Parameter(torch.rand(8, 2)), torch.rand(5, 1, 3), torch.rand(3, 5, 1)
    assert compiled_grid.can_pool(table, points, weights)
    assert not compiled_grid.can_pool(table, points.requires_grad_(), weights)
    points = points.detach()
    assert not compiled_grid.can_pool(table, points, weights.requires_grad_())
    weights = weights.detach()
    assert not compiled_grid.can_pool(table, points.double(), weights)
    assert not compiled_grid.can_pool(table.half(), points, weights)
    assert not compiled_grid.can_pool(table, points.to("meta"), weights)


def test_renderers_threads_share_it() -> None:
    grid, points = _grid("dense and hashed"), _points(400, 6)
    weights = torch.ones(1, 400, 6)
    with torch.no_grad():
        expected = grid.pool(points, weights)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: grid.pool(points, weights), range(8)):
                assert torch.equal(found, expected)
