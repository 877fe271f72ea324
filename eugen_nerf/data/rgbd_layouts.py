"""Layouts of RGB-D sequences on disk: 7-Scenes, nerfstudio's transforms.json, TUM, Replica.

Each reader returns frames (times in seconds, poses with nerfstudio's axes) and metres per stored unit of depth.
Principal points of TUM and Replica count from the centre of the first pixel, so half a pixel is added; that of 7-Scenes
is the middle of the image counted from its corner, as nerfstudio counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.checks import check_pose
from eugen_nerf.data.rgbd import OPENCV_TO_NERFSTUDIO, Array, Frame, SequenceOptions

Lens = tuple[float, float, float, float]
TUM_LENS: Lens = (525.0, 525.0, 320.0, 240.0)
"""Of a Kinect as the TUM benchmark recommends it for registered, undistorted images: 525, 525, 319.5, 239.5."""
TUM_UNIT = 1.0 / 5000.0
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def detect_layout(path: Path) -> str:
    """The layout of the files in a directory; raises `DataError` where none fits."""
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


def read_7scenes(path: Path, options: SequenceOptions) -> tuple[list[Frame], float]:
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
    lens = options.intrinsics or _matrix_lens(path / "camera-intrinsics.txt")
    frames = []
    for name, files in parts.items():
        pose = _numbers(files["pose"]).reshape(-1)
        if pose.size != 16:
            raise DataError(f"'{files['pose']}' holds {pose.size} numbers: a 4x4 pose is needed; correct it")
        time = int(name.split("-")[1]) / options.fps
        pose = _with_axes(pose.reshape(4, 4), options, "opencv")
        frames.append(Frame(files["color"], files["depth"], pose, lens, time))
    return frames, options.depth_unit or 1e-3


def read_transforms(path: Path, options: SequenceOptions) -> tuple[list[Frame], float]:
    """nerfstudio's `transforms.json` with a `depth_file_path` in every frame; pinhole cameras.

    Beyond nerfstudio's keys: `depth_unit_scale_factor` (metres a unit, 0.001 by default, as nerfstudio's), `timestamp`
    of every frame (seconds) or `fps`; without either the option's frame rate. Frames keep the order of the file.
    """
    name = path / "transforms.json"
    document = _json(name)
    fps = _number(document, "fps", options.fps, f"'{name}'", positive=True)
    unit = _number(document, "depth_unit_scale_factor", 1e-3, f"'{name}'", positive=True)
    frames = []
    entries = _list_of(document, "frames", name)
    timed = any("timestamp" in entry for entry in entries)
    for index, entry in enumerate(entries):
        where = f"frame {index} of '{name}'"
        keys = ("file_path", "depth_file_path", "transform_matrix", *(("timestamp",) if timed else ()))
        missing = [key for key in keys if key not in entry]
        if missing:
            others = " (other frames have one)" if missing == ["timestamp"] else ""
            raise DataError(
                f"{where} lacks {' and '.join(missing)}{others}: RGB-D frames need it; correct or remove the frame"
            )
        for key in ("file_path", "depth_file_path"):
            if not isinstance(entry[key], str):
                raise DataError(f"{key} of {where} is {entry[key]!r}: it must be text; correct or remove the frame")
        pose = entry["transform_matrix"]
        check_pose(pose, where)
        time = _number(entry, "timestamp", index / fps, where)
        lens = options.intrinsics or _json_lens({**document, **entry}, where)
        matrix = _with_axes(np.asarray(pose, dtype=np.float64), options, "nerfstudio")
        frames.append(Frame(path / entry["file_path"], path / entry["depth_file_path"], matrix, lens, time))
    return frames, options.depth_unit or unit


def read_tum(path: Path, options: SequenceOptions) -> tuple[list[Frame], float]:
    """`rgb.txt`, `depth.txt` (time, file) and `groundtruth.txt` (time, translation, quaternion xyzw; OpenCV axes).

    Each colour image is taken with the depth image and the pose nearest in time; where one of them is farther than
    `max_time_difference` the image is left out, as the benchmark's own tools do.
    """
    colors, depths = _tum_list(path / "rgb.txt"), _tum_list(path / "depth.txt")
    poses = _tum_list(path / "groundtruth.txt")
    depth_times, pose_times = np.array([t for t, _ in depths]), np.array([t for t, _ in poses])
    frames, used = [], set()
    for time, fields in colors:
        depth, pose = int(np.abs(depth_times - time).argmin()), int(np.abs(pose_times - time).argmin())
        apart = max(abs(depth_times[depth] - time), abs(pose_times[pose] - time))
        if apart > options.max_time_difference or depth in used:
            continue
        used.add(depth)
        matrix = _quaternion_pose(poses[pose][1], f"the line of time {pose_times[pose]:.6f} of groundtruth.txt")
        matrix = _with_axes(matrix, options, "opencv")
        lens = options.intrinsics or TUM_LENS
        frames.append(Frame(path / fields[0], path / depths[depth][1][0], matrix, lens, time))
    if not frames:
        raise DataError(
            f"no colour image of '{path}' has a depth image and a pose within {options.max_time_difference:g} s: check "
            "the timestamps in rgb.txt, depth.txt and groundtruth.txt, or raise --max-time-difference"
        )
    return frames, options.depth_unit or TUM_UNIT


def read_replica(path: Path, options: SequenceOptions) -> tuple[list[Frame], float]:
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
    rows = _numbers(path / "traj.txt").reshape(-1)
    if rows.size != 16 * len(files["frame"]):
        raise DataError(
            f"'{path / 'traj.txt'}' holds {rows.size / 16:g} poses of 16 numbers for {len(files['frame'])} frames in "
            f"'{results}': one pose a frame is needed"
        )
    lens, unit = options.intrinsics, options.depth_unit
    if lens is None or unit is None:
        lens, unit = _replica_camera(path, lens, unit)
    frames = []
    for row, number in zip(rows.reshape(-1, 4, 4), sorted(files["frame"]), strict=True):
        pose = _with_axes(row, options, "opencv")
        time = number / options.fps
        frames.append(Frame(files["frame"][number], files["depth"][number], pose, lens, time))
    return frames, unit


LAYOUTS: dict[str, Callable[[Path, SequenceOptions], tuple[list[Frame], float]]] = {
    "7scenes": read_7scenes,
    "transforms": read_transforms,
    "tum": read_tum,
    "replica": read_replica,
}


def _with_axes(pose: Array, options: SequenceOptions, default: str) -> Array:
    """The pose [4, 4] with nerfstudio's axes."""
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0.0, 0.0, 0.0, 1.0]]])
    axes = default if options.axes == "auto" else options.axes
    return pose @ OPENCV_TO_NERFSTUDIO if axes == "opencv" else pose


