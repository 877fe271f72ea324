"""Checks that every format shares: the directory of a data set, and camera poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from eugen_nerf.core.errors import DataError

RIGID_TOLERANCE = 1e-3


def check_directory(path: Path) -> None:
    """Raises `DataError` unless `path` is a directory."""
    if not path.exists():
        raise DataError(f"data set '{path}' does not exist: give its directory, or make one with eugen-data")
    if not path.is_dir():
        raise DataError(f"data set '{path}' is a file: pass the directory that holds the data set with --data")


def check_pose(pose: ArrayLike, where: str) -> None:
    """Checks a camera-to-world matrix: 3x4 or 4x4, finite, rotation part orthonormal within 1e-3 and right-handed.

    Arguments:
        pose: the matrix.
        where: names the frame in error messages.

    Raises `DataError` for any other matrix; scaled rotations are rejected too.
    """
    try:
        matrix = np.asarray(pose, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        given = f"is of shape {list(matrix.shape)}" if matrix.size else "is no matrix of numbers"
        raise DataError(f"the camera pose in {where} {given}: it must be 4x4 numbers; correct or remove the frame")
    if not np.isfinite(matrix).all():
        raise DataError(
            f"the camera pose in {where} has NaN or infinite entries: all must be finite; correct or remove the frame"
        )
    if len(matrix) == 4 and not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0), rtol=0.0, atol=RIGID_TOLERANCE):
        raise DataError(
            f"the camera pose in {where} has the last row {matrix[3].tolist()}: it must be [0, 0, 0, 1]; "
            "correct or remove the frame"
        )
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    determinant = float(np.linalg.det(rotation))
    if error > RIGID_TOLERANCE or determinant < 0.0:
        raise DataError(
            f"the camera pose in {where} is not rigid (|R^T R - I| up to {error:.2g}, determinant {determinant:.3g}): "
            f"a rotation without scale or mirroring (within {RIGID_TOLERANCE:g}) is needed; correct or remove the frame"
        )
