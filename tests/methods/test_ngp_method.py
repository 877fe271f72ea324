"""eugen-ngp in nerfstudio: presets and variants train, save and come back; samples are placed by the field's grid."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.optimizers import Optimizers
from tiny_runs import render, shrink_ngp
from torch import Tensor

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.core import DenseLinear, EUGenLinear, EvaluationMode, LowRankLinear, MonarchLinear, SNNKLinear
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.training.merged import MergedLayer
from eugen_nerf.methods.ngp import EugenNGPModel, EugenNGPModelConfig
from eugen_nerf.methods.rendering.shortcuts import samples_at
from eugen_nerf.methods.runs.loading import load_run

PRESETS = ("eugen-ngp", "eugen-ngp-small")
REPLACED = {"trunk_0", "head_0", "head_1"}
KINDS = {
    "eugen": EUGenLinear,
    "lowrank": LowRankLinear,
    "snnk": SNNKLinear,
    "dense": DenseLinear,
    "narrow": DenseLinear,
    "monarch": MonarchLinear,
    "shallow": DenseLinear,
}


def make_model(**changes: Any) -> EugenNGPModel:
    """A tiny model with something in its box, whose grid has looked at it."""
    torch.manual_seed(0)
    config = EugenNGPModelConfig(**changes)
    shrink_ngp(config)
    model = config.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)
    torch.nn.init.normal_(model.field.encoder.grid.table, std=0.1)
    model.occupancy.follow(model.trained_density)
    return model


def make_rays(count: int = 6) -> RayBundle:
    """Rays from outside towards the box, near and far planes set."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3
    aims = torch.rand(count, 3, generator=generator) - 0.5
    return RayBundle(
        origins=origins,
        directions=torch.nn.functional.normalize(aims - origins, dim=-1),
        pixel_area=torch.full((count, 1), 1e-4),
        camera_indices=torch.zeros(count, 1, dtype=torch.long),
        nears=torch.full((count, 1), 0.5),
        fars=torch.full((count, 1), 6.0),
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", PRESETS)
def test_train_save_and_reload(method: str, variant: str, train_tiny: Callable) -> None:
    path, trainer = train_tiny(method=method, variant=variant)
    trained = trainer.pipeline.model
    network = trained.field.network
    found = {name for name in network.names if not isinstance(network.layer(name), DenseLinear)}
    assert found == (REPLACED if variant in ("eugen", "lowrank", "snnk", "monarch") else set())
    kind = MergedLayer if variant == "eugen" and trained.config.network.train_merged else KINDS[variant]
    assert all(type(network.layer(name)) is kind for name in REPLACED & {*network.names})
    assert trained.occupancy.density.any()
    run = load_run(path, device="cpu", test_mode="val")
    outputs, expected = render(run.model, run.pipeline), render(trained, trainer.pipeline)
    assert outputs.keys() == expected.keys() == {"rgb", "depth", "accumulation"}
    for key, value in outputs.items():
        assert value.shape == (16, 16, 3 if key == "rgb" else 1)
        assert torch.isfinite(value).all()
        assert torch.equal(value, expected[key])
    assert outputs["rgb"].std() > 1e-4
    assert not [key for key in run.pipeline.state_dict() if "lpips" in key]


def test_training_changes_every_layer_and_the_grid(train_tiny: Callable) -> None:
    _, trainer = train_tiny(method="eugen-ngp-small")
    model = trainer.pipeline.model
    fresh = trainer.config.pipeline.model.setup(scene_box=model.scene_box, num_train_data=4)
    before = dict(fresh.named_parameters())
    table = "field.encoder.grid.table"
    assert not torch.equal(model.field.encoder.grid.table, before[table])
    moved = model.occupancy.density[model.occupancy.cells]
    assert moved.gt(0).all()
    assert moved.unique().numel() > 1


@pytest.mark.parametrize("method", PRESETS)
def test_optimizers_are_those_of_the_parameter_groups(method: str) -> None:
    config = copy.deepcopy(all_methods[method])
    shrink_ngp(config.pipeline.model)
    box = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))
    model = config.pipeline.model.setup(scene_box=box, num_train_data=1)
    groups = model.get_param_groups()
    assert set(groups) == set(config.optimizers) == {"fields", "grids"}
    listed = [id(p) for group in groups.values() for p in group]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for name, p in model.named_parameters() if name != "device_indicator_param"}
    assert set(Optimizers(config.optimizers.copy(), groups).optimizers) == set(groups)


