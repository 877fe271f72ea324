"""Checks that the frames of a sequence agree: two frames must measure a point at the same place.

Depth and poses have conventions that no file states: the unit of depth, the axes of the cameras, the direction of the
poses. With a wrong one, each frame is plausible by itself, but the sequence is useless.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.rgbd_images import load_depth
from eugen_nerf.data.rgbd.rgbd_types import OPENCV_TO_NERFSTUDIO, Array, RGBDFrame, Sequence, SequenceOptions

DEPTH_UNITS = (1.0, 1e-2, 1e-3, 2.5e-4, 1e-4, 1 / 5000, 1 / 6553.5)
"""Common units of depth, metres per stored unit: metres, centimetres, millimetres, RealSense L500 and D405, TUM,
Replica."""
ANCHOR_FRAMES, FRAME_GAPS = 6, (1, 3, 9, 27, 81)
"""Number of frames that are compared, and the distances to the frames with which they are compared."""
POINTS_PER_FRAME = 300
"""Points of a frame that are projected into another."""
MIN_POINTS = 200
DEPTH_TOLERANCE = 0.04
"""Largest relative difference of two depths: the error of sensors at several metres."""
MAX_OTHER_DISAGREEMENT, MAX_DISAGREEMENT = 0.1, 0.15
"""Largest disagreement of another convention that is suggested, and of frames as read; edges cause some."""
UNUSABLE_DISAGREEMENT = 0.4
"""Disagreement beyond which a sequence is rejected, unless the options state the conventions."""
CLEAR_FACTOR = 2.5
"""Factor by which another convention must reduce the disagreement to be suggested."""


Change = Callable[[Array], Array]
"""A change of a camera-to-world matrix."""
Pair = tuple[Array, Array, Array, RGBDFrame, NDArray[np.float32]]
"""Points [n, 3] in a camera's axes, its pose, and the pose, frame and depth image of the other camera."""


def check_agreement(sequence: Sequence, options: SequenceOptions) -> str | None:
    """Compares depths of frames as read, in other units, and with other poses.

    Returns a warning if they disagree under all conventions, None if they agree or overlap too little. Raises
    `DataError` if they disagree as read but agree under another convention that the options do not rule out, and if
    they disagree strongly and the options state no convention.
    """
    pairs = _pairs(sequence)
    as_read = disagreement(pairs, 1.0, _same)
    if as_read <= MAX_DISAGREEMENT:
        return None
    others: list[tuple[float, Change, str]] = []
    if options.depth_unit is None:
        here = f"a stored unit of depth instead of {sequence.depth_unit:.6g}"
        others += [
            (unit / sequence.depth_unit, _same, f"at {unit:.6g} m {here}: pass --depth-unit {unit:.6g}")
            for unit in DEPTH_UNITS
        ]
    if options.axes == "auto":
        text = "with the cameras' other axes: pass --axes opencv or --axes nerfstudio, whichever was not taken"
        others.append((1.0, _flipped, text))
    text = "with inverted poses: these are world-to-camera; write camera-to-world matrices"
    others += [(1.0, _inverted, text), (1.0, _inverted_and_flipped, text)]
    results = [disagreement(pairs, factor, change) for factor, change, _ in others]
    best = min(results)
    factor, change, text = others[results.index(best)]
    overlapping = np.isfinite(as_read)
    if (
        best <= MAX_OTHER_DISAGREEMENT
        and best * CLEAR_FACTOR <= as_read
        and (overlapping or _is_minimum(pairs, best, factor, change))
    ):
        how = f"contradict one another at {100 * as_read:.0f} % of the points" if overlapping else "show nothing"
        raise DataError(f"the depth images {how} that two frames see, but agree at {100 * (1 - best):.0f} % {text}")
    if not overlapping:
        return None
    text = (
        f"the depth images contradict one another at {100 * as_read:.0f} % of the points that two frames see: "
        "check --intrinsics, --depth-unit, --axes and the poses"
    )
    if (
        as_read > UNUSABLE_DISAGREEMENT
        and options.intrinsics is None
        and options.depth_unit is None
        and options.axes == "auto"
    ):
        raise DataError(
            f"{text}; images that were cropped need --intrinsics fx fy cx cy of their own (pixels from the upper left "
            "corner), which also trains all the same"
        )
    return f"warning: {text}"


