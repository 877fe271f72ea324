"""Posed RGB-D sequences: colour, depth and camera-to-world poses in metres, in temporal order.

Whatever the layout on disk (`rgbd_layouts.py`), a `Sequence` has nerfstudio's cameras (x right, y up, looking along
-z), metres, seconds, and pixels counted from the image's upper left corner: the first pixel's centre is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.data.lenses.undistortion import Lens, Size

Array = NDArray[np.float64]
Layout = Literal["auto", "7scenes", "transforms", "tum", "replica"]
Axes = Literal["opencv", "nerfstudio"]
OPENCV_TO_NERFSTUDIO = np.diag([1.0, -1.0, -1.0, 1.0])
"""Multiplied from the right to a camera-to-world matrix: from y down, z forward to y up, z backward."""


@dataclass(frozen=True)
class RGBDFrame:
    """One frame.

    Attributes:
        color: image file.
        depth: file of the depth along the optical axis, aligned with the colour image.
        pose: camera-to-world matrix [4, 4] float64, metres.
        lens: in pixels of the depth image once the sequence is read; before, its size may differ or be unknown.
        time: seconds since the sequence began.
        mask: image file, zero at pixels to ignore; None uses all.
        splits: names of the splits whose lists of files contain this frame; None without such lists.
    """

    color: Path
    depth: Path
    pose: Array
    lens: Lens
    time: float
    mask: Path | None = None
    splits: frozenset[str] | None = None


@dataclass(frozen=True)
class Reading:
    """Result of a layout's reader, before the checks.

    Attributes:
        frames: as stored.
        depth_unit: metres of one stored unit of depth.
        axes: of the poses' cameras, unless the options state them.
        assumed: what the files do not state, each with the assumed value and the option that changes it.
        notes: further lines for the user, such as frames left out.
    """

    frames: list[RGBDFrame]
    depth_unit: float
    axes: Axes
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sequence:
    """A sequence in temporal order.

    Attributes:
        frames: at least one.
        size: (width, height) in pixels of all depth images.
        depth_unit: metres of one stored unit of depth.
        depth_invalid: stored values that mean "not measured".
        notes: assumptions, omissions and changes, one line each.
        origin: position in the files' coordinates, metres, that is the origin here; 0 unless coordinates are very
            large.
    """

    frames: tuple[RGBDFrame, ...]
    size: Size
    depth_unit: float
    depth_invalid: tuple[float, ...]
    notes: tuple[str, ...] = ()
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SequenceOptions:
    """Options for reading a sequence; None uses the value of the layout. Raises `ConfigError` for a bad value."""

    layout: Layout = "auto"
    """Layout of the files; auto detects it."""
    depth_unit: float | None = None
    """Metres of one stored unit of depth, such as 0.001."""
    depth_invalid: tuple[float, ...] = (0.0, 65535.0)
    """Stored values that mean "not measured"; negative, NaN and infinite values are never valid."""
    depth_max: float = 10.0
    """Depths beyond this are not used, metres."""
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels, from the image's upper left corner."""
    axes: Literal["auto"] | Axes = "auto"
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
