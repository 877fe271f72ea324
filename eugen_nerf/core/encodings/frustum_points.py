"""What stands for a conical frustum before it is encoded: one Gaussian, or a few points with widths."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eugen_nerf.core.encodings.compiled_gaussians import can_compile, contract_compiled
from eugen_nerf.core.encodings.compiled_multisamples import can_place, place_compiled
from eugen_nerf.core.encodings.multisample import NUM_POINTS, hexagonal_points, perpendicular_axes
from eugen_nerf.core.rendering.contraction import contract, contract_gaussian, contraction_scale
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

FOOTPRINT = 0.5
"""Standard deviation of a multisample's Gaussian over its distance to the cone's axis, as Zip-NeRF configures it."""
OPPOSITE = slice(1, None, 3)
"""Two of the six multisamples, on either side of a cone's axis and of a frustum's middle."""
MIN_WIDTH = 1e-9


def frustum_gaussians(frustums: ConeFrustums) -> tuple[Tensor, Tensor]:
    """Gaussians with the moments of frustums (Eq. 7, 8 of arXiv 2103.13415).

    Returns:
        Means `[r, n, 3]` and covariances `[r, n, 3, 3]`.
    """
    middle = ((frustums.starts + frustums.ends) / 2)[..., None]
    half = ((frustums.ends - frustums.starts) / 2)[..., None]
    scale = 3 * middle.square() + half.square()
    means = frustums.origins + frustums.directions * (middle + 2 * middle * half.square() / scale)
    along = half.square() / 3 - (4 / 15) * (half.pow(4) * (12 * middle.square() - half.square()) / scale.square())
    across = middle.square() / 4 + (5 / 12) * half.square() - (4 / 15) * half.pow(4) / scale
    across = frustums.radius[..., None].square() * across
    outer = frustums.directions[..., :, None] * frustums.directions[..., None, :]
    eye = torch.eye(3, device=outer.device, dtype=outer.dtype)
    return means, along[..., None] * outer + across[..., None] * (eye - outer)


def contracted_gaussians(frustums: ConeFrustums) -> tuple[Tensor, Tensor]:
    """Gaussians with the moments of frustums `[...]`, contracted: means `[..., 3]` and covariances `[..., 3, 3]`."""
    if can_compile(frustums.origins, frustums.directions, frustums.starts, frustums.ends, frustums.radius):
        return contract_compiled(frustums)
    return contract_gaussian(*frustum_gaussians(frustums))


def alternating_hexagons(starts: Tensor) -> tuple[Tensor, Tensor]:
    """Angles and mirroring that turn every other frustum of a ray, for `frustum_multisamples`; shaped as starts."""
    odd = torch.arange(starts.shape[-1], device=starts.device) % 2
    return (odd * (math.pi / 6)).expand_as(starts), odd.bool().expand_as(starts)


def frustum_multisamples(
    frustums: ConeFrustums, angle: Tensor, mirror: Tensor, *, thinned: bool
) -> tuple[Tensor, Tensor]:
    """Points that stand for frustums (Sec. 2 of arXiv 2304.06706).

    Args:
        frustums: `[r, n]`.
        angle: by which each hexagon is turned, radians, `[r, n]`.
        mirror: whether it is mirrored, bool `[r, n]`.
        thinned: whether two opposite points stand for six.

    Returns:
        Contracted points `[r, n, J, 3]` and standard deviations `[r, n, J]` of their Gaussians.
    """
    starts = frustums.starts
    directions = frustums.directions
    if directions.stride(-2) == 0:  # of all frustums of a ray
        directions = directions[..., :1, :]
    axes = (*perpendicular_axes(directions), directions)
    chosen = range(NUM_POINTS)[OPPOSITE] if thinned else range(NUM_POINTS)
    if can_place(frustums, angle, mirror):
        return place_compiled(frustums, angle, mirror, axes, chosen)
    local, across = hexagonal_points(starts, frustums.ends, frustums.radius.expand_as(starts), angle, mirror)
    if thinned:
        local, across = local[..., OPPOSITE, :], across[..., OPPOSITE]
    # coordinates come first in memory: torch is slow along a last dimension of 3
    points = frustums.origins.movedim(-1, 0)[..., None]
    for k in range(3):
        points = points + local[..., k] * axes[k].movedim(-1, 0)[..., None]
    points = points.movedim(0, -1)
    widths = FOOTPRINT * across * contraction_scale(points)[..., 0]
    return contract(points), widths.clamp_min(MIN_WIDTH)