def _quaternion_pose(fields: list[str], where: str) -> Array:
    """Camera-to-world matrix [4, 4] of `tx ty tz qx qy qz qw`."""
    try:
        numbers = np.array([float(value) for value in fields])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != 7:
        raise DataError(f"{where} is no pose: a time and 7 numbers tx ty tz qx qy qz qw are needed; correct it")
    x, y, z, w = numbers[3:]
    norm = float(np.sqrt(x * x + y * y + z * z + w * w))
    if not np.isfinite(numbers).all() or abs(norm - 1.0) > 1e-2:
        raise DataError(
            f"the camera pose in {where} has a quaternion of length {norm:g} or entries that are not finite: unit "
            "quaternions and finite numbers are needed; correct or remove the line"
        )
    x, y, z, w = numbers[3:] / norm
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = numbers[:3]
    return pose


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise DataError(f"'{path}' {what}: this layout needs it; copy it there, or choose another --layout") from error


def _numbers(path: Path) -> Array:
    """All numbers of a text file."""
    words = _text(path).split()
    try:
        return np.array([float(value) for value in words])
    except ValueError as error:
        raise DataError(f"'{path}' must hold numbers alone ({error}): correct it") from error


def _tum_list(path: Path) -> list[tuple[float, list[str]]]:
    """(time, further fields) of each line that is no comment; times must increase."""
    lines: list[tuple[float, list[str]]] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            time = float(fields[0])
        except ValueError:
            time = float("nan")
        if not np.isfinite(time) or len(fields) < 2:
            raise DataError(f"line {number} of '{path}' is {line[:60]!r}: a time and its entry are needed; correct it")
        if lines and time <= lines[-1][0]:
            raise DataError(
                f"frames are out of order: line {number} of '{path}' has the time {time:.6f} s after "
                f"{lines[-1][0]:.6f} s; sort the file by time and remove what is there twice"
            )
        lines.append((time, fields[1:]))
    if not lines:
        raise DataError(f"'{path}' has no entries: at least one is needed")
    return lines


