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
from eugen_viewer.background_jobs import Jobs, Latest
from eugen_viewer.frame_budget import Pace
from eugen_viewer.frame_rendering import Abandoned, Renderer
from eugen_viewer.pictures import Look
from eugen_viewer.show import Show
from eugen_viewer.shown_runs import Viewed, counting_queries, open_run, run_names
from eugen_viewer.viewer_cameras import view_eye


@pytest.fixture(scope="module")
def pair(tiny_dense_run: Path, tiny_stock_run: Path) -> list[Viewed]:
    """Ours and a stock run."""
    return [open_run(p, n, device="cpu", data=None) for p, n in ((tiny_dense_run, "ours"), (tiny_stock_run, "stock"))]


def show_of(viewed: list[Viewed], **changes: Any) -> Show:
    show = Show({v.name: v for v in viewed}, Renderer(Pace(largest=64)))
    show.choose(**changes)
    return show


def test_pictures_of_a_test_view_equal_those_of_evaluation(pair: list[Viewed]) -> None:
    show = show_of(pair)
    for view in (0, 2):
        assert show.base.cameras is not None
        eye = view_eye(show.base.cameras, view, 1.6)
        shot = show.shoot(eye, (16, 16), fine=True)
        for viewed in pair:
            exact = render_rgb(viewed.run, view_camera(viewed.run, view)).numpy()
            assert np.abs(shot.pictures[viewed.name].outputs["rgb"] - exact).max() < 1e-5
        left, right = (quantise(render_rgb(v.run, view_camera(v.run, view))) for v in pair)
        readout = show.readout(shot)
        assert readout.view == view
        assert readout.mutual == pytest.approx(psnr(left, right), abs=0.05)
        truth = ground_truth(pair[0].run, [view])[0]
        assert readout.rows[0].photograph == pytest.approx(psnr(left, truth), abs=0.05)


def test_a_free_camera_equals_nerfstudios(pair: list[Viewed]) -> None:
    show = show_of(pair, second=None)
    assert show.base.cameras is not None
    eye = view_eye(show.base.cameras, 1, 1.25)
    free = type(eye)(eye.pose, eye.fov, eye.aspect)
    picture = show.shoot(free, (16, 20)).pictures["ours"]
    exact = pair[0].model.get_outputs_for_camera(free.camera(16, 20))["rgb"].numpy()
    assert np.abs(picture.outputs["rgb"] - exact).max() < 1e-5
    assert show.readout(show.shoot(free, (16, 20), fine=True)).rows[0].photograph is None


def test_what_is_hidden_is_not_rendered_while_the_camera_moves(pair: list[Viewed]) -> None:
    show = show_of(pair, split=0.25)
    assert show.base.cameras is not None
    shot = show.shoot(view_eye(show.base.cameras, 0, 1.0), (16, 16), seen_only=True)
    assert [shot.pictures[n].columns for n in ("ours", "stock")] == [(0, 4), (4, 16)]
    whole = show.shoot(shot.eye, (16, 16))
    first, second = show.compose(shot), show.compose(whole)
    assert first is not None
    assert second is not None
    assert np.abs(first.astype(int) - second).max() <= 1
    assert shot.pictures["ours"].whole_seconds == pytest.approx(4 * shot.pictures["ours"].seconds)
    assert show.readout(shot).mutual is None


def test_queries_are_counted_for_ours_and_for_stock_models(pair: list[Viewed]) -> None:
    for viewed in pair:
        camera = view_camera(viewed.run, 0)
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()[:10]
        with counting_queries(viewed.model) as counts, torch.no_grad():
            viewed.model.forward(ray_bundle=bundle)
        # 8 coarse samples a ray, and 8 more with those again in the fine field; ours leaves empty cells out
        assert (sum(counts) <= 10 * (8 + 17)) if viewed.name == "ours" else (sum(counts) == 10 * (8 + 17))
        assert sum(counts) > 0
        assert not any({"evaluate", "get_density"} & vars(m).keys() for m in viewed.model.modules())


def test_a_picture_that_is_not_wanted_is_given_up(pair: list[Viewed]) -> None:
    show = show_of(pair)
    assert show.base.cameras is not None
    with pytest.raises(Abandoned):
        show.shoot(view_eye(show.base.cameras, 0, 1.0), (16, 16), wanted=lambda: False)
    assert not show.renderer.lock.locked()


