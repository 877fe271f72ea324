"""Depth and colour through bent lenses: a slanted wall, drawn with OpenCV's own inverse of each lens."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.undistortion import Lens, undistortion_maps, visible_share
from eugen_nerf.data.rgbd.depth_rays import RGBDDataset
from eugen_nerf.data.rgbd.depth_views import depth_views
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig

WIDTH, HEIGHT, FX, FY, CX, CY = 96, 72, 70.0, 68.0, 47.0, 37.0
PLAIN = {"fl_x": FX, "fl_y": FY, "cx": CX, "cy": CY, "w": WIDTH, "h": HEIGHT}
MATRIX = np.array([[FX, 0, CX - 0.5], [0, FY, CY - 0.5], [0, 0, 1]])  # OpenCV counts from the first pixel's centre
UNIT = 1e-4

LENSES: dict[str, tuple[dict, bool, list[float]]] = {
    "barrel": ({"k1": -0.25, "k2": 0.06, "p1": 0.004, "p2": -0.006}, False, [-0.25, 0.06, 0.004, -0.006]),
    "pincushion": ({"camera_model": "OPENCV", "k1": 0.12, "k3": 0.01}, False, [0.12, 0.0, 0.0, 0.0, 0.01]),
    "listed": ({"distortion_params": [-0.2, 0.03, 0, 0, 0.002, 0.001]}, False, [-0.2, 0.03, 0.002, 0.001]),
    "rational": (
        {"camera_model": "FULL_OPENCV", "k1": 0.3, "k2": 0.1, "k3": 0.02, "k4": 0.5, "k5": 0.1, "k6": 0.03},
        False,
        [0.3, 0.1, 0, 0, 0.02, 0.5, 0.1, 0.03],
    ),
    "fisheye": ({"camera_model": "OPENCV_FISHEYE", "k1": -0.03, "k2": 0.01}, True, [-0.03, 0.01, 0.0, 0.0]),
    "plain fisheye": ({"is_fisheye": True}, True, [0.0, 0.0, 0.0, 0.0]),
}  # fmt: skip
"""Keys of transforms.json, whether the lens is a fisheye, and OpenCV's factors."""


def wall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth of a slanted wall where a ray goes x to the right and y down for one forward, metres."""
    return 2.0 / (1.0 + 0.25 * x - 0.2 * y)


def tint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth colour of each direction, uint8 [..., 3]."""
    return np.clip(np.stack([128 + 100 * x, 128 + 100 * y, 128 + 60 * (x + y)], axis=-1), 0, 255).astype(np.uint8)


