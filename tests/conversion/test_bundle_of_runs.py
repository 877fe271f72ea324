"""Bundles of runs of every method: they render what the run renders, or say why not; commands open them."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_outputs import GOLDEN, golden_runs
from PIL import Image
from tiny_runs import render
from torch import Tensor

from eugen_nerf.cli import distill
from eugen_nerf.cli import render as cli
from eugen_nerf.conversion import bundle_scene
from eugen_nerf.conversion.bundle_scene import bundle_of_run
from eugen_nerf.core import BundleError, ConfigError, DistanceBundle, load_bundle, save_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.errors import DataError, RunError
from eugen_nerf.core.inference import bundle_plans
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.evaluation.images.ground_truth import composite
from eugen_nerf.evaluation.images.view_rendering import eval_dataset, render_rgb, view_camera
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.isdf import ISDFModel
from eugen_nerf.methods.rendering import grid_rendering
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.bundle_runs import open_bundle
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.image_metrics import quantise
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.run_paths import run_names
from eugen_viewer.app import Viewer
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.panels.panel_surface import SurfacePanel
from eugen_viewer.run_comparison import RunComparison
from eugen_viewer.server.address import choose_port
from eugen_viewer.shown_runs import open_run
from eugen_viewer.viewer_cameras import viewpoint_at_view

pytest.importorskip("safetensors")
RENDERED = (
    *("nerf-merged", "dnerf-factors", "dnerf-hash-merged", "mipnerf360-merged", "zipnerf-merged", "isdf-factors"),
    "nerfacto-converted",
)
LOOSE = 60.0
"""dB that any renderer keeps within."""


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the golden folder as the working directory, and grids of few cells."""
    copy = Path(shutil.copytree(GOLDEN, tmp_path / "golden"))
    monkeypatch.chdir(copy)
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.SURVEY", 8)
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.MOVING_SURVEY", 6)
    monkeypatch.setattr(fast_rendering, "CHECK_RAYS", 64)
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    monkeypatch.setattr(bundle_plans, "machine_plan", lambda device: ("eager", "float32"))
    monkeypatch.setattr("eugen_nerf.conversion.bundle_scene.CHECK_RAYS", 64)
    for name, value in {"CELLS": 12, "MOVING_CELLS": 8, "MOVING_SLICES": 3}.items():
        monkeypatch.setattr(grid_rendering, name, value)
    return copy


def golden(folder: Path, name: str) -> Run:
    """A run; a map of distances, too little trained for rays to come to its surface in small steps, is scaled."""
    run = load_run(golden_runs(folder)[name].relative_to(folder), device="cpu")
    if isinstance(run.model, ISDFModel):
        run.model.field.output_scale *= 30
    return run


def written(run: Run, folder: Path, said: list[str] | None = None) -> BundledField:
    """The run's bundle, written and read."""
    save_bundle(bundle_of_run(run, quality=LOOSE, progress=([] if said is None else said).append), folder)
    return load_bundle(folder)


@pytest.mark.parametrize("name", RENDERED)
def test_a_bundle_renders_what_the_run_renders(name: str, moved: Path, tmp_path: Path) -> None:
    run = golden(moved, name)
    bundle = written(run, tmp_path / "bundle")
    use_fast_renderer(run, quality=LOOSE)  # from the file beside the run, its densities rounded as the bundle's
    dataset = eval_dataset(run)
    assert bundle.scene is not None
    assert [view.name for view in bundle.scene.views] == [file.name for file in dataset.image_filenames]
    for index, camera in enumerate(bundle.cameras):
        theirs = dataset.cameras[index : index + 1]
        rays = theirs.generate_rays(camera_indices=0, keep_shape=True).flatten()
        origins, directions = camera.rays()
        torch.testing.assert_close(origins, rays.origins, atol=1e-6, rtol=0)
        torch.testing.assert_close(directions, rays.directions, atol=1e-6, rtol=0)
        expected, found = run.model.get_outputs_for_camera(theirs), bundle.render(camera)
        assert expected["accumulation"].any()
        assert expected["depth"].std() > 0, "one value would prove nothing"
        torch.testing.assert_close(found.colour, expected["rgb"], atol=1e-4, rtol=0)
        torch.testing.assert_close(found.accumulation, expected["accumulation"], atol=1e-4, rtol=0)
        near = (found.depth - expected["depth"]).abs() < 1e-3
        assert near.float().mean() > 0.98, "where two samples are nearly the median, the last bits choose"
        if "normals" in expected:
            assert found.normals is not None
            torch.testing.assert_close(
                0.5 * (found.normals + 1) * found.accumulation, expected["normals"], atol=1e-4, rtol=0
            )


