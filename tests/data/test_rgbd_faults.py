"""RGB-D data sets made after bug reports: distances of what is read against the ray-traced truth, or the one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.depth_views import depth_views
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig

INPUTS = Path(__file__).resolve().parents[3] / "shared" / "faults" / "inputs"
pytestmark = pytest.mark.skipif(not INPUTS.is_dir(), reason="needs ../shared/faults/inputs")


def distances(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """To a ball of 0.8 m at the origin and to the floor under it, along unit directions; infinite where missed."""
    b = (origins * directions).sum(-1)
    root = b * b - ((origins**2).sum(-1) - 0.64)
    ball = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
    floor = (-0.8 - origins[:, 2]) / directions[:, 2]
    return np.where(ball > 0, ball, np.inf), np.where(floor > 0, floor, np.inf)


def ratios(name: str, **options) -> tuple[np.ndarray, int]:
    """Measured over true distance of random rays, [rays, 2] for ball and floor, NaN for the other; number of frames."""
    config = EugenRGBDDataParserConfig(data=INPUTS / name, eval_interval=0, **options)
    views = depth_views(config.setup().get_dataparser_outputs("train"))
    origins, directions, depth = views.measured(np.random.default_rng(0), 5000)
    length = np.linalg.norm(directions, axis=-1)
    ball, floor = distances(origins, directions / length[:, None])
    first = np.stack([np.where(ball < floor, ball, np.nan), np.where(floor < ball, floor, np.nan)], axis=-1)
    return (depth * length)[:, None] / first, len(views)


@pytest.mark.parametrize(
    ("name", "options", "frames"),
    [
        ("x_halved", {}, 16),
        ("x_splits", {}, 10),
        ("s_infpose", {}, 15),
        ("t_gtgap", {"intrinsics": (60.0, 60.0, 32.0, 24.0)}, 10),
        ("t_rs", {"intrinsics": (460.0, 460.0, 320.0, 180.0), "depth_unit": 0.001}, 8),
    ],
)
def test_distances_are_true(name: str, options: dict, frames: int) -> None:
    found, count = ratios(name, **options)
    assert count == frames
    assert np.abs(np.nanmedian(found, axis=0) - 1).max() < 1e-3
    assert np.nanquantile(np.abs(found - 1), 0.95) < 2e-3


def test_a_fisheye_is_undistorted() -> None:
    """The set's floor is stored along the ray, its ball along the optical axis as all formats have it."""
    found, _ = ratios("x_fisheye")
    assert abs(np.nanmedian(found[:, 0]) - 1) < 2e-3
    assert np.nanquantile(np.abs(found[:, 0] - 1), 0.75) < 6e-3  # the nearest of 64x48 pixels


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("t_rs", {}, "is 640x360 pixels, so its camera is unknown: .* pass --intrinsics"),
        ("t_rs", {"intrinsics": (460.0, 460.0, 320.0, 180.0)}, "pass --depth-unit 0.001$"),
        ("t_gtgap", {}, "is 64x48 pixels, so its camera is unknown: .* pass --intrinsics"),
        ("s_infpose", {"axes": "nerfstudio", "depth_unit": 0.0002}, None),
        ("sdfstudio", {}, "holds no RGB-D sequence"),
        ("b_ok", {}, "holds no RGB-D sequence"),
        ("half", {}, "lacks depth_file_path"),
    ],
)
def test_the_rest_is_one_line(capsys: pytest.CaptureFixture[str], name: str, options: dict, line: str | None) -> None:
    config = EugenRGBDDataParserConfig(data=INPUTS / name, **options)
    if line is None:
        config.setup().get_dataparser_outputs("train")
        assert "warning: the depth images contradict one another" in capsys.readouterr().out
        return
    with pytest.raises(DataError, match=line) as caught:
        config.setup().get_dataparser_outputs("train")
    assert "\n" not in str(caught.value)
