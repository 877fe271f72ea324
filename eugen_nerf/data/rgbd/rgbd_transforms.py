"""RGB-D sequences in nerfstudio's transforms.json, including the keys of other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.errors import DataError
from eugen_nerf.data.checks import check_pose
from eugen_nerf.data.images.file_names import SUFFIXES, ImageFinder
from eugen_nerf.data.lenses.lens_models import KINDS, flagged_kind, named_model
from eugen_nerf.data.lenses.undistortion import Lens, Model
from eugen_nerf.data.rgbd.rgbd_files import list_of_objects, number, read_object
from eugen_nerf.data.rgbd.rgbd_images import color_sizes
from eugen_nerf.data.rgbd.rgbd_types import Reading, RGBDFrame, SequenceOptions

DEPTH_KEYS = ("depth_file_path", "depth_path")
UNIT_KEYS = ("depth_unit_scale_factor", "integer_depth_scale", "depth_scale", "depth_factor", "png_depth_scale")
"""Metres per stored unit; from the third key on, a number above 1 is stored units per metre."""
MATRIX_KEYS = ("K", "intrinsics", "intrinsic_matrix", "camera_intrinsics")
LENS_KEYS = (("fl_x", "fx"), ("fl_y", "fy"), ("cx",), ("cy",))
SPLITS = ("train", "val", "test")


def read_transforms(path: Path, options: SequenceOptions) -> Reading:
    """nerfstudio's `transforms.json` with a `depth_file_path` in every frame.

    Beyond nerfstudio's keys: `depth_unit_scale_factor` (metres a unit, 0.001 by default, as nerfstudio's), `timestamp`
    of every frame (seconds) or `fps`; without either the option's frame rate. Frames keep the order of the file.
    `mask_path` and the lists `train_filenames`, `val_filenames`, `test_filenames` are used.
    """
    name = path / "transforms.json"
    document = read_object(name)
    fps = number(document, "fps", options.fps, f"'{name}'", positive=True)
    unit_key = _first_key(document, UNIT_KEYS) or UNIT_KEYS[0]
    unit = number(document, unit_key, 1e-3, f"'{name}'", positive=True)
    unit = 1.0 / unit if unit > 1.0 and unit_key not in UNIT_KEYS[:2] else unit
    entries = list_of_objects(document, "frames", name)
    timed = any("timestamp" in entry for entry in entries)
    finder = ImageFinder(path, (*SUFFIXES, ".npy"))
    lists = _split_lists(document, name, finder)
    frames = []
    for index, entry in enumerate(entries):
        where = f"frame {index} of '{name}'"
        depth_key = _first_key(entry, DEPTH_KEYS) or DEPTH_KEYS[0]
        keys = ("file_path", depth_key, "transform_matrix", *(("timestamp",) if timed else ()))
        missing = [key for key in keys if key not in entry]
        if missing:
            others = " (other frames have one)" if missing == ["timestamp"] else ""
            raise DataError(
                f"{where} lacks {' and '.join(missing)}{others}: RGB-D frames need it; correct or remove the frame"
            )
        mask_key = ("mask_path",) if entry.get("mask_path") is not None else ()
        files = {key: _file(finder, entry[key], key, where) for key in ("file_path", depth_key, *mask_key)}
        pose = entry["transform_matrix"]
        if not tracking_lost(pose):
            check_pose(pose, where)
        lens = read_lens({**document, **entry}, files["file_path"], where, options)
        splits = None
        if lists:
            splits = frozenset(split for split, listed in lists.items() if files["file_path"] in listed)
        time = number(entry, "timestamp", index / fps, where)
        matrix = np.asarray(pose, dtype=np.float64)
        frames.append(
            RGBDFrame(files["file_path"], files[depth_key], matrix, lens, time, files.get("mask_path"), splits)
        )
    _check_lists(lists, frames, name)
    assumed = []
    if options.depth_unit is None and unit_key not in document:
        assumed.append(f"{unit:g} m a stored unit of depth (--depth-unit)")
    if not timed and "fps" not in document:
        assumed.append(f"{fps:g} frames a second (--fps)")
    return Reading(frames, options.depth_unit or unit, "nerfstudio", tuple(assumed), _notes(frames))


def tracking_lost(pose: Any) -> bool:
    """Whether a pose has no finite number in its upper three rows: recorders mark lost tracking in this way."""
    try:
        matrix = np.asarray(pose, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return matrix.ndim == 2 and len(matrix) >= 3 and not np.isfinite(matrix[:3]).any()


def read_lens(values: Mapping[str, Any], color: Path, where: str, options: SequenceOptions) -> Lens:
    """The lens of a frame's keys, of document and frame together; raises `DataError` for an unknown type.

    Focal lengths and principal point are `fl_x`, `fl_y`, `cx`, `cy`, a 3x3 matrix `K`, or, from `camera_angle_x`
    alone, in the middle of the image. The coefficients `k1` to `k4`, `p1`, `p2` are nerfstudio's; if the camera model
    is FULL_OPENCV, or there are `k5` or `k6`, they are OpenCV's.
    """
    distortion = _distortion(values, where)
    size = None
    if _first_key(values, ("w", "width")) and _first_key(values, ("h", "height")):
        width, height = (
            number(dict(values), str(_first_key(values, keys)), 0.0, where, positive=True)
            for keys in (("w", "width"), ("h", "height"))
        )
        size = round(width), round(height)
    if options.intrinsics is not None:
        return distortion.with_pinhole(options.intrinsics, None)
    matrix = _first_key(values, MATRIX_KEYS)
    has_focal = _first_key(values, LENS_KEYS[0]) is not None
    if not has_focal and matrix is not None:
        numbers = _matrix(values[matrix], matrix, where)
    elif not has_focal and "camera_angle_x" in values:
        size = size or color_sizes(color)[0]
        angle = number(dict(values), "camera_angle_x", 0.0, where, positive=True)
        focal = 0.5 * size[0] / math.tan(0.5 * angle)
        numbers = (focal, focal, 0.5 * size[0], 0.5 * size[1])
    else:
        try:
            numbers = tuple(float(values[_first_key(values, keys) or keys[0]]) for keys in LENS_KEYS)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{where} lacks a number fl_x, fl_y, cx or cy: add it, or pass --intrinsics") from error
    return distortion.with_pinhole(numbers, size)


def _distortion(values: Mapping[str, Any], where: str) -> Lens:
    """Model and distortion of a lens, with focal lengths 1 and principal point 0."""
    name = named_model(values, where) or ""
    kind = KINDS.get(name, flagged_kind(values) or "PERSPECTIVE")
    if kind not in ("PERSPECTIVE", "FISHEYE") or name in ("FOV", "THIN_PRISM_FISHEYE"):
        raise DataError(
            f"camera_model of {where} is {shown(name or kind)}: depth needs a perspective or a fisheye lens (PINHOLE, "
            "OPENCV, OPENCV_FISHEYE, ...); reproject colour and depth"
        )
    model: Model = "fisheye" if kind == "FISHEYE" else "perspective"
    if "distortion_params" in values:
        given = values["distortion_params"]
        if not isinstance(given, list) or len(given) != 6:
            raise DataError(
                f"distortion_params of {where} is {shown(given)}: six numbers k1, k2, k3, k4, p1, p2 are "
                "needed; correct it"
            )
        values = {**values, **dict(zip(("k1", "k2", "k3", "k4", "p1", "p2"), given, strict=True)), "k5": 0, "k6": 0}
    k1, k2, k3, k4, k5, k6, p1, p2 = (
        number(dict(values), key, 0.0, where) for key in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    )
    if name == "FULL_OPENCV" or k5 or k6:
        return Lens(1.0, 1.0, 0.0, 0.0, None, model, (k1, k2, k3, 0.0), (p1, p2), (k4, k5, k6))
    return Lens(1.0, 1.0, 0.0, 0.0, None, model, (k1, k2, k3, k4), (p1, p2))


def _matrix(value: Any, key: str, where: str) -> tuple[float, ...]:
    """fx, fy, cx, cy of a matrix of at least 3x3."""
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.ndim != 2 or min(matrix.shape) < 3:
        raise DataError(f"{key} of {where} must be a matrix [3, 3] of numbers: correct it, or pass --intrinsics")
    return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])


def _file(finder: ImageFinder, value: Any, key: str, where: str) -> Path:
    """A file that a frame names, as `ImageFinder` understands names."""
    if not isinstance(value, str):
        raise DataError(f"{key} of {where} is {shown(value)}: it must be text; correct or remove the frame")
    return finder.find(value, "", where)


def _split_lists(document: Mapping[str, Any], name: Path, finder: ImageFinder) -> dict[str, set[Path]]:
    """Colour files of the splits that a document lists."""
    lists = {}
    for split in SPLITS:
        listed = document.get(f"{split}_filenames")
        if listed is not None:
            if not isinstance(listed, list):
                raise DataError(f"{split}_filenames of '{name}' must be a list of file names: correct or remove it")
            where = f"{split}_filenames in '{name}'"
            lists[split] = {_file(finder, file, "an entry", where) for file in listed}
    return lists


def _check_lists(lists: Mapping[str, set[Path]], frames: list[RGBDFrame], name: Path) -> None:
    """Raises `DataError` if a list names a file of no frame."""
    known = {frame.color for frame in frames}
    for split, listed in lists.items():
        strange = sorted(listed - known)
        if strange:
            raise DataError(
                f"{split}_filenames of '{name}' lists '{strange[0]}', which is file_path of no frame: correct or "
                "remove the entry"
            )


def _notes(frames: list[RGBDFrame]) -> tuple[str, ...]:
    """Notes on the masks of the frames."""
    notes = []
    masked = sum(frame.mask is not None for frame in frames)
    if masked:
        notes.append(f"masks: depth is used where they are not 0, in {masked} of {len(frames)} frames")
    return tuple(notes)


def _first_key(values: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if values.get(key) is not None), None)
