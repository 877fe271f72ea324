"""The grid that follows a field while it is trained: its box, what it keeps, what renderers get."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eugen_nerf.methods.training.sampling_grid import OPTICAL_DEPTHS, PACE, SamplingGrid


def constant(value: float):
    def density(points: Tensor, times: Tensor | None) -> Tensor:
        assert times is None
        return torch.full((len(points),), value)

    return density


def test_the_grid_is_a_cube_around_the_box() -> None:
    grid = SamplingGrid(torch.tensor([[-1.0, 0.0, 2.0], [1.0, 1.0, 6.0]]), 8)
    assert grid.aabb.tolist() == [[-2.0, -1.5, 2.0], [2.0, 2.5, 6.0]]
    assert grid.cell == pytest.approx(0.5)


def test_all_cells_take_the_density_at_a_point_inside_them() -> None:
    """Of a density that is constant in every cell, which tells cells from one another."""
    grid = SamplingGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 4)
    values = torch.rand(4, 4, 4) * 9

    def density(points: Tensor, times: Tensor | None) -> Tensor:
        assert points.abs().max() <= 1
        return values[tuple(((points + 1) / 0.5).long().clamp(0, 3).T)]

    grid.follow(density)
    assert torch.equal(grid.density, values)


def test_a_look_moves_some_cells_towards_the_field_and_no_empty_one() -> None:
    grid = SamplingGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 4)
    grid.cells[:2] = False
    grid.follow(constant(8.0))
    assert grid.density[:2].eq(0).all()
    assert grid.density[2:].eq(8).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grid.follow(constant(0.0), 5)
    moved = grid.density[2:] != 8
    assert 1 <= int(moved.sum()) <= 5
    assert grid.density[2:][moved].eq(8 * (1 - PACE)).all()
    assert grid.density[:2].eq(0).all()


def test_cells_around_a_dense_one_are_evaluated_too_and_no_empty_one() -> None:
    grid = SamplingGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 8)
    grid.cells[:, :, 4:] = False
    grid.density[3, 3, 3] = 100.0
    placed = grid.as_density_grid()
    expected = torch.zeros(8, 8, 8, dtype=torch.bool)
    expected[2:5, 2:5, 2:4] = True
    assert torch.equal(placed.occupied[0], expected)
    least, largest = (depth / grid.cell for depth in OPTICAL_DEPTHS)
    assert placed.density[0, 3, 3, 3] == pytest.approx(largest)
    assert placed.density[0, 2, 3, 3] == pytest.approx(least)


def test_renderers_get_the_grid_of_today() -> None:
    grid = SamplingGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 4)
    grid.follow(constant(0.0))
    first = grid.as_density_grid()
    assert first is grid.as_density_grid(), "made once"
    assert not first.occupied.any()
    grid.follow(constant(5.0))
    second = grid.as_density_grid()
    assert second.occupied.all()
    _, largest = OPTICAL_DEPTHS
    assert second.density.eq(largest / grid.cell).all(), "no cell ends all light"
    state = grid.state_dict()
    other = SamplingGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 4)
    assert not other.as_density_grid().occupied.any()
    other.load_state_dict(state)
    assert other.as_density_grid().occupied.all(), "a checkpoint changes it too"
