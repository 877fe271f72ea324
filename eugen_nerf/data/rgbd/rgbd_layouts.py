"""Layouts of RGB-D sequences on disk: 7-Scenes, nerfstudio's transforms.json, TUM, Replica.

Each reader returns frames (times in seconds, poses as the files have them) and metres per stored unit of depth.
Principal points of TUM and Replica count from the centre of the first pixel, so half a pixel is added; that of 7-Scenes
is the middle of the image counted from its corner, as in nerfstudio.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.undistortion import Lens
from eugen_nerf.data.rgbd.rgbd_files import read_numbers, read_object
from eugen_nerf.data.rgbd.rgbd_transforms import read_transforms
from eugen_nerf.data.rgbd.rgbd_tum import read_tum
from eugen_nerf.data.rgbd.rgbd_types import Reading, RGBDFrame, SequenceOptions

MILLIMETRES = 1e-3


def detect_layout(path: Path) -> str:
    """Detects the layout of the files in a directory; raises `DataError` if none matches."""
    if (path / "transforms.json").is_file():
        return "transforms"
    if (path / "rgb.txt").is_file() or (path / "depth.txt").is_file():
        return "tum"
    if any(path.glob("frame-*.pose.txt")) or any(path.glob("frame-*.depth.*")):
        return "7scenes"
    if (path / "traj.txt").is_file() or (path / "results").is_dir():
        return "replica"
    raise DataError(
        f"'{path}' holds no RGB-D sequence: a transforms.json with depth (transforms), frame-*.pose.txt (7scenes), "
        "rgb.txt and depth.txt (tum) or traj.txt and results/ (replica) is needed; check --data"
    )


def read_7scenes(path: Path, options: SequenceOptions) -> Reading:
    """`frame-NUMBER.color.*`, `.depth.*`, `.pose.txt` (4x4, OpenCV axes) and `camera-intrinsics.txt` (3x3).

    Times are the numbers in the names over the frame rate.
    """
    parts: dict[str, dict[str, Path]] = {}
    for file in sorted(path.glob("frame-*.*")):
        found = re.fullmatch(r"(frame-\d+)\.(color|depth|pose)\.\w+", file.name)
        if found:
            parts.setdefault(found[1], {})[found[2]] = file
    for name, files in parts.items():
        missing = [part for part in ("color", "depth", "pose") if part not in files]
        if missing:
            raise DataError(
                f"{name} in '{path}' lacks its {' and '.join(missing)} file: the sequence is incomplete; copy what is "
                "missing, or remove the frame's other files"
            )
    lens = Lens(*options.intrinsics) if options.intrinsics else _matrix_lens(path / "camera-intrinsics.txt")
    frames = []
    for name, files in parts.items():
        pose = read_numbers(files["pose"]).reshape(-1)
        if pose.size not in (12, 16):
            raise DataError(f"'{files['pose']}' holds {pose.size} numbers: a 4x4 pose is needed; correct it")
        time = int(name.split("-")[1]) / options.fps
        frames.append(RGBDFrame(files["color"], files["depth"], pose.reshape(-1, 4), lens, time))
    assumed = [f"{options.fps:g} frames a second (--fps)"]
    if options.depth_unit is None:
        assumed.insert(0, f"{MILLIMETRES:g} m a stored unit of depth (--depth-unit)")
    return Reading(frames, options.depth_unit or MILLIMETRES, "opencv", tuple(assumed))


def read_replica(path: Path, options: SequenceOptions) -> Reading:
    """`traj.txt` (16 numbers a pose, OpenCV axes), `results/frameNUMBER.*` and `results/depthNUMBER.*`.

    Camera and depth scale come from `cam_params.json` in the directory or above it, or from the options.
    """
    results = path / "results"
    files: dict[str, dict[int, Path]] = {"frame": {}, "depth": {}}
    for file in sorted(results.glob("*")):
        found = re.fullmatch(r"(frame|depth)(\d+)\.\w+", file.name)
        if found:
            files[found[1]][int(found[2])] = file
    unpaired = sorted(set(files["frame"]) ^ set(files["depth"]))
    if unpaired:
        number = unpaired[0]
        have, lack = ("colour", "depth") if number in files["frame"] else ("depth", "colour")
        raise DataError(
            f"number {number} in '{results}' has {have} but no {lack}: the sequence is incomplete; copy what is "
            "missing, or remove the other file"
        )
    rows = read_numbers(path / "traj.txt").reshape(-1)
    if rows.size != 16 * len(files["frame"]):
        raise DataError(
            f"'{path / 'traj.txt'}' holds {rows.size / 16:g} poses of 16 numbers for {len(files['frame'])} frames in "
            f"'{results}': one pose a frame is needed"
        )
    lens, unit = Lens(*options.intrinsics) if options.intrinsics else None, options.depth_unit
    if lens is None or unit is None:
        lens, unit = _replica_camera(path, lens, unit)
    frames = []
    for row, number in zip(rows.reshape(-1, 4, 4), sorted(files["frame"]), strict=True):
        frames.append(RGBDFrame(files["frame"][number], files["depth"][number], row, lens, number / options.fps))
    return Reading(frames, unit, "opencv", (f"{options.fps:g} frames a second (--fps)",))


LAYOUTS: dict[str, Callable[[Path, SequenceOptions], Reading]] = {
    "7scenes": read_7scenes,
    "transforms": read_transforms,
    "tum": read_tum,
    "replica": read_replica,
}


def _matrix_lens(path: Path) -> Lens:
    """fx, fy, cx, cy of a 3x3 matrix in a text file."""
    if not path.is_file():
        raise DataError(f"'{path}' is missing: copy it there, or pass --intrinsics fx fy cx cy (pixels)")
    values = read_numbers(path)
    if values.size not in (9, 16) or not np.isfinite(values).all():
        raise DataError(f"'{path}' must hold a 3x3 matrix of finite numbers: correct it, or pass --intrinsics")
    matrix = values.reshape(3, 3) if values.size == 9 else values.reshape(4, 4)  # ScanNet's are 4x4
    return Lens(float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))


def _replica_camera(path: Path, lens: Lens | None, unit: float | None) -> tuple[Lens, float]:
    """Camera and depth unit of `cam_params.json`, unless the options state them."""
    name = next((p for p in (path / "cam_params.json", path.parent / "cam_params.json") if p.is_file()), None)
    if name is None:
        raise DataError(
            f"no cam_params.json in '{path}' or above it: copy it there, or pass --intrinsics and --depth-unit"
        )
    document = read_object(name)
    try:
        camera = document["camera"]
        fx, fy, cx, cy, scale = (float(camera[key]) for key in ("fx", "fy", "cx", "cy", "scale"))
        unit = unit or 1.0 / scale
        size = (int(camera["w"]), int(camera["h"])) if "w" in camera and "h" in camera else None
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"'{name}' must hold camera: fx, fy, cx, cy and scale as numbers: correct it") from error
    if not 0.0 < unit < np.inf:
        raise DataError(f"scale in '{name}' is {scale:g}: a positive, finite number is needed; correct it")
    return lens or Lens(fx, fy, cx + 0.5, cy + 0.5, size), unit
