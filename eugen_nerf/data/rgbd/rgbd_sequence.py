"""Reads a posed RGB-D sequence and checks it; all frames become images of one pinhole camera."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.checks import check_images, check_pose
from eugen_nerf.data.images.placing import check_outliers
from eugen_nerf.data.lenses.undistortion import Size
from eugen_nerf.data.rgbd.rgbd_agreement import check_agreement
from eugen_nerf.data.rgbd.rgbd_images import color_sizes, depth_size, load_depth, same_view
from eugen_nerf.data.rgbd.rgbd_layouts import LAYOUTS, detect_layout
from eugen_nerf.data.rgbd.rgbd_lenses import fit_lenses
from eugen_nerf.data.rgbd.rgbd_transforms import tracking_lost
from eugen_nerf.data.rgbd.rgbd_types import OPENCV_TO_NERFSTUDIO, Array, Reading, RGBDFrame, Sequence, SequenceOptions

FAR_METRES = 1e4
"""Distance in metres beyond which single precision is coarser than a millimetre."""


def read_sequence(path: Path, options: SequenceOptions) -> Sequence:
    """Reads the list of frames of a sequence and makes all checks that need no decoding of images.

    Frames without any finite number in their pose are left out: recorders mark lost tracking in this way.

    Arguments:
        path: directory of the sequence.
        options: layout, units and cameras that the files do not state.

    Raises `DataError`: missing or unpaired files, poses that are missing, not finite or not rigid, timestamps that do
    not increase, colour and depth that do not show the same view, a camera that does not fit its images.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"the sequence '{path}' {what}: give its directory, or make one with eugen-data room")
    layout = detect_layout(path) if options.layout == "auto" else options.layout
    reading = LAYOUTS[layout](path, options)
    if not reading.frames:
        raise DataError(f"the {layout} sequence '{path}' has no frames: at least one is needed")
    notes = [f"not stated by the files, assumed: {'; '.join(reading.assumed)}"] if reading.assumed else []
    notes += reading.notes
    lost = [frame for frame in reading.frames if tracking_lost(frame.pose)]
    if lost:
        notes.append(
            f"left out {len(lost)} of {len(reading.frames)} frames whose pose is not finite (tracking lost), the first "
            f"is '{lost[0].color.name}'"
        )
    frames = _posed(reading, options)
    if not frames:
        raise DataError(f"no pose of the {layout} sequence '{path}' is finite: at least one is needed; track it again")
    _check_times_and_files(frames)
    size, color_size = _sizes(frames, notes)
    frames = fit_lenses(frames, size, color_size, options.intrinsics is not None, notes)
    origin = _origin(frames, notes)
    for frame in frames:
        frame.pose[:3, 3] -= origin
    x, y, z = origin.tolist()
    return Sequence(tuple(frames), size, reading.depth_unit, tuple(options.depth_invalid), tuple(notes), (x, y, z))


@dataclass(frozen=True)
class Inspection:
    """Result of decoding every image of a sequence.

    Attributes:
        sequence: without frames that have no valid depth; with notes.
        points: measured points [n, 3] float32 in the world, metres.
    """

    sequence: Sequence
    points: NDArray[np.float32]


def inspect_sequence(sequence: Sequence, options: SequenceOptions, *, limit: int = 2000) -> Inspection:
    """Decodes every image once.

    Arguments:
        sequence: as read.
        options: with which it was read; stated conventions are not questioned.
        limit: approximate number of measured points kept per frame.

    Raises `DataError` for a damaged image, if no frame has valid depth, or if the frames' depths agree only in another
    unit or with other axes.
    """
    check_images([frame.color for frame in sequence.frames], split="train")

    def inspect(frame: RGBDFrame) -> tuple[bool, NDArray[np.float32], NDArray[np.float32], float]:
        lens, mask = frame.lens, frame.mask
        depth = load_depth(frame.depth, sequence.depth_unit, sequence.depth_invalid, np.inf, mask=mask, lens=lens)
        measured = np.isfinite(depth)
        far = depth > options.depth_max
        depth[far] = np.nan
        points, depths = world_points(frame, depth, limit)
        return bool(np.isfinite(depth).any()), points, depths, float(far.sum() / max(1, measured.sum()))

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        inspected = list(pool.map(inspect, sequence.frames))
    kept = [frame for frame, (valid, *_) in zip(sequence.frames, inspected, strict=True) if valid]
    lost = [frame for frame, (valid, *_) in zip(sequence.frames, inspected, strict=True) if not valid]
    if not kept:
        raise DataError(
            f"no depth image of the sequence has a valid pixel, the first is '{lost[0].depth}': check the depth unit "
            f"({sequence.depth_unit:g} m), the invalid values {list(sequence.depth_invalid)} and the largest depth "
            f"({options.depth_max:g} m)"
        )
    notes = list(sequence.notes)
    if lost:
        notes.append(
            f"left out frames without valid depth: {len(lost)} of {len(sequence.frames)}, the first is "
            f"{lost[0].depth.name}"
        )
    notes.append(_measured(np.concatenate([depths for _, _, depths, _ in inspected]), sequence.depth_unit))
    far = float(np.mean([share for *_, share in inspected]))
    if far > 0.2:
        notes.append(
            f"warning: {100 * far:.0f} % of the measured depths are beyond {options.depth_max:g} m and not used: check "
            "--depth-unit, or raise --depth-max"
        )
    sequence = replace(sequence, frames=tuple(kept), notes=tuple(notes))
    note = check_agreement(sequence, options)
    if note:
        sequence = replace(sequence, notes=(*sequence.notes, note))
    return Inspection(sequence, np.concatenate([points for _, points, _, _ in inspected]))