def test_a_model_that_fails_is_one_line(pair: list[Viewed], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(pair[0].model, "forward", fail)
    show = show_of(pair)
    assert show.base.cameras is not None
    with pytest.raises(RunError, match=r"cannot render this view: RuntimeError: out of memory$"):
        show.shoot(view_eye(show.base.cameras, 0, 1.0), (16, 16))
    assert not show.renderer.lock.locked()


def test_choices_that_cannot_be_are_refused_and_one_run_is_never_split(pair: list[Viewed]) -> None:
    show = show_of(pair)
    with pytest.raises(ConfigError, match="no run 'third' is loaded; there are ours, stock"):
        show.choose(second="third")
    assert show.choose(second=None).look.mode == "first"
    assert show.choose(second="stock", mode="difference").needed() == ["ours", "stock"]
    assert show.choose(first="ours", second="ours").needed() == ["ours"]
    assert show.choose(mode="second").look == Look("second")


def test_runs_whose_data_are_gone_are_shown_without_photographs(
    train_tiny: Callable[..., Any], tmp_path: Path, tiny_blender: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_blender, data)
    path, _ = train_tiny(variant="dense")
    copied = tmp_path / "run"
    shutil.copytree(path.parent, copied)
    viewed = open_run(copied / "config.yml", "gone", device="cpu", data=data)
    show = show_of([viewed])
    assert show.base.cameras is not None
    eye = view_eye(show.base.cameras, 0, 1.0)
    assert show.readout(show.shoot(eye, (16, 16), fine=True)).rows[0].photograph is not None
    shutil.rmtree(data)
    shutil.rmtree(copied)
    other = view_eye(show.base.cameras, 1, 1.0)
    readout = show.readout(show.shoot(other, (16, 16), fine=True))
    assert readout.rows[0].photograph is None
    assert readout.rows[0].seconds is not None


def test_names_tell_runs_apart() -> None:
    paths = [Path(f"/runs/{e}/eugen-nerf/{t}/config.yml") for e, t in (("a", "1"), ("b", "1"))]
    assert run_names(paths, ()) == ["a", "b"]
    same = [Path(f"/runs/a/eugen-nerf/{t}/config.yml") for t in "12"]
    assert len(set(run_names(same, ()))) == 2
    assert (
        run_names([paths[0], paths[0]], ()) == ["a/eugen-nerf/1 (1)", "a/eugen-nerf/1 (2)"]
        or len(set(run_names([paths[0], paths[0]], ()))) == 2
    )
    assert run_names(paths, ("x", "y")) == ["x", "y"]


def test_long_work_reports_ends_and_fails_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, float | None, str]] = []
    jobs = Jobs(lambda *line: told.append(line))
    assert jobs.start("good", lambda progress: (progress(0.5, "half"), "done")[1])
    jobs.wait("good", 5)
    assert told[-2:] == [("good", 0.5, "half"), ("good", 1.0, "done")]

    def refuse(_: object) -> str:
        raise ConfigError("choose another")

    def break_(_: object) -> str:
        raise KeyError("a defect")

    jobs.start("bad", refuse)
    jobs.wait("bad", 5)
    assert told[-1] == ("bad", 1.0, "failed: choose another")
    jobs.start("worse", break_)
    jobs.wait("worse", 5)
    assert told[-1][2].startswith("failed: KeyError")
    assert "Traceback" in capsys.readouterr().err


def test_only_the_newest_value_is_worked_on() -> None:
    import threading

    gate, seen = threading.Event(), []

    def act(value: int) -> None:
        gate.wait(5)
        seen.append(value)

    latest: Latest[int] = Latest(act)
    latest.put(0)
    while not latest._busy:
        pass
    for value in range(1, 6):
        latest.put(value)
    gate.set()
    assert latest.settled(5)
    assert seen == [0, 5]


def test_costs_are_those_of_evaluation(pair: list[Viewed]) -> None:
    from eugen_nerf.evaluation.costs.resources import inference_parameters
    from eugen_nerf.methods.runs.loading import query_module

    for viewed in pair:
        parameters, macs = viewed.costs()
        assert parameters == inference_parameters(query_module(viewed.model))
        assert macs is not None
        assert macs > 0
    assert math.isfinite(parameters)
