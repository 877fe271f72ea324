"""Shortcuts of rendering: what they leave out, and how much they may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from test_planning import model_of, rays_of

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.fields.occupancy import OccupancyGrid, Overlap
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField
from eugen_nerf.methods.rendering.shortcuts import Shortcuts, evaluated_space, front_to_back, samples_at

BOX = torch.tensor([[-2.0] * 3, [2.0] * 3])


def dense_model(method: str, **changes: Any) -> Any:
    """A model in whose scene rays end: the raw density is raised."""
    model = model_of(method, **changes)
    fields = model.graph_fields()
    for name in ("coarse", "fine", "field"):
        if name in fields:
            with torch.no_grad():
                dict(fields[name].network.layer("density").named_parameters())["bias"].add_(6.0)
    return model


@pytest.mark.parametrize("method", ["nerf", "dnerf", "mip", "zip"])
def test_without_auxiliary_outputs_images_are_equal(method: str) -> None:
    model, rays = model_of(method), rays_of(method)
    with torch.no_grad():
        whole = model(rays)
        model.shortcuts = Shortcuts(extras=False)
        lean = model(rays)
    assert lean.keys() == {"rgb", "depth", "accumulation"} < whole.keys()
    assert all(torch.equal(lean[key], whole[key]) for key in lean)
    if method in ("nerf", "dnerf"):
        with torch.enable_grad():
            assert "rgb_coarse" in model(rays), "a conversion needs gradients of all"


@pytest.mark.parametrize("method", ["nerf", "mip", "zip"])
@pytest.mark.parametrize("opaque", [0.003, 0.2])
def test_rays_that_end_early_change_a_channel_by_less_than_is_said(method: str, opaque: float) -> None:
    model, rays = dense_model(method), rays_of(method, 40)
    final = list(model.graph_fields())[-1]
    evaluated: list[int] = []
    network = model.graph_fields()[final].network
    network.register_forward_pre_hook(lambda _, inputs: evaluated.append(inputs[0][..., 0].numel()))
    with torch.no_grad():
        whole = model(rays)
        everything = sum(evaluated)
        evaluated.clear()
        model.shortcuts = Shortcuts(opaque=opaque)
        found = model(rays)
    assert sum(evaluated) < everything
    change = float((found["rgb"] - whole["rgb"]).abs().max())
    assert change <= opaque + 1e-6
    assert method == "zip" or change > 0


def test_segments_are_evaluated_front_to_back() -> None:
    """Against the sum by hand: once a ray's transmittance is below the bound, none of its samples are evaluated."""
    rays = rays_of("nerf", 6)
    samples = model_of("nerf").sampler_uniform(rays, num_samples=16)
    densities = torch.rand(6, 16, 1, generator=torch.Generator().manual_seed(0)) * 4
    evaluated = torch.zeros(6, 16, dtype=torch.bool)

    def evaluate(part: RaySamples) -> dict[FieldHeadNames, torch.Tensor]:
        rows = [int((rays.directions == d).all(dim=1).nonzero()) for d in part.frustums.directions[:, 0]]
        first = int((samples.frustums.starts[0, :, 0] == part.frustums.starts[0, 0, 0]).nonzero())
        columns = slice(first, first + part.shape[1])
        evaluated[rows, columns] = True
        return {
            FieldHeadNames.DENSITY: densities[rows, columns],
            FieldHeadNames.RGB: torch.ones(len(rows), part.shape[1], 3),
        }

    found = front_to_back(evaluate, samples, 0.1)
    assert samples.deltas is not None
    passed = (densities * samples.deltas)[..., 0].cumsum(dim=1)
    for ray in range(6):
        for segment in range(4):
            before = float(passed[ray, 4 * segment - 1]) if segment else 0.0
            assert (
                evaluated[ray, 4 * segment : 4 * segment + 4].tolist()
                == [bool(torch.exp(torch.tensor(-before)) >= 0.1)] * 4
            )
    assert evaluated.any(dim=1).all()
    assert not evaluated.all()
    assert torch.equal(found[FieldHeadNames.DENSITY], densities * evaluated[..., None])


@pytest.mark.parametrize("method", ["nerf", "dnerf"])
def test_a_trained_density_makes_a_grid(method: str) -> None:
    """A field that is dense in a ball alone: its cells are occupied, distant ones are not, and the image stays."""
    model, rays = model_of(method), rays_of(method, 30)

    def ball(field: RadianceField) -> Callable[..., FieldOutputs]:
        original = field.evaluate

        def evaluate(samples: RaySamples, mode: EvaluationMode, *, selection: Any = None, **options: Any) -> Any:
            positions = samples.frustums.get_positions() if selection is None else selection.positions
            inside = positions.norm(dim=-1, keepdim=True) < 0.6
            outputs = original(samples, mode, selection=selection, **options)
            return {**outputs, FieldHeadNames.DENSITY: 50.0 * inside.float()}

        return evaluate

    for field in (model.field_coarse, model.field_fine):
        field.evaluate = ball(field)
    grid = model.scene_occupancy(BOX, 20)
    centres = (torch.cartesian_prod(*[torch.arange(20)] * 3) + 0.5) * 0.2 - 2
    far = centres.norm(dim=1)
    assert grid.cells.flatten()[far < 0.6].all()
    assert not grid.cells.flatten()[far > 0.6 + 3 * 0.2].any()
    assert grid.occupied(torch.tensor([[5.0, 0.0, 0.0]])).all(), "outside of the box the field is evaluated"
    with torch.no_grad():
        whole = model(rays)
        model.shortcuts = Shortcuts(empty=grid)
        found = model(rays)
    torch.testing.assert_close(found["rgb"], whole["rgb"], rtol=1e-4, atol=1e-5)
    assert "cells" not in "".join(model.state_dict()), "shortcuts are no part of a checkpoint"


def test_the_box_holds_all_samples() -> None:
    model, rays = model_of("nerf"), rays_of("nerf")
    low, high = model.sampled_box(rays)
    positions = model.sampler_uniform(rays).frustums.get_positions()
    assert torch.equal(low, positions.flatten(0, 1).amin(dim=0))
    assert torch.equal(high, positions.flatten(0, 1).amax(dim=0))


def test_grids_overlap() -> None:
    first, second = OccupancyGrid(BOX, 2), OccupancyGrid(BOX, 2, outside=True)
    first.cells[0], second.cells[:, 0] = False, False
    points = torch.tensor([[-1.0, 1, 1], [1, -1, 1], [1, 1, 1], [3, 1, 1]])
    assert Overlap(first, second).occupied(points).tolist() == [False, False, True, False]
    assert second.occupied(points).tolist() == [True, False, True, True]
    assert evaluated_space(None, None) is None
    assert evaluated_space(first, None) is first
    assert evaluated_space(None, second) is second
    assert isinstance(evaluated_space(first, second), Overlap)
    assert torch.equal(samples_at(points).frustums.get_positions()[:, 0], points)


def test_refusals() -> None:
    for opaque in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=r"a transmittance in \[0, 1\)"):
            Shortcuts(opaque=opaque)
    with pytest.raises(ConfigError, match="at least 2 cells a side, not 1"):
        model_of("nerf").scene_occupancy(BOX, 1)
    with pytest.raises(ConfigError, match="skips no empty space"):
        model_of("mip").scene_occupancy(BOX, 8)
