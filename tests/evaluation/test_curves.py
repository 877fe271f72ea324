"""Held-out PSNR read back from event files that nerfstudio's own writer wrote."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from event_files import TensorboardWriter, write_events
from nerfstudio.utils import writer

from eugen_nerf.evaluation.reports.svg_plots import psnr_curves_svg
from eugen_nerf.evaluation.reports.training_curves import curve_line, psnr_curve


def test_curve_is_read_back(tmp_path: Path) -> None:
    write_events(tmp_path, {500: 18.25, 1000: 20.125})
    assert psnr_curve(tmp_path) == [(500, 18.25), (1000, 20.125)]


def test_a_run_that_was_taken_up_again_has_one_curve(tmp_path: Path) -> None:
    write_events(tmp_path, {500: 18.0, 1000: 20.0, 1500: 19.0})
    write_events(tmp_path, {1000: 21.0, 2000: 24.0})
    curve = psnr_curve(tmp_path)
    assert [step for step, _ in curve] == sorted({step for step, _ in curve})
    assert dict(curve)[1000] == 21.0  # the later run's
    assert curve[0] == (500, 18.0)
    assert curve[-1] == (2000, 24.0)


def test_no_events_no_curve(tmp_path: Path) -> None:
    assert psnr_curve(tmp_path / "absent") == []
    assert psnr_curve(tmp_path) == []
    write_events(tmp_path, {500: 18.0}, group="Eval Images Metrics")  # one image only: not the curve
    assert psnr_curve(tmp_path) == []


def test_a_broken_file_does_not_stop_an_evaluation(tmp_path: Path) -> None:
    write_events(tmp_path, {500: 18.0})
    (file,) = tmp_path.glob("events.*")
    file.write_bytes(file.read_bytes() + b"cut in the middle of a record")
    assert psnr_curve(tmp_path) == [(500, 18.0)]


def test_many_points_are_read_and_few_are_printed(tmp_path: Path) -> None:
    points = {100 * i: float(i) for i in range(1, 2001)}
    write_events(tmp_path, points)
    curve = psnr_curve(tmp_path)
    assert len(curve) == 2000
    line = curve_line("run", curve)
    assert line.startswith("run: held-out PSNR while training: step 100 1.0, step ")
    assert line.endswith(", step 200000 2000.0")
    assert line.count("step") == 8


def test_line_of_a_short_curve() -> None:
    assert curve_line("a", [(500, 18.24), (1000, 20.1)]) == (
        "a: held-out PSNR while training: step 500 18.2, step 1000 20.1"
    )
    assert curve_line("a", [(5, 1.0)]).endswith("training: step 5 1.0")


def test_what_nerfstudios_trainer_writes(train_tiny: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag is nerfstudio's: were it to change, curves would vanish in silence."""
    _, trainer = train_tiny()
    events = TensorboardWriter(log_dir=tmp_path)
    monkeypatch.setattr(writer, "EVENT_WRITERS", [events])  # all other runs of this process would hear of it
    monkeypatch.setattr(writer, "EVENT_STORAGE", [])
    trainer.config.steps_per_eval_all_images = 5
    trainer.config.steps_per_eval_batch = trainer.config.steps_per_eval_image = 1000
    trainer.eval_iteration(10)
    writer.write_out_storage()
    events.tb_writer.close()
    expected = trainer.pipeline.get_average_eval_image_metrics()["psnr"]
    assert psnr_curve(tmp_path) == [(10, pytest.approx(expected, rel=1e-5))]


def test_plot_has_a_line_for_each_run_that_has_a_curve() -> None:
    rows = [{"variant": name, "psnr_curve": [[1, 2.0], [3, 4.0]]} for name in ("one", "two")]
    rows += [{"variant": "three", "psnr_curve": []}, {"variant": "white", "psnr_curve": None}]
    svg = psnr_curves_svg(json.loads(json.dumps(rows)))
    assert "training step" in svg
    assert [name in svg for name in ("one", "two", "three", "white")] == [True, True, False, False]
    assert psnr_curves_svg(rows[2:]) == ""