def test_a_grid_of_distances_goes_with_the_bundle_where_it_is_good_enough(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = golden(moved, "isdf-factors"), list[str]()
    bundle = written(run, tmp_path / "led")
    assert isinstance(bundle, DistanceBundle)
    kept = fast_rendering.kept_renderer(run, quality=LOOSE)
    assert kept is not None

    def points_of(bundle: DistanceBundle) -> int:
        count, distance = [0], bundle.distance

        def counted(points: Tensor) -> Tensor:
            count[0] += len(points)
            return distance(points)

        monkeypatch.setattr(bundle, "distance", counted)
        assert bundle.render(bundle.cameras[0]).accumulation.any()
        return count[0]

    exact = (kept[0], dataclasses.replace(kept[1], rate=0.0))
    monkeypatch.setattr(bundle_scene, "kept_renderer", lambda run, **settings: exact)
    plain = written(run, tmp_path / "traced")
    assert isinstance(plain, DistanceBundle)
    assert not hasattr(plain.rendered_scene().renderer, "distance")
    assert points_of(bundle) < 0.5 * points_of(plain)

    def refuse(run: Run, **settings: object) -> None:
        raise RunError("no depths")

    monkeypatch.setattr(bundle_scene, "kept_renderer", refuse)
    assert points_of(written(run, tmp_path / "refused", said)) > 0  # type: ignore[arg-type]
    assert said == ["the bundle's rays are traced without a grid: no depths"]


def test_the_scene_is_that_of_the_run(moved: Path, tmp_path: Path) -> None:
    run = golden(moved, "dnerf-factors")
    scene = written(run, tmp_path / "bundle").scene
    assert scene is not None
    model, outputs = run.model, run.pipeline.datamanager.train_dataparser_outputs
    assert isinstance(model, GraphModel)
    assert (scene.near, scene.far) == (model.collider.near_plane, model.collider.far_plane)  # type: ignore[union-attr]
    assert scene.box == tuple(model.scene_box.aabb.flatten().tolist())
    assert scene.background == pytest.approx(model.renderer_rgb.background_color.tolist())
    assert scene.coordinates.transform == tuple(outputs.dataparser_transform.double().flatten().tolist())
    assert scene.coordinates.scale == outputs.dataparser_scale
    times = outputs.cameras.times
    assert scene.times == (float(times.min()), float(times.max()))
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert scene.quality is not None
    assert scene.quality.exact_psnr == pytest.approx(choice.exact_psnr, abs=1e-4)
    assert scene.quality.lost == pytest.approx(choice.lost, abs=0.01)  # the run's densities were not rounded yet


@pytest.mark.parametrize("name", ["nerf-merged", "zipnerf-merged"])
def test_views_hold_what_was_measured(name: str, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.conversion.bundle_scene.MEASURED_VIEWS", 2)
    run = golden(moved, name)
    bundle, dataset = written(run, tmp_path / "bundle"), eval_dataset(run)
    assert bundle.scene is not None
    measured = {i: view.psnr for i, view in enumerate(bundle.scene.views) if view.psnr is not None}
    assert set(measured) == {0, len(dataset) - 1}
    for index, psnr in measured.items():
        truth = composite(run, dataset.get_image_float32(index)).numpy()
        error = np.square(bundle.render(bundle.cameras[index]).colour.numpy() - truth).mean()
        assert psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_views_of_too_many_pixels_are_not_measured(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = golden(moved, "nerf-merged")
    cameras = eval_dataset(run).cameras
    pixels = int((cameras.width * cameras.height).max())
    for allowed, expected in ((pixels - 1, 0), (pixels, 1)):
        monkeypatch.setattr("eugen_nerf.conversion.bundle_scene.MEASURED_PIXELS", allowed)
        bundle = written(run, tmp_path / str(expected))
        assert bundle.scene is not None
        assert sum(view.psnr is not None for view in bundle.scene.views) == expected


def test_views_of_lenses_are_not_measured(moved: Path, tmp_path: Path) -> None:
    run = golden(moved, "nerf-merged")
    cameras = eval_dataset(run).cameras
    cameras.distortion_params = torch.full((len(cameras), 6), 0.01)
    bundle = written(run, tmp_path / "bundle")
    assert bundle.scene is not None
    assert [view.psnr for view in bundle.scene.views] == [None] * len(cameras)


def test_a_method_without_a_renderer_says_so(moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.conversion.bundle_scene.kept_renderer", lambda *_, **__: None)
    said: list[str] = []
    bundle = written(golden(moved, "nerf-merged"), tmp_path / "bundle", said)
    assert said == ["the bundle is not rendered: bundles have no renderer for the fields of eugen-nerf-small yet"]
    assert bundle.cameras
    with pytest.raises(ConfigError, match="has test views and no renderer"):
        bundle.render(bundle.cameras[0])
    with pytest.raises(BundleError, match="has test views and no renderer"):
        open_bundle(tmp_path / "bundle", device="cpu")


def test_a_run_without_training_views_gives_a_field_alone(moved: Path, tmp_path: Path) -> None:
    run, said = golden(moved, "nerf-merged"), list[str]()
    del run.pipeline.datamanager.train_dataset
    bundle = written(run, tmp_path / "bundle", said)
    assert bundle.scene is None
    assert len(said) == 1
    assert "the bundle holds the field alone and is not rendered" in said[0]
    assert "holds no training cameras" in said[0]


def test_a_renderer_that_loses_more_than_wanted_is_kept_and_it_is_said(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = DensityGrid(torch.zeros(3), 0.1, torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.bool))
    monkeypatch.setattr(grid_rendering, "grid_along_rays", lambda *_, **__: empty)
    monkeypatch.setattr(sys.modules[__name__], "LOOSE", 1e-3)
    said: list[str] = []
    bundle = written(golden(moved, "nerf-merged"), tmp_path / "bundle", said)
    assert bundle.scene is not None
    assert bundle.scene.quality is not None
    lost = bundle.scene.quality.lost
    assert lost > 1e-3
    assert f"the bundle's images lose {lost:.2f} dB of PSNR, more than the 0.001 dB wanted" in said
    assert not bundle.render(bundle.cameras[0]).accumulation.any()


def test_the_command_bundles_a_run_as_it_is(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = golden_runs(moved)["dnerf-factors"].relative_to(moved)
    before = sorted(moved.rglob("config.yml"))
    words = [
        "eugen-distill",
        "--load-config",
        config,
        "--layers",
        "none",
        "--device",
        "cpu",
        "--bundle",
        tmp_path / "b",
    ]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    distill.main()
    assert f"eugen-view {tmp_path / 'b'}" in capsys.readouterr().out.replace("\n", "")
    assert sorted(moved.rglob("config.yml")) == before, "no run is written"
    bundle = load_bundle(tmp_path / "b")
    assert bundle.multiply_adds() == golden(moved, "dnerf-factors").model.query_module().macs_per_query()
    assert bundle.render(bundle.cameras[0]).colour.shape == (16, 16, 3)


def test_a_bundle_is_not_made_of_a_method_without_graphs(tiny_stock_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.conversion.bundle_scene.has_graph_copy", lambda model: False)
    with pytest.raises(ConfigError, match="is a run of vanilla-nerf, whose fields are no graphs of layers"):
        bundle_of_run(load_run(tiny_stock_run, device="cpu"))


def test_a_stock_run_is_bundled_as_the_copy_that_renders_as_it_does(
    tiny_stock_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.SURVEY", 8)
    monkeypatch.setattr(grid_rendering, "CELLS", 16)
    config = Path(shutil.copytree(tiny_stock_run.parent, tmp_path / "run")) / "config.yml"
    run = load_run(config, device="cpu")
    exact = render(run.model, run.pipeline)["rgb_fine"]
    field = bundle_of_run(run, quality=LOOSE)
    save_bundle(field, tmp_path / "bundle")
    colour = load_bundle(tmp_path / "bundle").render(field.cameras[0]).colour
    assert float((colour - exact).square().mean()) < 1e-3, "30 dB"


@pytest.fixture
def bundles(moved: Path, tmp_path: Path) -> dict[str, Path]:
    """Bundles whose runs and data sets are gone."""
    for name in ("dnerf-factors", "isdf-factors"):
        written(golden(moved, name), tmp_path / name)
    shutil.rmtree(moved / "data")
    shutil.rmtree(moved / "runs")
    return {name: tmp_path / name for name in ("dnerf-factors", "isdf-factors")}


def test_a_bundle_is_opened_as_a_run(bundles: dict[str, Path]) -> None:
    for path in bundles.values():
        run, bundle = open_bundle(path, device="cpu"), load_bundle(path)
        expected = bundle.render(bundle.cameras[0]).colour
        torch.testing.assert_close(render_rgb(run, view_camera(run, 0)), expected, atol=1e-5, rtol=0)
        with pytest.raises(DataError, match="not the photograph"):
            eval_dataset(run).get_image_float32(0)


def test_the_viewer_shows_bundles(bundles: dict[str, Path]) -> None:
    names = run_names(list(bundles.values()), ())
    assert names == list(bundles)
    shown = {name: open_run(path, name, device="cpu", data=None) for name, path in bundles.items()}
    assert [run.timed for run in shown.values()] == [True, False]
    assert [SurfacePanel.fits(run) for run in shown.values()] == [False, True]
    for name, run in shown.items():
        bundle = load_bundle(bundles[name])
        comparison = RunComparison({name: run}, Renderer(FrameBudget(max_size=64)))
        assert run.cameras is not None
        camera = bundle.cameras[0]
        viewpoint = viewpoint_at_view(run.cameras, 0, camera.width / camera.height)
        frame = comparison.render_frame(viewpoint, (camera.height, camera.width), fine=True)
        image = frame.images[name]
        assert np.abs(image.outputs["rgb"] - bundle.render(camera).colour.numpy()).max() < 1e-4
        assert image.queries is not None
        assert run.costs() == (bundle.inference_parameters(), bundle.multiply_adds())
        assert comparison.readout(frame).rows[0].photograph is None


def test_the_whole_viewer_takes_bundles(bundles: dict[str, Path], tmp_path: Path) -> None:
    shown = [open_run(path, name, device="cpu", data=None) for name, path in bundles.items()]
    port = choose_port("127.0.0.1", None)[0]
    viewer = Viewer(shown, host="127.0.0.1", port=port, output=tmp_path / "out", max_size=32)
    try:
        assert viewer.ready
        assert viewer.time_panel is not None
        assert viewer.compress_panel.teacher is None
    finally:
        viewer.close()


def render_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["eugen-render", *map(str, words)])
    cli.main()


def test_the_command_renders_a_bundle(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, place = bundles["dnerf-factors"], tmp_path / "frames"
    render_command(monkeypatch, path, "--output", place, "--frames", 3, "--device", "cpu")
    bundle = load_bundle(path)
    frames = [np.asarray(Image.open(file)).astype(int) for file in sorted(place.iterdir())]
    assert len(frames) == 3
    assert any((frame != frames[0]).any() for frame in frames)
    run = open_bundle(path, device="cpu")
    camera = view_camera(run, 0)
    for time, frame in zip((0.0, 0.5, 1.0), frames, strict=True):
        camera.times = torch.full_like(camera.times, time)
        assert np.abs(frame - quantise(render_rgb(run, camera)).astype(int)).max() <= 1
    assert bundle.scene is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is one thing to render: give --load-config RUN/config.yml, or a bundle's folder"),
        (["bundle", "--load-config", "run/config.yml"], "there is one thing to render"),
        (["absent"], "absent is no bundle: give a folder with bundle.json, or a run by --load-config"),
        (["bundle", "--exact"], "bundle is a bundle, without the samplers of training: leave out --exact"),
        (["bundle"], "this bundle holds a field without a renderer"),
    ],
)
def test_what_the_command_refuses_of_bundles(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_bundle(load_bundle(GOLDEN / "bundles" / "nerf-converted"), tmp_path / "bundle")
    with pytest.raises(SystemExit) as caught:
        render_command(monkeypatch, *words, "--output", "a.gif", "--device", "cpu")
    assert caught.value.code == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "a.gif").exists()
