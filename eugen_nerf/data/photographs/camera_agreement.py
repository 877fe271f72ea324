"""Agreement of two sets of cameras of the same images, independent of their coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Differences after alignment by the best similarity transform, one number per camera."""

    degrees: Array
    """Angle between the two orientations."""
    distances: Array
    """Between the two centres, as a share of the true cameras' extent: the root mean square distance to their mean."""


def compare_cameras(found: Array, true: Array) -> Agreement:
    """Aligns camera centres by a similarity transform (Umeyama, 1991) and measures the remaining differences.

    trimesh's `procrustes` scales by the ratio of the spreads, which is not the least-squares scale.

    Args:
        found: camera-to-world matrices [n, 4, 4], n at least 3.
        true: of the same images in the same order, with the same camera axes, in any coordinates.
    """
    a, b = found[:, :3, 3], true[:, :3, 3]
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    spread = np.square(a - mean_a).sum(axis=1).mean()
    extent = np.sqrt(np.square(b - mean_b).sum(axis=1).mean())
    u, sizes, vt = np.linalg.svd((b - mean_b).T @ (a - mean_a) / len(a))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (sizes * signs).sum() / spread
    moved = scale * (a - mean_a) @ rotation.T + mean_b
    between = np.swapaxes(true[:, :3, :3], 1, 2) @ rotation @ found[:, :3, :3]
    cosines = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    return Agreement(np.degrees(np.arccos(np.clip(cosines, -1, 1))), np.linalg.norm(moved - b, axis=1) / extent)
