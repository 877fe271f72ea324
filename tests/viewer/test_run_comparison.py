"""What is shown equals what evaluation renders, its numbers are right, and sessions survive what can go wrong."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.images.ground_truth import ground_truth
from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.methods.runs.image_metrics import psnr, quantise
from eugen_nerf.methods.runs.run_paths import run_names
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import RenderCancelled, Renderer
from eugen_viewer.image_composition import DisplaySettings
from eugen_viewer.run_comparison import RunComparison
from eugen_viewer.shown_runs import ShownRun, counting_queries, open_run
from eugen_viewer.viewer_cameras import viewpoint_at_view


@pytest.fixture(scope="module")
def pair(tiny_dense_run: Path, tiny_stock_run: Path) -> list[ShownRun]:
    """Ours and a stock run."""
    return [open_run(p, n, device="cpu", data=None) for p, n in ((tiny_dense_run, "ours"), (tiny_stock_run, "stock"))]


def comparison_of(shown_run: list[ShownRun], **changes: Any) -> RunComparison:
    comparison = RunComparison({v.name: v for v in shown_run}, Renderer(FrameBudget(max_size=64)))
    comparison.choose(**changes)
    return comparison


def test_pictures_of_a_test_view_equal_those_of_evaluation(pair: list[ShownRun]) -> None:
    comparison = comparison_of(pair)
    for view in (0, 2):
        assert comparison.base.cameras is not None
        viewpoint = viewpoint_at_view(comparison.base.cameras, view, 1.6)
        frame = comparison.render_frame(viewpoint, (16, 16), fine=True)
        for shown_run in pair:
            exact = render_rgb(shown_run.run, view_camera(shown_run.run, view)).numpy()
            assert np.abs(frame.images[shown_run.name].outputs["rgb"] - exact).max() < 1e-5
        left, right = (quantise(render_rgb(v.run, view_camera(v.run, view))) for v in pair)
        readout = comparison.readout(frame)
        assert readout.view == view
        assert readout.mutual == pytest.approx(psnr(left, right), abs=0.05)
        truth = ground_truth(pair[0].run, [view])[0]
        assert readout.rows[0].photograph == pytest.approx(psnr(left, truth), abs=0.05)


def test_a_free_camera_equals_nerfstudios(pair: list[ShownRun]) -> None:
    comparison = comparison_of(pair, second=None)
    assert comparison.base.cameras is not None
    viewpoint = viewpoint_at_view(comparison.base.cameras, 1, 1.25)
    free = type(viewpoint)(viewpoint.pose, viewpoint.fov, viewpoint.aspect)
    image = comparison.render_frame(free, (16, 20)).images["ours"]
    exact = pair[0].model.get_outputs_for_camera(free.camera(16, 20))["rgb"].numpy()
    assert np.abs(image.outputs["rgb"] - exact).max() < 1e-5
    assert comparison.readout(comparison.render_frame(free, (16, 20), fine=True)).rows[0].photograph is None


def test_what_is_hidden_is_not_rendered_while_the_camera_moves(pair: list[ShownRun]) -> None:
    comparison = comparison_of(pair, split=0.25)
    assert comparison.base.cameras is not None
    frame = comparison.render_frame(viewpoint_at_view(comparison.base.cameras, 0, 1.0), (16, 16), visible_only=True)
    assert [frame.images[n].columns for n in ("ours", "stock")] == [(0, 4), (4, 16)]
    whole = comparison.render_frame(frame.viewpoint, (16, 16))
    first, second = comparison.compose(frame), comparison.compose(whole)
    assert first is not None
    assert second is not None
    assert np.abs(first.astype(int) - second).max() <= 1
    assert frame.images["ours"].whole_seconds == pytest.approx(4 * frame.images["ours"].seconds)
    assert comparison.readout(frame).mutual is None


def test_queries_are_counted_for_ours_and_for_stock_models(pair: list[ShownRun]) -> None:
    for shown_run in pair:
        camera = view_camera(shown_run.run, 0)
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()[:10]
        with counting_queries(shown_run.model) as counts, torch.no_grad():
            shown_run.model.forward(ray_bundle=bundle)
        # 8 coarse samples a ray, and 8 more with those again in the fine field; ours leaves empty cells out
        assert (sum(counts) <= 10 * (8 + 17)) if shown_run.name == "ours" else (sum(counts) == 10 * (8 + 17))
        assert sum(counts) > 0
        assert not any({"evaluate", "get_density"} & vars(m).keys() for m in shown_run.model.modules())


def test_a_picture_that_is_not_wanted_is_given_up(pair: list[ShownRun]) -> None:
    comparison = comparison_of(pair)
    assert comparison.base.cameras is not None
    with pytest.raises(RenderCancelled):
        comparison.render_frame(viewpoint_at_view(comparison.base.cameras, 0, 1.0), (16, 16), wanted=lambda: False)
    assert not comparison.renderer.lock.locked()


def test_a_model_that_fails_is_one_line(pair: list[ShownRun], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(pair[0].model, "forward", fail)
    comparison = comparison_of(pair)
    assert comparison.base.cameras is not None
    with pytest.raises(RunError, match=r"cannot render this view: RuntimeError: out of memory$"):
        comparison.render_frame(viewpoint_at_view(comparison.base.cameras, 0, 1.0), (16, 16))
    assert not comparison.renderer.lock.locked()


def test_choices_that_cannot_be_are_refused_and_one_run_is_never_split(pair: list[ShownRun]) -> None:
    comparison = comparison_of(pair)
    with pytest.raises(ConfigError, match="no run 'third' is loaded; there are ours, stock"):
        comparison.choose(second="third")
    assert comparison.choose(second=None).settings.mode == "first"
    assert comparison.choose(second="stock", mode="difference").needed() == ["ours", "stock"]
    assert comparison.choose(first="ours", second="ours").needed() == ["ours"]
    assert comparison.choose(mode="second").settings == DisplaySettings("second")


def test_runs_whose_data_are_gone_are_shown_without_photographs(
    train_tiny: Callable[..., Any], tmp_path: Path, tiny_blender: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_blender, data)
    path, _ = train_tiny(variant="dense")
    copied = tmp_path / "run"
    shutil.copytree(path.parent, copied)
    shown_run = open_run(copied / "config.yml", "gone", device="cpu", data=data)
    comparison = comparison_of([shown_run])
    assert comparison.base.cameras is not None
    viewpoint = viewpoint_at_view(comparison.base.cameras, 0, 1.0)
    assert comparison.readout(comparison.render_frame(viewpoint, (16, 16), fine=True)).rows[0].photograph is not None
    shutil.rmtree(data)
    shutil.rmtree(copied)
    other = viewpoint_at_view(comparison.base.cameras, 1, 1.0)
    readout = comparison.readout(comparison.render_frame(other, (16, 16), fine=True))
    assert readout.rows[0].photograph is None
    assert readout.rows[0].seconds is not None


def test_names_tell_runs_apart() -> None:
    paths = [Path(f"/runs/{e}/eugen-nerf/{t}/config.yml") for e, t in (("a", "1"), ("b", "1"))]
    assert run_names(paths, ()) == ["a", "b"]
    same = [Path(f"/runs/a/eugen-nerf/{t}/config.yml") for t in "12"]
    assert len(set(run_names(same, ()))) == 2
    assert run_names([paths[0], paths[0]], ()) == ["runs/a/eugen-nerf/1 (1)", "runs/a/eugen-nerf/1 (2)"]
    assert run_names(paths, ("x", "y")) == ["x", "y"]
    assert run_names(paths, (), reserved=("b",)) == ["a/eugen-nerf", "b/eugen-nerf"]


def test_costs_are_those_of_evaluation(pair: list[ShownRun]) -> None:
    from eugen_nerf.evaluation.costs.resources import inference_parameters
    from eugen_nerf.methods.runs.loading import query_module

    for shown_run in pair:
        parameters, macs = shown_run.costs()
        assert parameters == inference_parameters(query_module(shown_run.model))
        assert macs is not None
        assert macs > 0
    assert math.isfinite(parameters)