def directions(fisheye: bool, factors: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """x to the right and y down for one forward, of each pixel of a bent lens, by OpenCV's iterations."""
    columns, rows = np.meshgrid(np.arange(WIDTH, dtype=float), np.arange(HEIGHT, dtype=float))
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
    if fisheye:
        found = cv2.fisheye.undistortPoints(pixels, MATRIX, np.array(factors))
    else:
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
        found = cv2.undistortPointsIter(pixels, MATRIX, np.array(factors), None, None, stop)
    return found[:, 0, 0].reshape(HEIGHT, WIDTH), found[:, 0, 1].reshape(HEIGHT, WIDTH)


def write(root: Path, keys: dict, x: np.ndarray, y: np.ndarray, *, per_frame: bool = False) -> Path:
    """Two frames of the wall from one place."""
    root.mkdir()
    Image.fromarray(np.rint(wall(x, y) / UNIT).astype(np.uint16)).save(root / "d.png")
    Image.fromarray(tint(x, y)).save(root / "c.png")
    frame = {"file_path": "c.png", "depth_file_path": "d.png", "transform_matrix": np.eye(4).tolist()}
    frames = [{**frame, **(keys if per_frame else {})}] * 2
    document = {**PLAIN, **({} if per_frame else keys), "depth_unit_scale_factor": UNIT, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("per_frame", [False, True])
def test_a_bent_lens_becomes_a_pinhole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, per_frame: bool
) -> None:
    keys, fisheye, factors = LENSES[name]
    path = write(tmp_path / "set", keys, *directions(fisheye, factors), per_frame=per_frame)
    outputs = EugenRGBDDataParserConfig(data=path, eval_interval=0).setup().get_dataparser_outputs("train")
    said = capsys.readouterr().out
    assert f"fx, fy, cx, cy = {FX:g}, {FY:g}, {CX:g}, {CY:g} at {WIDTH}x{HEIGHT}" in said
    depth = depth_views(outputs).depth[1]
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    x, y = (columns - CX) / FX, (rows - CY) / FY
    error = np.abs(depth / wall(x, y) - 1)
    assert np.isfinite(depth).mean() > 0.75
    assert np.nanmax(error) < 0.007  # the nearest pixel is up to 0.7 of a pixel away; the wall slants by 0.5 % a pixel
    assert np.nanmean(error) < 0.0015
    straight = np.abs(wall(*directions(fisheye, factors)) / wall(x, y) - 1)
    assert straight.mean() > 2 * np.nanmean(error)  # read as a pinhole the lens would matter
    color = RGBDDataset(outputs).get_numpy_image(0).astype(float)
    inner = np.isfinite(depth) & (np.abs(x) < 0.5) & (np.abs(y) < 0.4)
    assert np.abs(color - tint(x, y))[inner].max() <= 2  # means of 8-bit neighbours


def test_maps_are_those_of_opencv_and_end_where_a_lens_folds() -> None:
    size = (WIDTH, HEIGHT)
    perspective = Lens(
        FX, FY, CX, CY, size, "perspective", (-0.2, 0.05, -0.01, 0.0), (0.003, -0.002), (0.05, 0.02, 0.0)
    )
    factors = np.array([-0.2, 0.05, 0.003, -0.002, -0.01, 0.05, 0.02, 0.0])
    expected = cv2.initUndistortRectifyMap(MATRIX, factors, np.eye(3), MATRIX, size, cv2.CV_32FC1)
    for found, wanted in zip(undistortion_maps(perspective), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    fisheye = Lens(FX, FY, CX, CY, size, "fisheye", (0.1, -0.05, 0.02, -0.01))
    bent = np.array(fisheye.radial)
    expected = cv2.fisheye.initUndistortRectifyMap(MATRIX, bent, np.eye(3), MATRIX, size, cv2.CV_32FC1)
    for found, wanted in zip(undistortion_maps(fisheye), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    # r (1 - r^2) turns back at r = 0.577: what lies beyond is not shown, though the formula leads back into the image
    folding = Lens(30.0, 30.0, 48.0, 36.0, size, "perspective", (-1.0, 0.0, 0.0, 0.0))
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5 - 48, np.arange(HEIGHT) + 0.5 - 36)
    shown = np.hypot(columns, rows) / 30 < 1 / np.sqrt(3)
    assert visible_share(folding) == pytest.approx(shown.mean(), abs=0.002)


def test_intrinsics_given_by_hand_keep_the_distortion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, fisheye, factors = LENSES["barrel"]
    path = write(tmp_path / "set", {**keys, "fl_x": 11.0}, *directions(fisheye, factors))
    config = EugenRGBDDataParserConfig(data=path, eval_interval=0, intrinsics=(FX, FY, CX, CY))
    lens = config.setup().get_dataparser_outputs("train").metadata["lenses"][0]
    assert lens.pinhole == (FX, FY, CX, CY)
    assert lens.radial == (-0.25, 0.06, 0.0, 0.0)
    assert "distortion is removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"camera_model": "EQUIRECTANGULAR"},
            "^camera_model of frame 0 of .* is 'EQUIRECTANGULAR': depth needs a persp",
        ),
        ({"camera_model": "THIN_PRISM_FISHEYE"}, "is 'THIN_PRISM_FISHEYE'"),
        ({"distortion_params": [0.1, 0.2]}, r"^distortion_params of frame 0 of .* is \[0.1, 0.2\]: six numbers k1"),
        ({"k1": "much"}, "^k1 of frame 0 of .* is 'much': a finite number is needed"),
    ],
)
def test_a_lens_that_is_not_known_is_refused(tmp_path: Path, keys: dict, line: str) -> None:
    path = write(tmp_path / "set", keys, *directions(False, [0.0] * 4))
    with pytest.raises(DataError, match=line):
        EugenRGBDDataParserConfig(data=path).setup().get_dataparser_outputs("train")
