"""Frames along time: cameras, files, the command, and what evaluation asks of a dynamic scene."""

from __future__ import annotations

import copy
import math
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from tiny_runs import few_cells

from eugen_nerf.cli import render as cli
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.compare import evaluate
from eugen_nerf.evaluation.images.film import film_cameras, write_film
from eugen_nerf.evaluation.protocol import Protocol, Timing
from eugen_nerf.evaluation.reports.comparison_page import html_page
from eugen_nerf.fields.counting import macs_per_query
from eugen_nerf.fields.query_timing import random_queries
from eugen_nerf.methods.runs.image_metrics import quantise
from eugen_nerf.methods.runs.loading import load_run, query_module

CENTRE = torch.tensor([0.1, -0.2, 0.3])


@pytest.fixture(autouse=True)
def _few_cells() -> Iterator[None]:
    with few_cells():
        yield


def make_camera(time: float | None = None) -> Cameras:
    position = torch.tensor([2.0, 1.0, 1.5])
    back = torch.nn.functional.normalize(position - CENTRE, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), back), dim=0)
    pose = torch.stack([right, torch.linalg.cross(back, right), back, position], dim=1)[None]
    times = None if time is None else torch.tensor([[time]])
    return Cameras(pose, fx=20.0, fy=21.0, cx=8.5, cy=6.0, width=17, height=12, times=times)


@pytest.mark.parametrize("path", ["fixed", "orbit", "spiral"])
def test_paths_keep_looking_at_the_centre_from_the_same_lens(path: str) -> None:
    camera = make_camera(0.4)
    film = film_cameras(camera, CENTRE, path, 8, (0.2, 0.9))  # type: ignore[arg-type]
    assert film.times is not None
    np.testing.assert_allclose(film.times[:, 0], np.linspace(0.2, 0.9, 8), atol=1e-6)
    torch.testing.assert_close(film.camera_to_worlds[0], camera.camera_to_worlds[0], atol=1e-5, rtol=0)
    for name in ("fx", "fy", "cx", "cy", "width", "height", "camera_type"):
        assert torch.equal(getattr(film, name), getattr(camera, name).expand(8, 1))
    for pose in film.camera_to_worlds.double():
        torch.testing.assert_close(pose[:, :3] @ pose[:, :3].T, torch.eye(3, dtype=torch.double), atol=1e-6, rtol=0)
        to_centre = CENTRE.double() - pose[:, 3]
        torch.testing.assert_close(to_centre / to_centre.norm(), -pose[:, 2], atol=1e-6, rtol=0)
    positions = film.camera_to_worlds[:, :, 3]
    moved = (positions - positions[0]).norm(dim=1)
    if path == "fixed":
        assert moved.max() == 0
    elif path == "orbit":
        torch.testing.assert_close(positions[:, 2], positions[:1, 2].expand(8))
        turned = torch.atan2(*(positions - CENTRE)[:, [1, 0]].T)
        steps = (turned.diff() + 2 * math.pi) % (2 * math.pi)
        torch.testing.assert_close(steps, torch.full((7,), 2 * math.pi / 8), atol=1e-5, rtol=0)
    else:
        distance = (positions[0] - CENTRE).norm()
        torch.testing.assert_close(moved.max(), 2 * 0.15 * distance, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "times"), [(0, (0.0, 1.0)), (3, (-0.1, 1.0)), (3, (0.0, 1.01))])
def test_impossible_films_are_refused(frames: int, times: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"frame|outside"):
        film_cameras(make_camera(), CENTRE, "fixed", frames, times)


def frames(count: int = 4) -> list[np.ndarray]:
    """Odd sides, which films cannot have, and a colour that changes over time."""
    found = np.zeros((count, 31, 45, 3), np.uint8)
    found[:, :, :, 0] = np.linspace(20, 220, count)[:, None, None]
    found[:, :, 20:, 1] = 180
    return list(found)


@pytest.mark.parametrize("name", ["film.mp4", "film.gif", "strip.png", "folder"])
def test_what_is_written_reads_back(name: str, tmp_path: Path) -> None:
    images, place = frames(), tmp_path / "new" / name
    write_film(images, place, fps=12)
    assert [path.name for path in place.parent.iterdir()] == [name], "no temporary is left"
    if name == "folder":
        back = [np.asarray(Image.open(file)) for file in sorted(place.iterdir())]
        assert all(np.array_equal(a, b) for a, b in zip(back, images, strict=True))
    elif name == "strip.png":
        found = np.asarray(Image.open(place))
        assert found.shape == (31, 4 * 45 + 3 * 2, 3)
        assert all(np.array_equal(found[:, i * 47 : i * 47 + 45], image) for i, image in enumerate(images))
    else:
        read = iio.imread(place, plugin="pyav" if name.endswith("mp4") else "pillow")[..., :3]
        assert len(read) == 4
        for a, b in zip(read, images, strict=True):
            assert np.abs(a[:31, :45].astype(float) - b).mean() < 6, "lossy, and not another frame"


def test_a_failed_film_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    for name in ("strip.png", "folder"):
        with pytest.raises(RunError, match=r"cannot write .*No space left on device"):
            write_film(frames(), tmp_path / name, fps=1)
    assert not list(tmp_path.iterdir())


def run_cli(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["eugen-render", *map(str, words)])
    cli.main()


