"""Orients, centres and scales cameras by a data parser's settings, precisely even far from the origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras import camera_utils
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.posed import Array

FAR_SPREADS = 100.0
"""Distance from the origin beyond which float32 loses the relative positions of cameras, in units of their spread."""
MAX_FLOAT_STEP = 1e-4
"""Coarsest step of float32 coordinates, in units of the cameras' spread."""


MAX_DISTANCE_RATIO = 1000.0
"""Largest ratio of a camera's distance from the middle to the median distance."""


def check_outliers(centres: Array, names: Sequence[str], least: float = 0.0) -> None:
    """Raises `DataError` if a camera is so far away that scaling would move all others to one point.

    Arguments:
        centres: of the cameras, [N, 3].
        names: of the cameras, for error messages.
        least: lower limit of the median distance.
    """
    away = np.linalg.norm(centres - np.median(centres, axis=0), axis=-1)
    usual = float(np.median(away))
    if usual > 0 and away.max() > MAX_DISTANCE_RATIO * max(usual, least):
        raise DataError(
            f"the camera of {names[int(away.argmax())]} stands {away.max():.3g} from the middle of all cameras, half "
            f"of which are within {usual:.3g}: correct its pose, or remove it"
        )


class FarOutputs(DataparserOutputs):
    """Outputs whose transform is float64, for coordinates that float32 does not hold."""

    def transform_poses_to_original_space(
        self, poses: Tensor, camera_convention: Literal["opengl", "opencv"] = "opencv"
    ) -> Tensor:
        """As nerfstudio's, in float64."""
        return super().transform_poses_to_original_space(poses.double(), camera_convention)


def orient_and_scale(
    poses: Array, *, orientation: Any, centre: Any, fit: bool, scale: float
) -> tuple[Tensor, Tensor, float]:
    """Places cameras as nerfstudio does; far from the origin they are centred in float64 first.

    Arguments:
        poses: camera-to-world [N, 4, 4].
        orientation, centre: nerfstudio's methods; "none" leaves the world as it is.
        fit: scale the cameras into [-1, 1].
        scale: further factor.

    Returns camera-to-world [N, 3, 4] float32, the transform [3, 4] of world coordinates before scaling (float64 where
    cameras are far away, else float32), and the factor. Raises `DataError`: cameras that all stand at one place, or are
    too far away for float32 and not to be centred.
    """
    centres = poses[:, :3, 3]
    middle = centres.mean(axis=0)
    spread = float(np.abs(centres - middle).max())
    largest = float(np.abs(centres).max())
    if fit and not spread > 1e-9 * max(1.0, largest):
        which = "the only camera stands" if len(poses) == 1 else f"all {len(poses)} cameras stand"
        raise DataError(
            f"{which} at one place: depth shows between places, so at least 2 photographs from several are needed"
        )
    offset = np.zeros(3)
    if centre != "none" and largest > FAR_SPREADS * spread:
        offset = middle
    elif largest * np.finfo(np.float32).eps > MAX_FLOAT_STEP * max(spread, 1.0 if not fit else 0.0):
        raise DataError(
            f"cameras lie up to {largest:g} from the origin and {spread:g} from one another, which float32 coordinates "
            "cannot hold: centre them (--center-method poses after the data parser's name), or subtract their mean"
        )
    moved = poses.copy()
    moved[:, :3, 3] -= offset
    placed, transform = camera_utils.auto_orient_and_center_poses(
        torch.from_numpy(moved.astype(np.float32)), method=orientation, center_method=centre
    )
    placed = placed[:, :3].clone()
    factor = 1.0 / float(placed[:, :3, 3].abs().max()) if fit else 1.0
    factor *= scale
    placed[:, :3, 3] *= factor
    if offset.any():
        transform = transform.double()
        transform[:, 3] -= transform[:, :3] @ torch.from_numpy(offset)
    return placed, transform, factor
