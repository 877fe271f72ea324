"""Checks that nerfstudio's undistortion converges for a lens: its iteration fails silently."""

from __future__ import annotations

import torch
from nerfstudio.cameras import camera_utils
from torch import Tensor

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.lens_reading import PhotographLens

GRID_POINTS = 33
"""Points checked along each side of the image."""
MAX_ERROR_PIXELS = 0.5
"""Largest error in pixels of a point after undistortion and distortion."""
MAX_BAD_SHARE = 0.005
"""Largest share of points beyond this error: those in the outermost corners."""


def check_inverse(lens: PhotographLens, where: str) -> None:
    """Raises `DataError` if the undistortion fails for more than a few pixels of a lens.

    Arguments:
        lens: with nerfstudio's six coefficients.
        where: description of its entry, for error messages.
    """
    if not any(lens.distortion) or len(lens.distortion) != 6:
        return
    rows, columns = torch.meshgrid(torch.linspace(0, 1, GRID_POINTS), torch.linspace(0, 1, GRID_POINTS), indexing="ij")
    x = (columns * (lens.width - 1) + 0.5 - lens.cx) / lens.fx
    y = (rows * (lens.height - 1) + 0.5 - lens.cy) / lens.fy
    distorted = torch.stack([x, y], dim=-1).reshape(-1, 2)
    coefficients = torch.tensor(lens.distortion).expand(len(distorted), 6)
    undistorted = camera_utils.radial_and_tangential_undistort(distorted, coefficients)
    off = ((_distorted(undistorted, lens) - distorted) * torch.tensor([lens.fx, lens.fy])).norm(dim=-1)
    # a solution beyond the radius where the distortion turns back is invalid
    failed = ~(off <= MAX_ERROR_PIXELS) | (undistorted.norm(dim=-1) > _turning_point(lens))
    share = float(failed.float().mean())
    if share > MAX_BAD_SHARE:
        values = ", ".join(f"{value:g}" for value in lens.distortion)
        raise DataError(
            f"the distortion of {where} cannot be undone for {100 * share:.1f} % of its image (k1, k2, k3, k4, p1, p2 "
            f"= {values}): correct the coefficients, or undistort the images (colmap image_undistorter, "
            "ns-process-data) and write the cameras anew"
        )


def _distorted(points: Tensor, lens: PhotographLens) -> Tensor:
    """OpenCV's distortion of points [N, 2] at unit depth (of a fisheye: at angles from the axis)."""
    k1, k2, k3, k4, p1, p2 = lens.distortion
    x, y = points.unbind(-1)
    r = x * x + y * y
    radial = 1 + r * (k1 + r * (k2 + r * (k3 + r * k4)))
    return torch.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x), y * radial + 2 * p2 * x * y + p1 * (r + 2 * y * y)], dim=-1
    )


def _turning_point(lens: PhotographLens) -> float:
    """The undistorted radius from which on the distorted one no longer grows; infinite where it always does."""
    k1, k2, k3, k4, _, _ = lens.distortion
    radius = torch.linspace(0.0, 10.0, 10_001)
    r = radius * radius
    falling = (1 + r * (3 * k1 + r * (5 * k2 + r * (7 * k3 + r * 9 * k4))) <= 0).nonzero()
    return float(radius[falling[0]]) if len(falling) else float("inf")
