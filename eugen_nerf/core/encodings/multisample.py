"""Six points that stand for a conical frustum (Sec. 2 and supplement of arXiv 2304.06706)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

NUM_POINTS = 6
ANGLES = tuple(math.pi / 3 * k for k in (0, 2, 4, 3, 5, 1))
"""Of the six points round the axis, radians, from the near end to the far one."""


def hexagonal_points(starts: Tensor, ends: Tensor, radius: Tensor, angle: Tensor, mirror: Tensor) -> tuple[Tensor, ...]:
    """Multisamples of conical frustums along the z axis, with the moments of the frustum.

    Mean, variance along the axis and mean square distance to it are exact for every set; the whole covariance is so on
    average over the angle. Where `ends` is more than 1.85 times `starts`, the last point lies beyond it, by at most
    3.7 % of the length.

    Args:
        starts: distance of the near end, `[...]`.
        ends: distance of the far end, `[...]`.
        radius: of the cone at distance 1, `[...]`.
        angle: by which the hexagon is turned round the axis, radians, `[...]`.
        mirror: whether the order of its angles is reversed, bool `[...]`.

    Returns:
        Points `[..., 6, 3]` (x and y across the axis, z along it), and each point's distance to the axis `[..., 6]`,
        the measure of its footprint.
    """
    middle, half = ((starts + ends) / 2)[..., None], ((ends - starts) / 2)[..., None]
    order = torch.arange(NUM_POINTS, device=starts.device, dtype=starts.dtype) * (2 / 5) - 1
    spread = 3 / math.sqrt(7) * ((half.square() - middle.square()).square() + 4 * middle.pow(4)).sqrt()
    length = ends[..., None].square() + 2 * middle.square() + order * spread
    z = starts[..., None] + half * length / (half.square() + 3 * middle.square()).clamp_min(1e-30)
    angles = _angles(starts.device, starts.dtype)
    turned = torch.where(mirror[..., None], angles.flip(0), angles) + angle[..., None]
    across = radius[..., None] * z / math.sqrt(2)
    # coordinates come first in memory: torch is slow along a last dimension of 3
    return torch.stack([across * turned.cos(), across * turned.sin(), z]).movedim(0, -1), across


@lru_cache
def _angles(device: torch.device, dtype: torch.dtype) -> Tensor:
    """`ANGLES` as a tensor `[6]`, cached: a copy of numbers to a device makes the host wait."""
    with torch.inference_mode(False):  # training may use the cached tensor next
        return torch.tensor(ANGLES, device=device, dtype=dtype)


def perpendicular_axes(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors `[..., 3]` perpendicular to unit directions `[..., 3]` and to each other."""
    # the axis furthest from the direction cannot be parallel to it
    other = torch.nn.functional.one_hot(directions.abs().argmin(dim=-1), 3).to(directions)
    first = torch.nn.functional.normalize(torch.linalg.cross(directions, other), dim=-1)
    return first, torch.linalg.cross(directions, first)
