"""Reads lenses from the entries of a data set; rejects those that nerfstudio's ray generation does not support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.lens_entries import NUMBERS, canonical
from eugen_nerf.data.lenses.lens_models import KINDS, Kind
from eugen_nerf.data.lenses.undistortion import rescaling_factor

_SUPPORTED_COEFFICIENTS: dict[Kind, tuple[str, ...]] = {
    "PERSPECTIVE": ("k1", "k2", "k3", "p1", "p2"),
    "FISHEYE": ("k1", "k2", "k3", "k4"),
    "EQUIRECTANGULAR": (),
}
"""Coefficients that nerfstudio's ray generation uses for a kind; others must be 0."""
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""nerfstudio's order of distortion parameters."""
MIN_FOCAL_RATIO = 0.3
"""A focal length of unstated unit below this multiple of the longer side is more likely in millimetres."""
MAX_CENTRE_OFFSET = 0.3
"""Largest offset of a principal point from the middle if no size is stated, as a share of the side."""
MAX_FOCAL_RATIO = 1000
"""Largest focal length, in multiples of the longer side."""
FOCAL_TOLERANCE = 1e-2
"""Largest relative difference between two entries for one focal length."""


@dataclass(frozen=True)
class PhotographLens:
    """A camera without its pose.

    Attributes:
        kind: nerfstudio's camera type.
        width, height: of its image in pixels.
        fx, fy, cx, cy: focal lengths and principal point in pixels, from the image's upper left corner.
        distortion: k1, k2, k3, k4, p1, p2 in nerfstudio's order (12 numbers for FISHEYE624).
    """

    kind: Kind
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0,) * 6

    def resized(self, width: int, height: int) -> PhotographLens:
        """The lens of the same image resampled to another size in pixels."""
        x, y = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * x, cx=self.cx * x, fy=self.fy * y, cy=self.cy * y)


def read_lens(
    levels: Sequence[tuple[str, Mapping[str, Any]]], size: Callable[[], tuple[int, int]] | None = None
) -> PhotographLens:
    """Reads a lens from entries of a data set.

    Arguments:
        levels: description for error messages, and entries, of each level from the whole data set to the frame;
            later levels override earlier ones.
        size: returns (width, height) of the image in pixels, if the entries do not state it.

    Raises `DataError`: an entry that is no number, entries that disagree, no focal length, a lens that
    nerfstudio's ray generation does not support.
    """
    found: dict[str, Any] = {}
    for where, entries in levels:
        own = canonical(entries, where)
        for together in (("fl_x", "angle_x", "unit"), ("fl_y", "angle_y"), ("model", "flag")):
            if any(name in own for name in together):
                for name in together:
                    found.pop(name, None)
        found |= own
    where = levels[-1][0]
    kind, model = _kind(found, where)
    if "w" in found and "h" in found:
        width, height = found["w"], found["h"]
    elif size is not None:
        image = size()
        width, height = found.get("w", image[0]), found.get("h", image[1])
    else:
        raise DataError(f"{where} lacks the image's size: write 'w' and 'h' in pixels")
    distortion = _distortion(found, kind, model, where)
    if kind == "EQUIRECTANGULAR":  # its rays depend on the size alone, which nerfstudio derives from these
        return PhotographLens(kind, width, height, 0.5 * width, float(height), 0.5 * width, 0.5 * height)
    fx = _focal(found, "x", width, kind, where)
    fy = _focal(found, "y", height, kind, where)
    if fx is None and fy is None:
        raise DataError(
            f"{where} gives no focal length: write 'fl_x' and 'fl_y' (pixels), 'camera_angle_x' (radians) or a 3x3 "
            "matrix 'K', for the whole data set or for each frame"
        )
    if fx is not None and fy is not None and "fl_y" not in found and abs(fx - fy) > FOCAL_TOLERANCE * fx:
        raise DataError(
            f"the fields of view of {where} mean pixels that are not square (focal lengths {fx:g} and {fy:g} pixels): "
            "remove 'camera_angle_y' where they are square (Blender's is the sensor's), else write both focal lengths"
        )
    fx, fy = (fy if fx is None else fx), (fx if fy is None else fy)
    assert fx is not None
    assert fy is not None
    if "unit" in found and fx < MIN_FOCAL_RATIO * max(width, height):
        raise DataError(
            f"'{found['unit']}' of {where} is {fx:g} at an image of {width}x{height}, too short for pixels: write "
            "'fl_x' and 'fl_y' in pixels (from millimetres: times the image's width by the sensor's)"
        )
    cx, cy = found.get("cx", 0.5 * width), found.get("cy", 0.5 * height)
    if not ("w" in found and "h" in found) and max(abs(cx / width - 0.5), abs(cy / height - 0.5)) > MAX_CENTRE_OFFSET:
        raise DataError(
            f"the principal point ({cx:g}, {cy:g}) of {where} is far from the middle of its {width}x{height} image, "
            "and no 'w' and 'h' say which size the lens is of: add them, or multiply the lens to this size"
        )
    _check_pixels(fx, fy, cx, cy, width, height, kind, where)
    return PhotographLens(kind, width, height, fx, fy, cx, cy, distortion)