def _json(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DataError(f"'{path}' is not valid JSON ({error}): write it again") from error
    if not isinstance(document, dict):
        raise DataError(f"'{path}' must hold an object: write it again")
    return document


def _number(values: dict[str, Any], key: str, default: float, where: str, *, positive: bool = False) -> float:
    """A finite number of a JSON object, or the default where it has none."""
    value = values.get(key, default)
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    if not number or (positive and value <= 0):
        needed = "a positive, finite number" if positive else "a finite number"
        raise DataError(f"{key} of {where} is {value!r}: {needed} is needed; correct it, or remove it everywhere")
    return float(value)


def _list_of(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"'{key}' of '{path}' must be a list of at least one frame: write it again")
    return entries


def _json_lens(values: dict[str, Any], where: str) -> Lens:
    """fx, fy, cx, cy of nerfstudio's keys; a lens with distortion is refused: depth is measured along straight rays."""
    bent = [key for key in DISTORTION if values.get(key)]
    if bent:
        raise DataError(
            f"{where} has lens distortion ({bent[0]} = {values[bent[0]]}): depth needs pinhole images; undistort "
            "colour and depth first"
        )
    try:
        lens = tuple(float(values[key]) for key in ("fl_x", "fl_y", "cx", "cy"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} lacks a number fl_x, fl_y, cx or cy: add it, or pass --intrinsics") from error
    return lens  # type: ignore[return-value]


def _matrix_lens(path: Path) -> Lens:
    """fx, fy, cx, cy of a 3x3 matrix in a text file."""
    if not path.is_file():
        raise DataError(f"'{path}' is missing: copy it there, or pass --intrinsics fx fy cx cy (pixels)")
    values = _numbers(path)
    if values.size != 9 or not np.isfinite(values).all():
        raise DataError(f"'{path}' must hold a 3x3 matrix of finite numbers: correct it, or pass --intrinsics")
    return float(values[0]), float(values[4]), float(values[2]), float(values[5])


def _replica_camera(path: Path, lens: Lens | None, unit: float | None) -> tuple[Lens, float]:
    """Camera and metres a unit of `cam_params.json`, where the options do not say them."""
    name = next((p for p in (path / "cam_params.json", path.parent / "cam_params.json") if p.is_file()), None)
    if name is None:
        raise DataError(
            f"no cam_params.json in '{path}' or above it: copy it there, or pass --intrinsics and --depth-unit"
        )
    document = _json(name)
    try:
        camera = document["camera"]
        fx, fy, cx, cy, scale = (float(camera[key]) for key in ("fx", "fy", "cx", "cy", "scale"))
        unit = unit or 1.0 / scale
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"'{name}' must hold camera: fx, fy, cx, cy and scale as numbers: correct it") from error
    if not 0.0 < unit < np.inf:
        raise DataError(f"scale in '{name}' is {scale:g}: a positive, finite number is needed; correct it")
    return lens or (fx, fy, cx + 0.5, cy + 0.5), unit
