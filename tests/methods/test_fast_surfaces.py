"""The room of a signed distance, rendered by a grid of it: the same surface, by fewer queries, kept beside the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_rgbd import isdf_trainer, write_sequence

from eugen_nerf.core.errors import RunError
from eugen_nerf.core.rendering.distance_grid import DistanceGrid
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
from eugen_nerf.methods.isdf import ISDFModel
from eugen_nerf.methods.rendering.stored_renderer import load_renderer, save_renderer
from eugen_nerf.methods.rendering.surface_rendering import surface_queries
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.training_rays import MeasuredDepths, draw_pixels, training_views


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 steps of 100 rays while the camera goes round once."""
    root = tmp_path_factory.mktemp("surfaces")
    sequence = write_sequence(root / "room", np.linspace(0, 2 * np.pi, 16, endpoint=False))

    def change(config: Any) -> None:
        config.pipeline.datamanager.train_num_rays_per_batch = 100
        config.pipeline.datamanager.check_rays = 50

    trainer = isdf_trainer(sequence, root / "trained", iterations=150, change=change)
    trainer.config.save_config()
    trainer.train()
    return trainer.base_dir / "config.yml"


def image(run: Run) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return run.model.get_outputs_for_camera(run.pipeline.datamanager.eval_dataset.cameras[:1])  # type: ignore[return-value]


def test_a_grid_leads_to_the_same_surface(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    run = load_run(config, device="cpu")
    model = run.model
    assert isinstance(model, ISDFModel)
    exact = image(run)
    choice = use_fast_renderer(run, quality=0.3)
    assert choice is not None
    assert (choice.rate, choice.way, choice.measured_on) == (1.0, "a grid of distances", "depths of training views")
    assert model.surface_renderer is not None
    fast = image(run)
    assert set(fast) == set(exact)
    assert (fast["depth"] - exact["depth"]).abs().median() < 2e-3
    assert ((fast["depth"] - exact["depth"]).abs() > 0.02).float().mean() < 0.03
    assert torch.equal(fast["accumulation"], exact["accumulation"])
    camera = run.pipeline.datamanager.eval_dataset.cameras[:1]
    bundle = model.collider(camera.generate_rays(camera_indices=0, keep_shape=True).flatten())
    queries = [surface_queries(model.field, each, bundle) for each in (SurfaceRenderer(), model.surface_renderer)]
    assert queries[1] < 0.5 * queries[0]
    again = load_run(config, device="cpu")
    assert use_fast_renderer(again, quality=0.3) == choice
    assert (image(again)["depth"] - fast["depth"]).abs().median() < 1e-3  # distances are kept as float16


def test_training_goes_by_the_field_alone(config: Path) -> None:
    run = load_run(config, device="cpu")
    model = run.model
    assert isinstance(model, ISDFModel)
    exact = image(run)["depth"]
    nowhere = DistanceGrid(torch.full((3,), -2.0), 1.0, torch.full((5, 5, 5), -1.0))
    model.render_by(SurfaceRenderer(grid=nowhere))
    model.train()
    assert torch.equal(image(run)["depth"], exact)
    with torch.enable_grad():
        camera = run.pipeline.datamanager.eval_dataset.cameras[:1]
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()
        assert torch.allclose(model.eval()(bundle)["depth"].view_as(exact), exact, atol=1e-3)


def test_errors_of_depth_are_those_of_the_measured_ones(config: Path) -> None:
    """By hand, over the same pixels: far misses count half a metre."""
    run = load_run(config, device="cpu")
    cameras = training_views(run.pipeline.datamanager).cameras
    pixels = draw_pixels(cameras, 300, 0)
    check = MeasuredDepths(run, pixels)
    total, views = 0.0, training_views(run.pipeline.datamanager)
    for camera in range(len(cameras)):
        rows = check.rays[check.rays[:, 0] == camera]
        with torch.no_grad():
            depth = run.model.get_outputs_for_camera(cameras[camera : camera + 1])["z_depth"][..., 0]
        truth = torch.as_tensor(views.get_data(camera)["depth_image"])[..., 0]
        error = (depth - truth)[rows[:, 1], rows[:, 2]].abs().clamp_max(0.5)
        total += float(error.square().sum())
    assert check.squared_error(run.model) == pytest.approx(total / len(check.rays), rel=0.02)


def test_data_without_depth_are_refused(tiny_dense_run: Path) -> None:
    with pytest.raises(RunError, match="measured depths"):
        MeasuredDepths(load_run(tiny_dense_run, device="cpu"), torch.tensor([[0, 1, 1]]))


@pytest.mark.parametrize(
    "damage",
    [
        {"low": torch.zeros(2)},
        {"low": torch.full((3,), float("nan"))},
        {"distance": torch.zeros(2, 3)},
        {"distance": torch.zeros(1, 3, 3)},
        {"distance": torch.full((2, 3, 4), float("nan"))},
    ],
)
def test_a_stored_one_that_makes_no_sense_is_built_again(tmp_path: Path, damage: dict[str, torch.Tensor]) -> None:
    from safetensors import safe_open

    path = tmp_path / "r.safetensors"
    renderer = SurfaceRenderer(grid=DistanceGrid(torch.tensor([1.0, 2.0, 3.0]), 0.25, torch.rand(2, 3, 4)))
    save_renderer(path, renderer, {"a": 1})
    read = load_renderer(path, "cpu")
    assert read is not None
    assert read[1] == {"a": 1}
    assert isinstance(read[0], SurfaceRenderer)
    assert read[0].grid is not None
    assert renderer.grid is not None
    assert torch.allclose(read[0].grid.distance, renderer.grid.distance, atol=1e-3)
    assert (read[0].max_steps, read[0].grid.cell) == (renderer.max_steps, 0.25)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), **damage}, path, metadata=metadata)
    assert load_renderer(path, "cpu") is None
