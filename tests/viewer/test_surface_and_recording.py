"""Slices and probes of a signed distance that is known exactly; images, paths and films on disk; times printed."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import viser.transforms as vtf
from matplotlib import colormaps
from PIL import Image
from rich.console import Console

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_viewer.recording import CameraPath, record_film, save_image, save_path, unused_path
from eugen_viewer.shown_runs import ShownRun, open_run
from eugen_viewer.surface_view import make_slice_plane, probe_ray
from eugen_viewer.timing.self_timing import print_timing
from eugen_viewer.viewer_cameras import Viewpoint

CENTRE, RADIUS = torch.tensor([0.2, -0.1, 0.3]), 0.5
BOUNDS = np.array([[-1.0, -1.2, -0.8], [1.4, 1.0, 1.2]])


class Ball:
    """A ball in free space."""

    def distance(self, points: torch.Tensor) -> torch.Tensor:
        return (points - CENTRE).norm(dim=-1) - RADIUS

    def distance_and_gradient(self, points: torch.Tensor, create_graph: bool = False) -> tuple[torch.Tensor, ...]:
        away = points - CENTRE
        return self.distance(points), away / away.norm(dim=-1, keepdim=True)


BALL = SignedDistance(Ball(), BOUNDS)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_pixel_of_a_slice_stands_where_its_distance_is(axis: int) -> None:
    slice_plane = make_slice_plane(BALL, axis, 0.25, 1.0)
    height, width = slice_plane.image.shape[:2]
    rotation = vtf.SO3(slice_plane.wxyz).as_matrix()
    assert np.linalg.det(rotation) == pytest.approx(1)
    for row, column in ((3, 5), (height - 4, 9), (height // 2, width - 6)):
        # the image's axes: to the right and down from its middle
        local = np.array(
            [((column + 0.5) / width - 0.5) * slice_plane.width, ((row + 0.5) / height - 0.5) * slice_plane.height, 0]
        )
        point = slice_plane.centre + rotation @ local
        assert point[axis] == pytest.approx(0.25)
        value = float(BALL.distance(point[None].astype(np.float32))[0])
        wanted = np.array(colormaps["RdBu_r"](np.clip(0.5 + 0.5 * value, 0, 1))[:3]) * 255
        assert np.abs(slice_plane.image[row, column] - wanted).max() <= 1.5


def test_a_slice_has_the_surface_in_black_and_stays_in_the_box() -> None:
    slice_plane = make_slice_plane(BALL, 2, 99.0, 1.0)
    assert slice_plane.centre[2] == pytest.approx(1.2)
    cut = make_slice_plane(BALL, 2, 0.3, 1.0)
    black = (cut.image == 0).all(axis=-1)
    cell = cut.width / cut.image.shape[1]
    assert black.sum() == pytest.approx(2 * np.pi * RADIUS / cell, rel=0.5)


def test_a_ray_finds_the_surface_or_the_slice_whichever_comes_first() -> None:
    origin, towards = np.array([-0.9, -0.1, 0.3]), np.array([2.0, 0.0, 0.0])
    probe = probe_ray(BALL, origin, towards, None)
    assert probe is not None
    assert probe.where == "surface"
    assert probe.point == pytest.approx([-0.3, -0.1, 0.3], abs=1e-3)
    assert probe.distance == pytest.approx(0, abs=1e-3)
    assert probe.gradient == pytest.approx([-1, 0, 0], abs=1e-3)
    probe = probe_ray(BALL, origin, towards, (0, -0.7))
    assert probe is not None
    assert probe.where == "slice"
    assert probe.distance == pytest.approx(0.4, abs=1e-5)
    assert "distance +0.4000 m" in probe.markdown()
    probe = probe_ray(BALL, origin, towards, (0, 0.9))  # behind the surface
    assert probe is not None
    assert probe.where == "surface"


def test_a_ray_that_meets_nothing_finds_nothing() -> None:
    assert probe_ray(BALL, np.array([-0.9, -0.9, 0.3]), np.array([0.0, 0.0, 1.0]), None) is None
    assert probe_ray(BALL, np.array([5.0, 5.0, 5.0]), np.array([1.0, 0.0, 0.0]), (2, 0.0)) is None


def viewpoints() -> list[Viewpoint]:
    pose = torch.eye(4, dtype=torch.float64)[:3]
    moved = pose.clone()
    moved[0, 3] = 1.0
    return [Viewpoint(pose, 0.8, 1.5), Viewpoint(moved, 0.8, 1.5)]


def test_pictures_paths_and_films_are_written(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    save_image(image, tmp_path / "new" / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    save_path(CameraPath(viewpoints()), tmp_path / "path.json", 16, 24, 6, 2.0)
    document = json.loads((tmp_path / "path.json").read_text())
    assert (len(document["camera_path"]), document["fps"], document["render_width"]) == (6, 3.0, 24)
    reported: list[float] = []
    record_film(
        CameraPath(viewpoints()).along(4),
        lambda viewpoint: image,
        tmp_path / "a.mp4",
        8.0,
        lambda share, what: reported.append(share),
    )
    assert iio.imread(tmp_path / "a.mp4", plugin="pyav").shape == (4, 16, 24, 3)
    assert reported == sorted(reported)
    assert not list(tmp_path.glob("*partial*"))


def test_recording_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two cameras, and it has 1"):
        CameraPath(viewpoints()[:1]).along(5)
    with pytest.raises(ConfigError, match="at least 2 frames"):
        CameraPath(viewpoints()).along(1)
    with pytest.raises(RunError, match="start it again"):
        record_film(viewpoints(), lambda viewpoint: None, tmp_path / "b.mp4", 8.0, lambda share, what: None)
    assert not list(tmp_path.iterdir())


def test_names_of_files_are_never_taken(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        names.append(unused_path(tmp_path, "frame", ".png"))
        names[-1].touch()
    assert len(set(names)) == 3


def test_times_are_printed(tiny_dense_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_viewer.timing.self_timing.SIDE", 16)
    monkeypatch.setattr("eugen_viewer.timing.self_timing.FRAMES", 3)
    shown_run: ShownRun = open_run(tiny_dense_run, "dense", device="cpu", data=None)
    text = io.StringIO()
    print_timing([shown_run], Console(file=text, width=200), max_size=32, started=time.perf_counter())
    for line in ("start to first image", "orbiting, 16 x 16", "moments gathered once", "refit of a layer 256 -> 256"):
        assert line in text.getvalue()