def _kind(found: Mapping[str, Any], where: str) -> tuple[Kind, str]:
    """The kind of a lens, and its name in the data set."""
    model, flag = found.get("model"), found.get("flag")
    kind: Kind = "PERSPECTIVE" if model is None else KINDS[model]
    if flag is not None and model is not None and kind != flag:
        raise DataError(f"{where} is {flag} by its flag and {model} by its camera model: remove the wrong one")
    return (flag or kind), (model or flag or "OPENCV")


def _distortion(found: Mapping[str, Any], kind: Kind, model: str, where: str) -> tuple[float, ...]:
    """Coefficients in nerfstudio's order; rejects those that it would ignore."""
    named = {name: found.get(name, 0.0) for name in NUMBERS if name[0] in "kpos" and name[-1].isdigit()}
    named["omega"] = found.get("omega", 0.0)
    listed: tuple[float, ...] = found.get("list", ())
    if kind == "FISHEYE624":
        if len(listed) != 12:
            raise DataError(f"{where} is a FISHEYE624 with {len(listed)} 'distortion_params': 12 are needed")
        return listed
    if any(listed):
        order = {6: _COEFFICIENTS, 4: ("k1", "k2", "k3", "k4") if kind == "FISHEYE" else ()}.get(len(listed), ())
        if not order:
            raise DataError(
                f"'distortion_params' of {where} has {len(listed)} numbers: the six k1, k2, k3, k4, p1, p2 are "
                "allowed; other lists differ in order, so write 'k1', 'k2', 'p1', ... by name"
            )
        in_list = dict(zip(order, listed, strict=True))
        wrong = [n for n, v in in_list.items() if n in found and abs(found[n] - v) > 1e-6]
        if wrong:
            raise DataError(f"'distortion_params' and '{wrong[0]}' of {where} disagree: remove the wrong one")
        named |= in_list
    ignored = [name for name, value in named.items() if value and name not in _SUPPORTED_COEFFICIENTS[kind]]
    if ignored:
        raise DataError(
            f"{where} is a lens {model} with {ignored[0]} = {named[ignored[0]]:g}: nerfstudio's rays follow "
            f"{', '.join(_SUPPORTED_COEFFICIENTS[kind]) or 'no coefficients'} of such a lens; undistort the images "
            "(colmap image_undistorter, ns-process-data) and write the cameras anew"
        )
    return tuple(float(named[name]) for name in _COEFFICIENTS)


def _focal(found: Mapping[str, Any], axis: str, length: int, kind: Kind, where: str) -> float | None:
    """Focal length in pixels along an axis, from its own entry or the field of view; None if neither is given."""
    focal, angle = found.get(f"fl_{axis}"), found.get(f"angle_{axis}")
    if angle is None or (kind != "PERSPECTIVE" and focal is not None):
        return focal
    if kind != "PERSPECTIVE":
        raise DataError(f"{where} is a {kind.lower()} lens without 'fl_{axis}': its focal length in pixels is needed")
    # numpy's tangent, as nerfstudio: another library's differs in the last bit, and hashes of cameras with it
    implied = float(0.5 * length / np.tan(0.5 * angle))
    if focal is None:
        return implied
    if abs(focal - implied) > FOCAL_TOLERANCE * implied:
        raise DataError(
            f"'fl_{axis}' and 'camera_angle_{axis}' of {where} disagree: {focal:g} pixels, and {angle:g} radians, "
            f"which are {implied:g} pixels at a size of {length}; remove the wrong one"
        )
    return focal


def _check_pixels(fx: float, fy: float, cx: float, cy: float, width: int, height: int, kind: Kind, where: str) -> None:
    """Raises `DataError` if a lens is not in pixels of its image."""
    for name, focal in (("fl_x", fx), ("fl_y", fy)):
        if not focal > 0.0:
            raise DataError(f"focal length {name} of {where} is {focal:g} pixels: it must be positive; correct it")
    if max(fx, fy) < 0.05 * max(width, height) or (min(width, height) > 8 and max(abs(cx), abs(cy)) <= 1.0):
        raise DataError(
            f"the lens of {where} (fl_x {fx:g}, fl_y {fy:g}, cx {cx:g}, cy {cy:g}) is not in pixels of its "
            f"{width}x{height} image: multiply shares by the size, millimetres by pixels per millimetre of the sensor"
        )
    if max(fx, fy) > MAX_FOCAL_RATIO * max(width, height):
        raise DataError(
            f"the lens of {where} (fl_x {fx:g}, fl_y {fy:g}) sees less than 0.06 degrees of a {width}x{height} image: "
            "focal lengths are in pixels; correct them"
        )
    ratio = rescaling_factor((cx, cy), (width, height))
    if ratio is not None:
        raise DataError(
            f"the principal point ({cx:g}, {cy:g}) of {where} is the middle of images {ratio:.3g} times the size of "
            f"its {width}x{height}: multiply 'fl_x', 'fl_y', 'cx', 'cy' or 'K' by {1 / ratio:.4g}, or write the "
            "'w', 'h' and images of that size"
        )
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise DataError(
            f"the principal point ({cx:g}, {cy:g}) of {where} is far outside its {width}x{height} image: "
            "'cx' and 'cy' are pixels from the upper left corner; correct them"
        )