def _is_minimum(pairs: list[Pair], result: float, factor: float, change: Change) -> bool:
    """Whether far larger depths agree less. With those, all cameras are at one place, and flat scenes agree anyway."""
    return disagreement(pairs, 30 * factor, change) > CLEAR_FACTOR * max(result, 0.02)


def disagreement(pairs: list[Pair], factor: float, change: Change) -> float:
    """Share of contradictions among the points of a frame that project into another frame.

    A point agrees if the other frame measures the same depth, within a tolerance. It contradicts if the other frame
    measures a larger depth. A point behind the measured depth is ignored, because it may be hidden.

    Arguments:
        pairs: of frames to compare.
        factor: multiplies all depths.
        change: applied to camera-to-world matrices.

    Infinite if too few points remain.
    """
    ahead = []
    for points, pose, other, frame, depth in pairs:
        a, b = change(pose), change(other)
        world = factor * points @ a[:3, :3].T + a[:3, 3]
        local = (world - b[:3, 3]) @ np.linalg.inv(b[:3, :3]).T
        z = -local[:, 2]
        local, z = local[z > 0], z[z > 0]
        fx, fy, cx, cy = frame.lens.pinhole
        column = np.floor(fx * local[:, 0] / z + cx)
        row = np.floor(-fy * local[:, 1] / z + cy)
        inside = (column >= 0) & (column < depth.shape[1]) & (row >= 0) & (row < depth.shape[0])
        measured = factor * depth[row[inside].astype(np.int64), column[inside].astype(np.int64)]
        difference = (measured - z[inside]) / measured  # NaN compares as False
        ahead.append(difference[difference > -DEPTH_TOLERANCE])
    together = np.concatenate(ahead) if ahead else np.empty(0)
    return float((together > DEPTH_TOLERANCE).mean()) if len(together) >= MIN_POINTS else np.inf


def _pairs(sequence: Sequence) -> list[Pair]:
    """Pairs of frames at several distances."""
    frames = sequence.frames
    anchors = np.unique(np.linspace(0, len(frames) - 1, min(ANCHOR_FRAMES, len(frames))).astype(int)).tolist()
    chosen = [(i, j) for i in anchors for gap in FRAME_GAPS for j in (i + gap, i - gap) if 0 <= j < len(frames)]
    depths = {
        i: load_depth(
            frames[i].depth,
            sequence.depth_unit,
            sequence.depth_invalid,
            np.inf,
            mask=frames[i].mask,
            lens=frames[i].lens,
        )
        for i in set(chain.from_iterable(chosen))
    }
    return [
        (_local_points(frames[i], depths[i]), frames[i].pose, frames[j].pose, frames[j], depths[j]) for i, j in chosen
    ]


def _local_points(frame: RGBDFrame, depth: NDArray[np.float32]) -> Array:
    """Evenly subsampled measured points [n, 3] in the camera's axes, metres."""
    valid = np.flatnonzero(np.isfinite(depth))
    valid = valid[:: max(1, len(valid) // POINTS_PER_FRAME)]
    rows, columns = np.unravel_index(valid, depth.shape)
    z = depth.reshape(-1)[valid].astype(np.float64)
    fx, fy, cx, cy = frame.lens.pinhole
    return np.stack([(columns + 0.5 - cx) / fx * z, -(rows + 0.5 - cy) / fy * z, -z], axis=-1)


def _same(pose: Array) -> Array:
    return pose


def _flipped(pose: Array) -> Array:
    return pose @ OPENCV_TO_NERFSTUDIO


def _inverted(pose: Array) -> Array:
    return np.linalg.inv(pose)


def _inverted_and_flipped(pose: Array) -> Array:
    """The inverse of a pose whose axes were turned when it was read; the world is turned too, which changes nothing."""
    return np.linalg.inv(pose) @ OPENCV_TO_NERFSTUDIO
