"""Posed RGB-D sequences: colour, depth and camera-to-world poses in metres, in the order they were taken.

Whatever the layout on disk (`rgbd_layouts.py`), a `Sequence` has nerfstudio's cameras (x right, y up, looking along
-z), metres, seconds, and pixels counted from the image's upper left corner: the first pixel's centre is (0.5, 0.5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.checks import check_images, check_pose

Array = NDArray[np.float64]
Layout = Literal["auto", "7scenes", "transforms", "tum", "replica"]
DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""PIL's modes of a depth image: one channel of 16 (or 32) bits."""
OPENCV_TO_NERFSTUDIO = np.diag([1.0, -1.0, -1.0, 1.0])
"""On the right of a camera-to-world matrix: from y down, z forward to y up, z backward."""


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        color: image file.
        depth: file of the depth along the optical axis, aligned with the colour image, of the same size.
        pose: camera-to-world matrix [4, 4] float64, metres.
        lens: fx, fy, cx, cy in pixels.
        time: seconds since the sequence began.
    """

    color: Path
    depth: Path
    pose: Array
    lens: tuple[float, float, float, float]
    time: float


@dataclass(frozen=True)
class Sequence:
    """A sequence in temporal order.

    Attributes:
        frames: at least one.
        size: (width, height) in pixels of all images.
        depth_unit: metres of one stored unit of depth.
        depth_invalid: stored values that mean "not measured".
    """

    frames: tuple[Frame, ...]
    size: tuple[int, int]
    depth_unit: float
    depth_invalid: tuple[float, ...]


@dataclass(frozen=True)
class SequenceOptions:
    """How a sequence is read; None leaves it to the layout. Raises `ConfigError` for a value out of its range."""

    layout: Layout = "auto"
    """Layout of the files; auto looks what is there."""
    depth_unit: float | None = None
    """Metres of one stored unit of depth, such as 0.001."""
    depth_invalid: tuple[float, ...] = (0.0, 65535.0)
    """Stored values that mean "not measured"; what is negative, NaN or infinite never is a measurement."""
    depth_max: float = 10.0
    """Depths beyond this are not used, metres."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels, from the image's upper left corner."""
    axes: Literal["auto", "opencv", "nerfstudio"] = "auto"
    """Axes of the poses' cameras: opencv (y down, z forward) or nerfstudio (y up, z backward)."""
    fps: float = 30.0
    """Frames per second, where the layout has no timestamps."""
    max_time_difference: float = 0.02
    """Seconds that colour, depth and pose may be apart, where each has timestamps of its own (tum)."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name, value in (
            ("depth_unit", self.depth_unit),
            ("depth_max", self.depth_max),
            ("fps", self.fps),
            ("max_time_difference", self.max_time_difference),
            *(() if self.intrinsics is None else (("intrinsics", value) for value in self.intrinsics)),
        ):
            if value is not None and not 0.0 < value < float("inf"):
                raise ConfigError(f"{name} is {value:g}, but a positive, finite number is needed: correct it")


def load_depth(path: Path, unit_scale: float, invalid: Iterable[float], depth_max: float) -> NDArray[np.float32]:
    """Reads a depth image.

    Arguments:
        path: PNG of 16 bits, or .npy [h, w] of any real type.
        unit_scale: metres of one stored unit.
        invalid: stored values that mean "not measured".
        depth_max: metres; what is farther is not used.

    Returns depth along the optical axis [h, w] float32 in metres, NaN where there is none. Raises `DataError`.
    """
    stored = _read_depth(path)
    bad = ~(stored > 0.0) | ~np.isfinite(stored)
    for value in invalid:
        bad |= stored == value
    depth = stored.astype(np.float32) * np.float32(unit_scale)
    depth[bad | (depth > depth_max)] = np.nan
    return depth


def _read_depth(path: Path) -> NDArray[Any]:
    """The stored numbers [h, w] of a depth file."""
    again = "copy it again, or remove its frame"
    if path.suffix == ".npy":
        try:
            stored = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"depth '{path}' is damaged and cannot be read ({_first_line(error)}): {again}") from error
        if stored.ndim != 2 or stored.dtype.kind not in "uif":
            raise DataError(
                f"depth '{path}' is an array {list(stored.shape)} of {stored.dtype}: real numbers [height, width] are "
                "needed; convert it"
            )
        return stored
    try:
        with Image.open(path) as image:
            mode = image.mode
            stored = np.asarray(image)
    except Exception as error:  # a damaged file raises whatever its decoder meets: OSError, SyntaxError, zlib.error ...
        raise DataError(f"depth '{path}' is damaged and cannot be decoded ({_first_line(error)}): {again}") from error
    if mode not in DEPTH_MODES:
        raise DataError(
            f"depth '{path}' has the pixel format {mode}: one channel of 16 bits is needed (PNG), or .npy; convert it"
        )
    return stored


def read_sequence(path: Path, options: SequenceOptions) -> Sequence:
    """Reads the list of frames of a sequence and checks all that can be checked without decoding images.

    Arguments:
        path: directory of the sequence.
        options: layout, units and cameras, where they are not in the files.

    Raises `DataError`: missing or unpaired files, poses that are missing, not finite or not rigid, timestamps that do
    not increase, colour and depth of different sizes.
    """
    from eugen_nerf.data.rgbd_layouts import LAYOUTS, detect_layout

    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"the sequence '{path}' {what}: pass its directory with --data, or make one: eugen-data room")
    layout = detect_layout(path) if options.layout == "auto" else options.layout
    frames, depth_unit = LAYOUTS[layout](path, options)
    if not frames:
        raise DataError(f"the {layout} sequence '{path}' has no frames: at least one is needed")
    previous = -np.inf
    for frame in frames:
        check_pose(frame.pose, f"the frame of '{frame.color}'")
        if not (np.isfinite(frame.lens).all() and min(frame.lens[:2]) > 0.0):
            raise DataError(
                f"the camera of '{frame.color}' has fx, fy, cx, cy = {', '.join(f'{v:g}' for v in frame.lens)}: finite "
                "numbers and positive focal lengths are needed; correct it, or pass --intrinsics"
            )
        if frame.time <= previous:
            raise DataError(
                f"frames are out of order: '{frame.color}' has the time {frame.time:g} s after {previous:g} s; sort "
                "the sequence by time and remove what is there twice"
            )
        previous = frame.time
    for frame in frames:
        for what, file in (("colour", frame.color), ("depth", frame.depth)):
            if not file.is_file():
                raise DataError(f"the {what} image '{file}' is missing: copy it there, or remove its frame")
    start = frames[0].time
    frames = [replace(frame, time=frame.time - start) for frame in frames]
    return Sequence(tuple(frames), _common_size(frames), depth_unit, tuple(options.depth_invalid))


def inspect_sequence(
    sequence: Sequence, depth_max: float, *, limit: int = 2000
) -> tuple[Sequence, list[Frame], NDArray[np.float32]]:
    """Decodes every image once.

    Arguments:
        sequence: as read.
        depth_max: metres; what is farther is not used.
        limit: measured points kept of a frame, about.

    Returns the sequence without frames whose depth is nowhere valid, those frames, and measured points [n, 3] in the
    world, metres. Raises `DataError` for a damaged image, or if no frame has valid depth.
    """
    check_images([frame.color for frame in sequence.frames], split="train")

    def look(frame: Frame) -> tuple[bool, NDArray[np.float32]]:
        depth = load_depth(frame.depth, sequence.depth_unit, sequence.depth_invalid, depth_max)
        return bool(np.isfinite(depth).any()), world_points(frame, depth, limit)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(look, sequence.frames))
    kept = [frame for frame, (valid, _) in zip(sequence.frames, found, strict=True) if valid]
    lost = [frame for frame, (valid, _) in zip(sequence.frames, found, strict=True) if not valid]
    if not kept:
        raise DataError(
            f"no depth image of the sequence has a valid pixel, the first is '{lost[0].depth}': check the depth unit "
            f"({sequence.depth_unit:g} m), the invalid values {list(sequence.depth_invalid)} and the largest depth "
            f"({depth_max:g} m)"
        )
    return replace(sequence, frames=tuple(kept)), lost, np.concatenate([points for _, points in found])


def world_points(frame: Frame, depth: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """Points [n, 3] in the world, metres, of pixels that have a depth: all, or evenly chosen ones, at most 2 limit."""
    valid = np.flatnonzero(np.isfinite(depth))
    valid = valid[:: max(1, len(valid) // limit)]
    rows, columns = np.unravel_index(valid, depth.shape)
    z, x, y = depth.reshape(-1)[valid].astype(np.float64), columns + 0.5, rows + 0.5
    fx, fy, cx, cy = frame.lens
    local = np.stack([(x - cx) / fx * z, -(y - cy) / fy * z, -z], axis=-1)
    return (local @ frame.pose[:3, :3].T + frame.pose[:3, 3]).astype(np.float32)


def _common_size(frames: list[Frame]) -> tuple[int, int]:
    """(width, height) of all colour and depth images, from their headers."""
    expected: tuple[int, int] | None = None
    for frame in frames:
        color, depth = _size(frame.color), _size(frame.depth)
        if color != depth:
            raise DataError(
                f"colour '{frame.color}' is {color[0]}x{color[1]} pixels but depth '{frame.depth}' is "
                f"{depth[0]}x{depth[1]}: both must have one size and be aligned; resize the colour images"
            )
        expected = expected or color
        if color != expected:
            raise DataError(
                f"colour '{frame.color}' is {color[0]}x{color[1]} pixels where the sequence's first is "
                f"{expected[0]}x{expected[1]}: one size is allowed; resize or remove it"
            )
    assert expected is not None
    return expected


def _size(path: Path) -> tuple[int, int]:
    """(width, height) of an image or array, from its header where there is one."""
    if path.suffix == ".npy":
        height, width = _read_depth(path).shape
        return width, height
    reader: Callable[[Path], Any] = Image.open
    try:
        with reader(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"image '{path}' is damaged and cannot be decoded ({_first_line(error)}): copy it again, or remove it"
        ) from error
    return width, height


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