def test_the_hull_is_carved_once_and_comes_back(train_tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    path, trainer = train_tiny(method="eugen-ngp-small", grid_resolution=48)
    cells = trainer.pipeline.model.occupancy.cells
    assert 0 < cells.float().mean() < 0.9
    assert trainer.pipeline.model.occupancy.density[~cells].eq(0).all()
    run = load_run(path, device="cpu", test_mode="val")
    assert torch.equal(run.model.occupancy.cells, cells)
    monkeypatch.setattr("eugen_nerf.methods.training.hull_carving.carve", lambda *_: pytest.fail("carved again"))
    for callback in trainer.callbacks:
        callback.run_callback_at_location(2, location=callback.where_to_run[0])
    run.model.occupancy.density.zero_()
    empty = render(run.model, run.pipeline)
    assert empty["accumulation"].max() == 0
    assert torch.equal(empty["rgb"], torch.ones(16, 16, 3)), "nothing but the white background"


def by_brute_force(model: EugenNGPModel, rays: RayBundle, samples: int = 4000) -> Tensor:
    """Colours `[rays, 3]` by the midpoint rule over all of the ray, on white; the field's densities as they are."""
    edges = torch.linspace(0.5, 6.0, samples + 1)
    colours = []
    for origin, direction in zip(rays.origins, rays.directions, strict=True):
        points = origin + direction * ((edges[1:] + edges[:-1]) / 2)[:, None]
        at = samples_at(points)
        at.frustums.directions = direction.expand(samples, 1, 3)
        with torch.no_grad():
            outputs = {str(k): v[:, 0] for k, v in model.field.evaluate(at, EvaluationMode.INFERENCE).items()}
        density, rgb = (next(v for k, v in outputs.items() if k.endswith(name)).double() for name in ("DENSITY", "RGB"))
        opacity = 1 - torch.exp(-density[:, 0] * float(edges[1] - edges[0]))
        light = torch.cumprod(torch.cat([torch.ones(1, dtype=torch.float64), 1 - opacity]), dim=0)
        colours.append(((light[:-1] * opacity)[:, None] * rgb).sum(dim=0) + light[-1])
    return torch.stack(colours).float()


def test_rendering_comes_to_the_integral_along_the_ray() -> None:
    model, rays = make_model(), make_rays()
    truth = by_brute_force(model, rays)
    assert truth.std() > 0.01
    model.eval()
    errors = []
    for rate in (2.0, 8.0, 32.0):
        model.config.render_rate = rate
        with torch.no_grad():
            errors.append(float((model(rays)["rgb"] - truth).abs().max()))
    assert errors[-1] < 0.01
    assert errors[0] < 0.1


def test_training_draws_points_and_evaluation_does_not() -> None:
    model, rays = make_model(), make_rays()
    first, second = (model.train()(rays)["rgb"] for _ in range(2))
    assert not torch.equal(first, second)
    assert (first - second).abs().max() < 0.3
    assert first.requires_grad
    first, second = (model.eval()(rays)["rgb"] for _ in range(2))
    assert torch.equal(first, second)


def test_rays_that_meet_nothing_still_train() -> None:
    model, rays = make_model(), make_rays()
    rays.origins = rays.origins + 50
    outputs = model.train()(rays)
    assert torch.equal(outputs["rgb"], torch.ones(6, 3))
    outputs["rgb"].mean().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.field.parameters())


def test_the_renderer_by_a_grid_renders_the_same_scene() -> None:
    model, rays = make_model(), make_rays()
    model.eval()
    with torch.no_grad():
        model.config.render_rate = 16.0
        own = model(rays)
        grid = model.occupancy.as_density_grid()
        every = torch.ones_like(grid.occupied)
        model.fast_renderer = GridRenderer(DensityGrid(grid.low, grid.cell, grid.density, every), rate=16.0)
        fast = model(rays)
    assert own.keys() == fast.keys()
    torch.testing.assert_close(fast["rgb"], own["rgb"], atol=0.01, rtol=0)


def test_fast_renderers_go_by_the_same_grid_with_fewer_samples() -> None:
    model, rays = make_model(), make_rays()
    model.eval()
    with torch.no_grad():
        exact, samples = model(rays), len(model.place(rays)) / len(rays)
        errors, queries = [], []
        for renderer in model.fast_renderers(rays):
            model.render_by(renderer)
            errors.append(float((model(rays)["rgb"] - exact["rgb"]).abs().mean()))
            queries.append(model.queries_a_ray(rays))
    assert queries == sorted(queries)
    assert queries[0] < 0.5 * samples
    assert queries[-1] < samples
    assert 0 < errors[-1] < errors[0] < 0.1


def test_cells_carved_empty_have_no_density() -> None:
    model, rays = make_model(), make_rays()
    points = torch.rand(50, 3) * 2 - 1
    assert model.trained_density(points, None).gt(0).all()
    model.occupancy.cells.zero_()
    assert model.trained_density(points, None).eq(0).all()
    model.eval()
    model.fast_renderer = GridRenderer(model.occupancy.as_density_grid())
    with torch.no_grad():
        assert torch.equal(model(rays)["rgb"], torch.ones(6, 3))


def test_a_dense_run_is_converted(train_tiny: Callable) -> None:
    """Every layer of both heads at full width: the images stay."""
    path, _ = train_tiny(method="eugen-ngp-small", variant="dense")
    run = load_run(path, device="cpu", test_mode="val")
    torch.nn.init.normal_(run.model.field.encoder.grid.table, std=0.1)
    run.model.occupancy.follow(run.model.trained_density)
    before = render(run.model, run.pipeline)["rgb"]
    config = DistillConfig(ray_fraction=0.5, layers=("trunk_.*", "head_.*"), num_features=(24, 16, 16))
    _, student, (report,) = convert_run(run, config)
    network = student.field.network
    assert {name for name in network.names if isinstance(network.layer(name), EUGenLinear)} == REPLACED
    assert all(layer.relative_error < 1e-4 for layer in report.layers)
    torch.testing.assert_close(render(student, run.pipeline)["rgb"], before, atol=1e-3, rtol=1e-3)
