"""Depth images with their cameras: measured rays, and which points were observed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.rgbd_images import load_depth_of

if TYPE_CHECKING:
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DepthViews:
    """Depth images of one size, nerfstudio's cameras (looking along -z).

    Attributes:
        poses: camera-to-world matrices [V, 3, 4] float64, metres.
        lenses: fx, fy, cx, cy [V, 4] in pixels of the depth images.
        depth: along the optical axis [V, h, w] float32 in metres, NaN where nothing was measured.
        files: colour images, one per view.
    """

    poses: Array
    lenses: Array
    depth: NDArray[np.float32]
    files: tuple[Path, ...]

    def __len__(self) -> int:
        """Number of views."""
        return len(self.poses)

    def measured(self, rng: np.random.Generator, count: int) -> tuple[Array, Array, Array]:
        """Rays through pixels that have a depth, drawn at random with replacement.

        Returns origins [count, 3], directions [count, 3] whose length is that of one metre along the optical axis, and
        depths [count] in metres: the measured points are `origins + depths[:, None] * directions`. Raises `DataError`
        if no pixel has a depth.
        """
        valid = np.flatnonzero(np.isfinite(self.depth))
        if not len(valid):
            raise DataError("no pixel of these depth images is valid: check the depth unit and the invalid values")
        chosen = valid[rng.integers(len(valid), size=count)]
        view, row, column = np.unravel_index(chosen, self.depth.shape)
        fx, fy, cx, cy = self.lenses[view].T
        local = np.stack([(column + 0.5 - cx) / fx, -(row + 0.5 - cy) / fy, -np.ones(count)], axis=-1)
        directions = np.einsum("nij,nj->ni", self.poses[view, :, :3], local)
        return self.poses[view, :, 3], directions, self.depth.reshape(-1)[chosen].astype(np.float64)

    def observed(self, points: NDArray[Any], margin: float = 0.0) -> Mask:
        """Which points [N, 3] were observed: in some view they are no farther than the measured depth plus a margin.

        Arguments:
            points: metres.
            margin: metres behind the measured surface that count as observed.

        Returns [N] bool.
        """
        observed = np.zeros(len(points), dtype=bool)
        open_points, index = np.asarray(points, dtype=np.float32), np.arange(len(points))
        height, width = self.depth.shape[1:]
        for pose, lens, depth in zip(self.poses.astype(np.float32), self.lenses, self.depth, strict=True):
            local = (open_points - pose[:, 3]) @ pose[:, :3]
            z = -local[:, 2]
            front = np.flatnonzero(z > 1e-6)
            fx, fy, cx, cy = lens
            column = np.floor(fx * local[front, 0] / z[front] + cx)
            row = np.floor(-fy * local[front, 1] / z[front] + cy)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            front = front[inside]
            reach = depth[row[inside].astype(np.int64), column[inside].astype(np.int64)]
            hit = front[z[front] <= reach + margin]  # NaN compares as False
            observed[index[hit]] = True
            left = ~observed[index]
            open_points, index = open_points[left], index[left]
        return observed


def depth_views(outputs: DataparserOutputs, *, stride: int = 1) -> DepthViews:
    """The depth images of a split, as `EugenRGBDDataParser` describes them.

    Arguments:
        outputs: of the data parser.
        stride: use every n-th pixel along both axes (the middle one of each cell); lenses are adapted.

    Raises `DataError`: no depth in these outputs, or a damaged image.
    """
    load = _loader(outputs, stride)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        depth = np.stack(list(pool.map(load, range(len(outputs.image_filenames)))))
    return DepthViews(*_cameras(outputs, stride), depth, tuple(map(Path, outputs.image_filenames)))


def stream_views(outputs: DataparserOutputs, *, stride: int = 1) -> Iterator[DepthViews]:
    """The views of `depth_views` one at a time, so that only one image is in memory."""
    load = _loader(outputs, stride)
    poses, lenses = _cameras(outputs, stride)
    for index, file in enumerate(outputs.image_filenames):
        here = slice(index, index + 1)
        yield DepthViews(poses[here], lenses[here], load(index)[None], (Path(file),))


def _loader(outputs: DataparserOutputs, stride: int) -> Callable[[int], NDArray[np.float32]]:
    """A function that reads and subsamples a depth image of a split; raises `DataError` if the split has none."""
    metadata = outputs.metadata
    if "depth_filenames" not in metadata or "depth_masks" not in metadata:
        raise DataError("this data set has no depth images: read it with the data parser eugen-rgbd")

    def load(index: int) -> NDArray[np.float32]:
        depth = load_depth_of(metadata, index)
        # a copy, so that the whole image is freed
        return depth[stride // 2 :: stride, stride // 2 :: stride].copy()

    return load


def _cameras(outputs: DataparserOutputs, stride: int) -> tuple[Array, Array]:
    """Poses [V, 3, 4] and lenses [V, 4] of a split's subsampled images."""
    cameras = outputs.cameras
    columns = [getattr(cameras, name).double().cpu().numpy().reshape(-1) for name in ("fx", "fy", "cx", "cy")]
    return cameras.camera_to_worlds.double().cpu().numpy(), np.stack(columns, axis=-1) / stride
