"""The entries that describe a lens, with their many names mapped to one name each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.lens_models import flagged_kind, named_model

NUMBERS = {
    "w": ("w", "width", "image_width", "img_width"),
    "h": ("h", "height", "image_height", "img_height"),
    "fl_x": ("fl_x", "fx", "f_x", "focal_x", "focal_length_x"),
    "fl_y": ("fl_y", "fy", "f_y", "focal_y", "focal_length_y"),
    "cx": ("cx", "c_x", "ppx", "principal_point_x"),
    "cy": ("cy", "c_y", "ppy", "principal_point_y"),
    "focal": ("focal", "focal_length"),
    "angle_x": ("camera_angle_x",),
    "angle_y": ("camera_angle_y",),
    "degrees_x": ("x_fov", "fov_x"),
    "degrees_y": ("y_fov", "fov_y"),
    **{name: (name,) for name in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "omega", "sx1", "sy1")},
}
_MATRICES = ("K", "intrinsics", "intrinsic", "intrinsic_matrix", "camera_intrinsics", "camera_matrix", "cam_K")
_GROUPS = ("camera", "lens", "camera_params", "calibration")
"""Groups of entries that describe the lens."""
_DISTORTION_LIST = re.compile(r"d$|dist|.*distort", re.IGNORECASE)
"""Names of lists of distortion coefficients."""


def has_focal(entries: Mapping[str, Any]) -> bool:
    """Whether entries contain a focal length in pixels."""
    names = (*NUMBERS["fl_x"], *NUMBERS["fl_y"], *NUMBERS["focal"], *_MATRICES)
    return any(entries.get(name) is not None for name in names)


def canonical(entries: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Entries of one level with canonical names; raises `DataError` if two of them disagree."""
    given: dict[str, dict[str, float]] = {}
    unitless = None
    for name, aliases in NUMBERS.items():
        for alias in aliases:
            if entries.get(alias) is not None or (alias in entries and alias.startswith("camera_angle")):
                given.setdefault(name, {})[alias] = _number(entries[alias], alias, where)
    own: dict[str, Any] = {}
    for alias, value in entries.items():
        inner: dict[str, Any] = {}
        if isinstance(value, Mapping) and (alias in (*_MATRICES, *_GROUPS) or _DISTORTION_LIST.match(alias)):
            inner = canonical(value, f"'{alias}' of {where}")
        elif alias in _MATRICES and value is not None:
            inner = dict(_from_matrix(value, alias, where))
        for name, part in inner.items():
            if name in NUMBERS:
                given.setdefault(name, {})[alias] = part
            else:
                own[name] = part
    for alias in ("shift_x", "shift_y"):  # of Blender's cameras
        if entries.get(alias) not in (None, 0):
            raise DataError(
                f"'{alias}' of {where} is {shown(entries[alias])}, in an unknown unit: write 'cx' and 'cy' in pixels"
            )
    for alias, value in given.pop("focal", {}).items():
        given.setdefault("fl_x", {})[alias] = value
        given.setdefault("fl_y", {})[alias] = value
        unitless = alias
    for axis in "xy":
        for alias, value in given.pop(f"degrees_{axis}", {}).items():
            given.setdefault(f"angle_{axis}", {})[alias] = math.radians(value)
    if unitless is not None:
        own["unit"] = unitless
    for name, values in given.items():
        first, *others = values.items()
        for alias, value in others:
            if abs(value - first[1]) > 1e-3 * max(abs(value), abs(first[1]), 1e-9):
                raise DataError(
                    f"'{first[0]}' and '{alias}' of {where} disagree ({first[1]:g} and {value:g}): remove the wrong one"
                )
        own[name] = first[1]
    for axis in "xy":
        angle = f"angle_{axis}"
        if angle in own and not 0.0 < own[angle] < (math.pi if axis == "x" else 2 * math.pi):
            raise _bad_angle(f"camera_angle_{axis}", own[angle], where)
    for name in ("w", "h"):
        if name in own:
            if own[name] < 1 or own[name] != int(own[name]):
                raise DataError(f"'{name}' of {where} is {own[name]:g}: a whole number of pixels is needed")
            own[name] = int(own[name])
    lists = [
        _vector(value, alias, where)
        for alias, value in entries.items()
        if _DISTORTION_LIST.match(alias) and isinstance(value, list | tuple)
    ]
    lists = [values for values in lists if any(values)] or lists[:1]
    if len(lists) > 1:
        raise DataError(f"{where} has {len(lists)} lists of distortion: write 'k1', 'k2', 'p1', ... by name instead")
    model, kind = named_model(entries, where), flagged_kind(entries)
    return own | {
        name: value
        for name, value in (("list", lists[0] if lists else None), ("model", model), ("flag", kind))
        if value is not None
    }


def _number(value: Any, alias: str, where: str) -> float:
    """A finite number, or text that is one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if alias.startswith("camera_angle") and (isinstance(value, str) or not math.isfinite(number)):
        raise _bad_angle(alias, value, where)
    if not math.isfinite(number):
        raise DataError(f"'{alias}' of {where} is {shown(value)}: a finite number is needed; correct it")
    return number


def _bad_angle(alias: str, value: Any, where: str) -> DataError:
    return DataError(
        f"'{alias}' in {where} is {shown(value)}: a field of view between 0 and 3.1416 radians (both excluded) is "
        "allowed; "
        "correct the file"
    )


def _vector(value: Any, alias: str, where: str) -> tuple[float, ...]:
    """A list of finite numbers."""
    try:
        numbers = np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array([math.nan])
    if not np.isfinite(numbers).all():
        raise DataError(f"'{alias}' of {where} is {shown(value)}: a list of finite numbers is needed; correct it")
    return tuple(numbers.tolist())


def _from_matrix(value: Any, alias: str, where: str) -> dict[str, float]:
    """fl_x, fl_y, cx, cy of a camera matrix: 3x3, 4x4, 3x4, nine numbers, or the four themselves."""
    numbers = np.array(_vector(value, alias, where))
    if len(numbers) == 4:
        fx, fy, cx, cy = numbers.tolist()
        return {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    columns = {9: 3, 12: 4, 16: 4}.get(len(numbers))
    matrix = np.zeros((3, 3)) if columns is None else numbers.reshape(-1, columns)[:3, :3]
    if matrix[2, 0] and matrix[2, 1] and not (matrix[0, 2] or matrix[1, 2]):  # by columns, as Open3D writes it
        matrix = matrix.T
    below = [matrix[1, 0], matrix[2, 0], matrix[2, 1]]
    if columns is None or matrix[2, 2] != 1 or any(below) or abs(matrix[0, 1]) > 1e-3 * abs(matrix[0, 0]):
        raise DataError(
            f"'{alias}' of {where} is no camera matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels without skew: "
            "write it by rows, or 'fl_x', 'fl_y', 'cx', 'cy' instead"
        )
    return {"fl_x": matrix[0, 0], "fl_y": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]}
