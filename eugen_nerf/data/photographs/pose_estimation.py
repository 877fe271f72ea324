"""Makes a data set in nerfstudio's format from photographs without poses, with COLMAP's Python package."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import ConfigError, DataError, RunError
from eugen_nerf.data.images.file_names import SUFFIXES
from eugen_nerf.data.photographs.camera_plot import draw_cameras

STEPS = ("find features", "match pairs", "place cameras")
MIN_PLACED_SHARE = 0.5
"""Minimum share of photographs with poses: with fewer, they do not show one scene."""
OPENCV_PARAMETERS = ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")
"""nerfstudio's names of the parameters of COLMAP's camera model OPENCV, in COLMAP's order; pixels."""
CAPTURE_ADVICE = (
    "take 50 to 150 sharp photographs of something that does not move, from all around, each showing two thirds of "
    "what the one before it shows"
)
POLL_SECONDS = 0.5
"""Seconds between two queries of COLMAP's progress."""
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Capture:
    """Photographs with cameras.

    Attributes:
        names: of the images with a pose, in order.
        left_out: names of the images without.
        poses: [n, 4, 4] camera to world; x right, y up, looking along -z.
        lenses: one mapping per image, of `OPENCV_PARAMETERS`, `w` and `h`; pixels.
        points: [m, 3], triangulated.
        colours: [m, 3] of the points, 0 to 255.
        error: mean reprojection error in pixels.
    """

    names: list[str]
    left_out: list[str]
    poses: NDArray[np.float64]
    lenses: list[dict[str, float]]
    points: NDArray[np.float64]
    colours: NDArray[np.uint8]
    error: float


def import_colmap() -> ModuleType:
    """COLMAP's Python package; raises `ConfigError` if it is not installed."""
    try:
        import pycolmap
    except ImportError as error:
        raise ConfigError(
            'eugen-data photos needs pycolmap, which is not installed: pip install -c constraints.txt -e ".[photos]"'
        ) from error
    return pycolmap


def photograph_files(folder: Path) -> list[Path]:
    """The photographs of a folder; raises `DataError` for fewer than three."""
    if not folder.is_dir():
        raise DataError(f"no folder of photographs at {folder}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(files) < 3:
        raise DataError(
            f"{folder} holds {len(files)} photographs ({', '.join(SUFFIXES)}; export others as JPEG), and 3 is the "
            f"least: {CAPTURE_ADVICE}"
        )
    return files


def copy_upright(files: list[Path], folder: Path, largest: int) -> None:
    """Copies photographs, rotated by EXIF and at most `largest` pixels long; raises `DataError`.

    A file that needs no change is copied bit for bit. Folders are dropped, so file names must differ.
    """
    folder.mkdir(parents=True)
    for path in files:
        try:
            with Image.open(path) as image:
                if image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1) and max(image.size) <= largest:
                    shutil.copyfile(path, folder / path.name)
                    continue
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((largest, largest), Image.Resampling.LANCZOS)
                upright.save(folder / path.name, quality=95, exif=upright.getexif())  # it holds the focal length
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path} cannot be read as an image ({error}): remove it, or export it again") from error


def place_cameras(images: Path, work: Path, report: Report = lambda step, percent: None) -> Capture:
    """Estimates cameras and points of the images in a folder.

    Images of a single size share one lens (COLMAP's OPENCV). If sizes differ, images of one camera and size do.

    Args:
        images: folder of upright images of one scene.
        work: folder for COLMAP's files.
        report: called with one of `STEPS` and its progress in per cent.

    Raises:
        ConfigError: pycolmap is not installed.
        DataError: fewer than half of the images, or fewer than three, share enough with one another.
        RunError: COLMAP crashed.
    """
    colmap = import_colmap()
    names = [path.name for path in sorted(images.iterdir())]
    work.mkdir(parents=True, exist_ok=True)
    _run_colmap(images, work, len(names), report)
    best = colmap.Reconstruction(work / "best") if (work / "best").exists() else None
    count = 0 if best is None else best.num_reg_images()
    if best is None or count < max(3, MIN_PLACED_SHARE * len(names)):
        raise DataError(
            f"only {count} of {len(names)} photographs could be placed, the others share too few points with them: "
            f"{CAPTURE_ADVICE}"
        )
    return _capture(best, names)