def world_points(
    frame: RGBDFrame, depth: NDArray[np.float32], limit: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """World points [n, 3] in metres of pixels with a depth, and their depths [n] in metres.

    All of them, or an even subsample of at most 2 limit.
    """
    valid = np.flatnonzero(np.isfinite(depth))
    valid = valid[:: max(1, len(valid) // limit)]
    rows, columns = np.unravel_index(valid, depth.shape)
    z, x, y = depth.reshape(-1)[valid].astype(np.float64), columns + 0.5, rows + 0.5
    fx, fy, cx, cy = frame.lens.pinhole
    local = np.stack([(x - cx) / fx * z, -(y - cy) / fy * z, -z], axis=-1)
    points = local @ frame.pose[:3, :3].T + frame.pose[:3, 3]
    return points.astype(np.float32), z.astype(np.float32)


def _measured(depths: NDArray[np.float32], unit: float) -> str:
    """A line with the range of the depths in metres, so that a wrong unit is noticed."""
    low, middle, high = np.quantile(depths, [0.05, 0.5, 0.95])
    text = f"depth: {low:.3g} to {high:.3g} m (5 to 95 %), median {middle:.3g} m, at {unit:g} m a stored unit"
    if middle < 0.2:
        text = f"warning: {text}: less than a depth camera measures; check --depth-unit"
    return text


def _posed(reading: Reading, options: SequenceOptions) -> list[RGBDFrame]:
    """Frames with a valid pose, in nerfstudio's axes; raises `DataError` for an invalid pose."""
    axes = reading.axes if options.axes == "auto" else options.axes
    frames = []
    for frame in reading.frames:
        if not tracking_lost(frame.pose):
            check_pose(frame.pose, f"the frame of '{frame.color}'")
            pose = np.eye(4)
            pose[:3] = frame.pose[:3]
            frames.append(replace(frame, pose=_turned(pose) if axes == "opencv" else pose))
    return frames


def _origin(frames: list[RGBDFrame], notes: list[str]) -> Array:
    """The origin [3], in whole metres, for which single precision keeps millimetres: 0 for usual coordinates."""
    places = np.stack([frame.pose[:3, 3] for frame in frames])
    check_outliers(places, [f"'{frame.color}'" for frame in frames], least=1.0)
    largest = float(np.abs(places).max())
    if largest < FAR_METRES:
        return np.zeros(3)
    origin = np.rint(places.mean(axis=0))
    notes.append(
        f"positions reach {largest:.6g} m, where single precision keeps {np.spacing(np.float32(largest)):.2g} m: the "
        f"origin is moved to {', '.join(f'{value:.0f}' for value in origin)}; meshes and positions are relative to it"
    )
    return origin


def _turned(pose: Array) -> Array:
    return pose @ OPENCV_TO_NERFSTUDIO


def _check_times_and_files(frames: list[RGBDFrame]) -> None:
    """Raises `DataError` for times that do not increase and for missing files; then shifts times to begin with 0."""
    previous = -np.inf
    for frame in frames:
        if frame.time <= previous:
            raise DataError(
                f"frames are out of order: '{frame.color}' has the time {frame.time:g} s after {previous:g} s; sort "
                "the sequence by time and remove what is there twice"
            )
        previous = frame.time
    for frame in frames:
        for what, file in (("colour", frame.color), ("depth", frame.depth), ("mask", frame.mask)):
            if file is not None and not file.is_file():
                raise DataError(f"the {what} image '{file}' is missing: copy it there, or remove its frame")
    start = frames[0].time
    frames[:] = [replace(frame, time=frame.time - start) for frame in frames]


def _sizes(frames: list[RGBDFrame], notes: list[str]) -> tuple[Size, Size]:
    """(width, height) of all depth images, and of the colour images after rotation by EXIF."""
    size = depth_size(frames[0].depth)
    expected: Size | None = None
    for frame in frames:
        depth = depth_size(frame.depth)
        if depth != size:
            raise DataError(
                f"depth '{frame.depth}' is {depth[0]}x{depth[1]} pixels where the sequence's first is "
                f"{size[0]}x{size[1]}: one size is allowed; remove the frame, or give it a sequence of its own"
            )
        stored, turned = color_sizes(frame.color)
        color = stored if same_view(stored, size) else turned
        if not same_view(color, size):
            raise DataError(
                f"colour '{frame.color}' is {stored[0]}x{stored[1]} pixels but depth '{frame.depth}' is "
                f"{depth[0]}x{depth[1]}: both must show the same view (one may be a smaller copy of the other); align "
                "depth to colour where they were recorded, or crop both alike and pass --intrinsics"
            )
        if expected is None and color != stored:
            notes.append(f"colour is rotated by its EXIF tag, {stored[0]}x{stored[1]} to {color[0]}x{color[1]}")
        expected = expected or color
        if color != expected:
            raise DataError(
                f"colour '{frame.color}' is {color[0]}x{color[1]} pixels where the sequence's first is "
                f"{expected[0]}x{expected[1]}: one size is allowed; remove the frame, or give it a sequence of its own"
            )
    assert expected is not None
    if expected != size:
        notes.append(f"colour of {expected[0]}x{expected[1]} pixels is resized to depth's {size[0]}x{size[1]}")
    return size, expected
