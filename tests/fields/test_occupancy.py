"""Empty space: cells against plain numpy, and a field that is evaluated only where the grid is occupied."""

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames

from eugen_nerf.core import EvaluationMode
from eugen_nerf.fields.nerf import NeRFField, NeRFFieldConfig
from eugen_nerf.fields.occupancy import OccupancyGrid, evaluate_occupied

BOX = torch.tensor([[-1.0, -2.0, 0.5], [1.5, 2.0, 1.75]])
BOTH = (FieldHeadNames.DENSITY, FieldHeadNames.RGB)


def make_grid(share: float, resolution: int = 5, seed: int = 0) -> OccupancyGrid:
    grid = OccupancyGrid(BOX, resolution)
    generator = torch.Generator().manual_seed(seed)
    grid.cells.copy_(torch.rand(grid.cells.shape, generator=generator) < share)
    return grid


def make_field() -> NeRFField:
    torch.manual_seed(0)
    network = NeRFFieldConfig(
        trunk_layers=3,
        trunk_width=24,
        skips=(),
        head_layers=1,
        head_width=12,
        position_frequencies=3,
        num_features=(8,),
    )
    return NeRFField(network, "eugen")


def make_samples(rays: int = 6, samples: int = 9, *, offset: float = 0.0) -> RaySamples:
    """Samples along rays through the box; `offset` moves them all, far enough of it out of the box."""
    generator = torch.Generator().manual_seed(1)
    origins = BOX[0] + (BOX[1] - BOX[0]) * torch.rand(rays, 3, generator=generator) + offset
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1)
    edges = torch.linspace(-1.5, 1.5, samples + 1).expand(rays, -1)
    frustums = Frustums(
        origins=origins[:, None].expand(rays, samples, 3),
        directions=directions[:, None].expand(rays, samples, 3),
        starts=edges[:, :-1, None],
        ends=edges[:, 1:, None],
        pixel_area=torch.ones(rays, samples, 1),
    )
    return RaySamples(frustums=frustums)


def occupied_by_loops(grid: OccupancyGrid, points: np.ndarray) -> np.ndarray:
    """Every point by itself, float64: which cell holds it, or none."""
    low, high = BOX.double().numpy()
    cells, n = grid.cells.numpy(), grid.resolution
    found = np.zeros(len(points), dtype=bool)
    for i, point in enumerate(points):
        index = [int(np.floor((point[k] - low[k]) / (high[k] - low[k]) * n)) for k in range(3)]
        found[i] = all(0 <= k < n for k in index) and cells[tuple(np.clip(index, 0, n - 1))]
    return found


@pytest.mark.parametrize("resolution", [1, 5, 16])
def test_occupied_is_what_loops_find(resolution: int) -> None:
    grid = make_grid(0.5, resolution)
    points = np.random.default_rng(0).uniform(-2.5, 2.5, size=(4000, 3)).astype(np.float32)
    unit = (points - BOX[0].numpy()) / (BOX[1] - BOX[0]).numpy() * resolution
    points = points[(np.abs(unit - np.round(unit)) > 1e-4).all(axis=1)]  # float32 may place a point on a wall elsewhere
    expected = occupied_by_loops(grid, points)
    if resolution > 1:
        assert 0.02 < expected.mean() < 0.5
    found = grid.occupied(torch.from_numpy(points).reshape(-1, 1, 3))
    assert found.shape == (len(points), 1)
    np.testing.assert_array_equal(found[:, 0].numpy(), expected)


def test_walls_of_the_box_and_of_cells() -> None:
    grid = OccupancyGrid(torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]), 4)
    assert grid.occupied(torch.tensor([-1.0, -1.0, -1.0])), "the low wall belongs to the box"
    assert not grid.occupied(torch.tensor([1.0, 0.0, 0.0])), "the high wall does not"
    assert not grid.occupied(torch.tensor([0.0, -1.001, 0.0]))
    grid.cells.zero_()
    grid.cells[2, 0, 3] = True
    assert grid.occupied(torch.tensor([0.0, -1.0, 0.5])), "a cell's low walls are its own: x, y, z in this order"
    assert not grid.occupied(torch.tensor([0.5, -1.0, 0.5]))
    assert not grid.occupied(torch.tensor([float("nan"), -0.9, 0.6]))


def test_a_new_grid_is_occupied_everywhere_and_saved() -> None:
    grid = OccupancyGrid(BOX, 3)
    assert grid.cells.all()
    assert set(grid.state_dict()) == {"aabb", "cells"}
    BOX_before = BOX.clone()
    grid.aabb += 1
    assert torch.equal(BOX, BOX_before), "the box is a copy"


def test_the_field_is_evaluated_only_where_the_grid_is_occupied() -> None:
    grid, field, samples = make_grid(0.5), make_field().eval(), make_samples()
    mask = torch.from_numpy(occupied_by_loops(grid, samples.frustums.get_positions().reshape(-1, 3).numpy()))
    mask = mask.reshape(6, 9)
    assert 0.1 < mask.float().mean() < 0.6
    evaluated = []
    field.network.register_forward_pre_hook(lambda module, inputs: evaluated.append(inputs[0].shape[:-1]))
    with torch.no_grad():
        found = evaluate_occupied(field, samples, grid, EvaluationMode.INFERENCE)
        assert evaluated == [(int(mask.sum()),)]
        everywhere = field(samples)
    for key in BOTH:
        assert found[key].shape == everywhere[key].shape
        assert found[key][~mask].abs().max() == 0
        torch.testing.assert_close(found[key][mask], everywhere[key][mask], rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_masked_field() -> None:
    grid, samples = make_grid(0.5), make_samples()
    mask = grid.occupied(samples.frustums.get_positions())[..., None]
    gradients = []
    for masked in (True, False):
        field = make_field().train()
        outputs = evaluate_occupied(field, samples, grid, EvaluationMode.DIFFERENTIABLE) if masked else field(samples)
        loss = sum((outputs[key] * mask).square().sum() for key in BOTH)
        loss.backward()
        gradients.append([p.grad for p in field.parameters()])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outside", [True, False])
def test_an_empty_batch_works_and_can_be_differentiated(outside: bool) -> None:
    grid = OccupancyGrid(BOX, 4) if outside else make_grid(0.0)
    field, samples = make_field().train(), make_samples(offset=50.0 if outside else 0.0)
    outputs = evaluate_occupied(field, samples, grid, EvaluationMode.DIFFERENTIABLE)
    assert outputs[FieldHeadNames.DENSITY].shape == (6, 9, 1)
    assert outputs[FieldHeadNames.RGB].shape == (6, 9, 3)
    assert all(outputs[key].abs().max() == 0 for key in BOTH)
    sum(outputs[key].sum() for key in BOTH).backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in field.parameters())
    with torch.no_grad():
        outputs = evaluate_occupied(field.eval(), samples, grid, EvaluationMode.INFERENCE)
    assert all(outputs[key].abs().max() == 0 for key in BOTH)


def test_without_a_grid_the_field_is_evaluated_everywhere() -> None:
    field, samples = make_field().eval(), make_samples()
    with torch.no_grad():
        found, expected = evaluate_occupied(field, samples, None, EvaluationMode.INFERENCE), field(samples)
    assert all(torch.equal(found[key], expected[key]) for key in BOTH)