def make_data_set(files: list[Path], folder: Path, largest: int, report: Report) -> Capture:
    """Makes a complete data set or none: `images`, `transforms.json`, `sparse_pc.ply` and `cameras.png`.

    Args:
        files: the photographs.
        folder: to create.
        largest: pixels along the longer side.
        report: as in `place_cameras`.

    Raises:
        ConfigError, DataError: as in `copy_upright` and `place_cameras`.
    """
    import_colmap()
    try:
        with atomic_path(folder) as partial:
            copy_upright(files, partial / "images", largest)
            capture = place_cameras(partial / "images", partial / "colmap", report)
            shutil.rmtree(partial / "colmap")
            write_capture(capture, partial)
            draw_cameras(capture.poses, capture.points, capture.colours, partial / "cameras.png")
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}; choose another --output") from error
    return capture


def write_capture(capture: Capture, folder: Path) -> None:
    """Writes `transforms.json` beside the folder `images`, and the coloured points as `sparse_pc.ply`."""
    import trimesh  # slow to import

    shared = capture.lenses[0] if all(lens == capture.lenses[0] for lens in capture.lenses) else {}
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": pose.tolist(), **({} if shared else lens)}
        for name, pose, lens in zip(capture.names, capture.poses, capture.lenses, strict=True)
    ]
    content = {"camera_model": "OPENCV", **shared, "ply_file_path": "sparse_pc.ply", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1), encoding="utf8")
    points = trimesh.PointCloud(capture.points, capture.colours)
    (folder / "sparse_pc.ply").write_bytes(points.export(file_type="ply"))


def _capture(model: Any, names: list[str]) -> Capture:
    images = {image.name: image for image in model.images.values() if image.has_pose}
    placed = [name for name in names if name in images]
    poses = np.tile(np.eye(4), (len(placed), 1, 1))
    lenses = []
    for pose, name in zip(poses, placed, strict=True):
        pose[:3] = images[name].cam_from_world().inverse().matrix()
        pose[:3, 1:3] *= -1  # COLMAP's cameras look along +z, y down
        camera = model.cameras[images[name].camera_id]
        lenses.append(
            {**dict(zip(OPENCV_PARAMETERS, camera.params.tolist(), strict=True)), "w": camera.width, "h": camera.height}
        )
    points = list(model.points3D.values())
    return Capture(
        names=placed,
        left_out=[name for name in names if name not in images],
        poses=poses,
        lenses=lenses,
        points=np.array([point.xyz for point in points]),
        colours=np.array([point.color for point in points], dtype=np.uint8),
        error=float(model.compute_mean_reprojection_error()),
    )


def _run_colmap(images: Path, work: Path, count: int, report: Report) -> None:
    """Runs `colmap_process`; raises `RunError` if it crashes."""
    totals = dict(zip(STEPS, (count, count * (count - 1) // 2, count), strict=True))
    command = [sys.executable, "-m", "eugen_nerf.data.photographs.colmap_process", str(images), str(work)]
    with (work / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while process.poll() is None:
                for step, done in zip(STEPS, _progress(work), strict=True):
                    if done:
                        report(step, min(99.0 if step == STEPS[-1] else 100.0, 100.0 * done / totals[step]))
                time.sleep(POLL_SECONDS)
        except BaseException:  # Ctrl-C: end the process too
            process.terminate()
            raise
    if process.returncode != 0:
        last = (work / "log").read_text(encoding="utf8", errors="replace").strip().splitlines()[-1:]
        raise RunError(f"COLMAP ended with status {process.returncode}: {' '.join(last)}")
    for step in STEPS:
        report(step, 100.0)


def _progress(work: Path) -> tuple[int, int, int]:
    """Numbers of images with features, of compared pairs, and of images with a pose."""
    rows = []
    for table in ("descriptors", "two_view_geometries"):
        try:
            with closing(sqlite3.connect(f"file:{work / 'database.db'}?mode=ro", uri=True, timeout=0.1)) as connection:
                rows.append(int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]))
        except sqlite3.Error:  # not made yet, or being written
            rows.append(0)
    placed = work / "placed"
    return rows[0], rows[1], placed.stat().st_size if placed.exists() else 0