def test_the_command_renders_each_time(
    tiny_stock_dnerf_run: Path, tiny_dense_dnerf_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate((tiny_stock_dnerf_run, tiny_dense_dnerf_run)):
        place = tmp_path / f"frames{number}"
        words = ["--load-config", path, "--output", place, "--frames", 3, "--times", 1, 0, "--view", 2]
        run_cli(monkeypatch, *words, "--device", "cpu", "--exact")
        files = sorted(place.iterdir())
        assert len(files) == 3
        run = load_run(path, device="cpu")
        for time, file in zip((1.0, 0.5, 0.0), files, strict=True):
            camera = copy.deepcopy(run.pipeline.datamanager.eval_dataset.cameras[2:3])
            camera.times = torch.tensor([[time]])
            outputs = run.model.get_outputs_for_camera(camera)
            expected = quantise(outputs["rgb" if "rgb" in outputs else "rgb_fine"])
            assert np.array_equal(np.asarray(Image.open(file)), expected)
        assert len({file.read_bytes() for file in files}) > 1, "time makes a difference"


def test_the_command_renders_by_a_grid_where_nothing_else_is_said(
    tiny_dense_dnerf_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_dense_dnerf_run.parent, folder)
    words = ["--load-config", folder / "config.yml", "--output", tmp_path / "frames", "--frames", 1, "--quality", 30]
    run_cli(monkeypatch, *words, "--device", "cpu")
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"rendered by a grid: \d+\.\d queries a ray, eager plans in \w+ on cpu, loses", printed)
    assert (folder / "renderer.safetensors").is_file()
    assert len([*(tmp_path / "frames").iterdir()]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "film.avi"], "film.avi is no .mp4, .gif or .png"),
        (["--output", "taken.gif"], "taken.gif exists: choose another --output, or pass --overwrite"),
        (["--output", "full"], "the folder full is not empty"),
        (["--output", "a.gif", "--view", "7"], "the split has views 0 to 2"),
        (["--output", "a.gif", "--times", "0", "2"], "times 0 to 2 are outside [0, 1]"),
        (["--output", "a.gif", "--fps", "0"], "--fps must be at least 0.01 and at most 1000"),
        (["--output", "a.gif", "--fps", "inf"], "--fps must be at least 0.01 and at most 1000"),
    ],
)
def test_what_the_command_refuses(
    words: list[str],
    message: str,
    tiny_dense_dnerf_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.gif").write_bytes(b"old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"old")
    with pytest.raises(SystemExit) as caught:
        run_cli(monkeypatch, "--load-config", tiny_dense_dnerf_run, *words, "--device", "cpu")
    assert caught.value.code == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "a.gif").exists()


def test_a_scene_without_times_needs_a_moving_camera(
    tiny_eugen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--load-config", tiny_eugen_run, "--output", tmp_path / "strip.png", "--frames", 2, "--device", "cpu"]
    with pytest.raises(SystemExit):
        run_cli(monkeypatch, *words)
    assert "without times, so a fixed camera renders one image: take --path orbit or spiral" in capfd.readouterr().err
    run_cli(monkeypatch, *words, "--path", "orbit")
    pixels = np.asarray(Image.open(tmp_path / "strip.png"))
    assert pixels.shape == (16, 34, 3)
    assert not np.array_equal(pixels[:, :16], pixels[:, 18:])


def test_a_query_is_deformation_and_canonical_field(tiny_stock_dnerf_run: Path, tiny_dense_dnerf_run: Path) -> None:
    samples = random_queries(40, seed=1, device="cpu")
    assert samples.times is not None
    assert 0 <= samples.times.min() < 0.2
    assert 0.8 < samples.times.max() <= 1
    for path in (tiny_stock_dnerf_run, tiny_dense_dnerf_run):
        model = load_run(path, device="cpu").model
        positions = samples.frustums.get_positions()
        with torch.no_grad():
            if path == tiny_stock_dnerf_run:
                offsets, count = model.temporal_distortion(positions, samples.times), 84 * 256 + 2 * 256**2 + 256 * 3
            else:
                offsets, count = model.deformation(samples), model.deformation.macs_per_query()
            moved = copy.deepcopy(samples)
            moved.frustums.origins = moved.frustums.origins + offsets
            expected, found = model.field_fine(moved), query_module(model)(samples)
        for key in found:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)
        both, canonical = (macs_per_query(m, "cpu")[0] for m in (query_module(model), model.field_fine))
        assert both is not None
        assert canonical is not None
        assert both == canonical + count
        total = sum(p.numel() for p in query_module(model).parameters())
        deformation = model.temporal_distortion if path == tiny_stock_dnerf_run else model.deformation
        assert total == sum(p.numel() for m in (deformation, model.field_fine) for p in m.parameters())


def test_the_report_shows_frames_over_time(tiny_dense_dnerf_run: Path, tiny_eugen_run: Path) -> None:
    timing = Timing(warmup=0, repeats=1, num_queries=64, split_repeats=1)
    found = evaluate([tiny_dense_dnerf_run], protocol=Protocol(frames_over_time=3), timing=timing, device="cpu")
    assert found.times == [0.0, 0.5, 1.0]
    assert [len(images) for images in found.frames.values()] == [3]
    page = html_page(found)
    assert "<h2>Frames over time</h2>" in page
    assert "at times 0, 0.5, 1." in page
    row = found.rows[0]
    run = load_run(tiny_dense_dnerf_run, device="cpu")
    assert row["macs_per_query"] == query_module(run.model).macs_per_query()  # type: ignore[operator]
    assert row["image_split"]["MLP"] > 0
    still = evaluate([tiny_eugen_run], protocol=Protocol(), timing=timing, device="cpu")
    assert not still.frames
    assert "Frames over time" not in html_page(still)
