"""RGB-D sequences in the layout of the TUM benchmark: lists of times for colour, depth and ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.undistortion import Lens
from eugen_nerf.data.rgbd.rgbd_files import read_text
from eugen_nerf.data.rgbd.rgbd_images import depth_size
from eugen_nerf.data.rgbd.rgbd_types import Array, Reading, RGBDFrame, SequenceOptions

KINECT = Lens(525.0, 525.0, 320.0, 240.0, (640, 480))
"""A Kinect as the TUM benchmark recommends it for registered, undistorted images: 525, 525, 319.5, 239.5."""
KINECT_UNIT = 1.0 / 5000.0


def read_tum(path: Path, options: SequenceOptions) -> Reading:
    """`rgb.txt`, `depth.txt` (time, file) and `groundtruth.txt` (time, translation, quaternion xyzw; OpenCV axes).

    Each colour image is matched with the depth image and the pose nearest in time. It is left out if one of them is
    farther than `max_time_difference`, or if the depth image is nearer to another colour image, as in the benchmark's
    own tools. The layout has no camera: without `intrinsics`, images must be a Kinect's 640x480.
    """
    colors, depths = _timed_lines(path / "rgb.txt"), _timed_lines(path / "depth.txt")
    poses = [line for line in _timed_lines(path / "groundtruth.txt") if not _tracking_lost(line[1])]
    if not poses:
        raise DataError(f"'{path / 'groundtruth.txt'}' has no finite pose: at least one is needed")
    times, depth_times, pose_times = (np.array([time for time, _ in lines]) for lines in (colors, depths, poses))
    depth, pose = _nearest(depth_times, times), _nearest(pose_times, times)
    limit = options.max_time_difference
    away = np.abs(depth_times[depth] - times)
    near_pose = np.abs(pose_times[pose] - times) <= limit
    rival: dict[int, float] = {}
    for index, apart in zip(depth.tolist(), away.tolist(), strict=True):
        rival[index] = min(apart, rival.get(index, np.inf))
    near_depth = (away <= limit) & (away <= np.array([rival[index] for index in depth.tolist()]))
    kept = np.flatnonzero(near_depth & near_pose)
    kept = kept[np.unique(depth[kept], return_index=True)[1]]
    if not len(kept):
        raise DataError(
            f"no colour image of '{path}' has a depth image and a pose within {limit:g} s: check the timestamps in "
            "rgb.txt, depth.txt and groundtruth.txt, or raise --max-time-difference"
        )
    matrices = [
        _quaternion_pose(poses[i][1], f"the line of time {pose_times[i]:.6f} of groundtruth.txt") for i in pose[kept]
    ]
    lens, assumed = _camera(path / depths[depth[kept[0]]][1][0], options)
    if options.depth_unit is None:
        assumed = (*assumed, f"{KINECT_UNIT:g} m a stored unit of depth, TUM's (--depth-unit; RealSense: 0.001)")
    frames = [
        RGBDFrame(path / colors[i][1][0], path / depths[depth[i]][1][0], matrix, lens, float(times[i]))
        for i, matrix in zip(kept, matrices, strict=True)
    ]
    notes = _dropped(near_depth, near_pose, len(kept), pose_times, limit)
    return Reading(frames, options.depth_unit or KINECT_UNIT, "opencv", assumed, notes)


def _camera(depth: Path, options: SequenceOptions) -> tuple[Lens, tuple[str, ...]]:
    """The lens, and the assumptions made; raises `DataError` for images that are not a Kinect's."""
    if options.intrinsics is not None:
        return Lens(*options.intrinsics), ()
    size = depth_size(depth) if depth.is_file() else KINECT.size
    if size != KINECT.size:
        assert size is not None
        raise DataError(
            f"'{depth}' is {size[0]}x{size[1]} pixels, so its camera is unknown: the tum layout has no intrinsics, and "
            "a Kinect's 525 pixels hold for 640x480; pass --intrinsics fx fy cx cy of these images (pixels from the "
            "upper left corner), and --depth-unit 0.001 if it was a RealSense"
        )
    return KINECT, ("a Kinect's fx, fy, cx, cy = 525, 525, 320, 240 (--intrinsics)",)


def _dropped(
    near_depth: NDArray[np.bool_], near_pose: NDArray[np.bool_], kept: int, pose_times: Array, limit: float
) -> tuple[str, ...]:
    """A note on the number of colour images left out, and the reasons."""
    count, lost = len(near_depth), int((~near_pose).sum())
    if kept == count:
        return ()
    text = f"left out {count - kept} of {count} colour images:"
    reasons = []
    if lost:
        gaps = np.diff(pose_times)
        gap = int(gaps.argmax()) if len(gaps) else 0
        longest = f"; the longest gap in groundtruth.txt is {gaps[gap]:.3g} s after {pose_times[gap]:.6f}"
        reasons.append(f" {lost} without a pose within {limit:g} s{longest if len(gaps) and gaps[gap] > limit else ''}")
    if count - kept - lost:
        reasons.append(f" {count - kept - lost} without a depth image of their own within {limit:g} s")
    return (text + ",".join(reasons) + " (--max-time-difference)",)


def _nearest(times: Array, wanted: Array) -> NDArray[np.int64]:
    """Index of the nearest of increasing times [n], for each wanted time [m]; the earlier one of a tie."""
    after = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.zeros(len(wanted), dtype=np.int64)
    return after - (wanted - times[after - 1] <= times[after] - wanted)


def _tracking_lost(fields: list[str]) -> bool:
    """Whether a pose has no finite number: recorders mark lost tracking in this way."""
    try:
        return len(fields) >= 7 and not np.isfinite([float(value) for value in fields]).any()
    except ValueError:
        return False


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


def _timed_lines(path: Path) -> list[tuple[float, list[str]]]:
    """(time, further fields) of each line except comments; times must increase."""
    lines: list[tuple[float, list[str]]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            time = float(fields[0])
        except ValueError:
            time = float("nan")
        too_long = any(len(part.encode(errors="replace")) > 255 for field in fields for part in field.split("/"))
        if not np.isfinite(time) or len(fields) < 2 or too_long:
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
