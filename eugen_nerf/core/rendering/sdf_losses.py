"""Bounds on the signed distance from depth rays, and the losses of iSDF (arXiv 2204.02296) on them.

Alphabet: R rays of S samples each; `t` the samples' distances along their unit directions, `depth` that of the measured
surface, all in metres; `d` a predicted signed distance, negative inside. A *bound* is what the measurement allows at a
sample: no surface is farther away than that. It is negative behind the measured surface, where its absolute value
bounds the depth inside.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from eugen_nerf.core.errors import ConfigError

BoundMethod = Literal["ray", "normal", "batch"]
MAX_PAIRS = 1 << 23
"""Distances that are in memory at once."""


class Bounds(NamedTuple):
    """Bounds at samples, and the direction in which distance should grow there."""

    distance: Tensor  # [R, S] metres
    direction: Tensor  # [R, S, 3] unit vectors


def sdf_bounds(
    method: BoundMethod, points: Tensor, t: Tensor, depth: Tensor, directions: Tensor, normals: Tensor, reach: float
) -> Bounds:
    """Bounds on the signed distance at samples of rays.

    Args:
        method: ray: distance to the ray's own surface point. normal: that times the cosine of the angle between ray
            and surface normal, which is the distance to the tangent plane, as far as `reach`; the correction stays
            constant beyond, where the plane is a poor bound. batch: distance to the nearest surface point of all rays.
        points: `[R, S, 3]`.
        t: `[R, S]`.
        depth: `[R]`, distance along the ray to the surface.
        directions: `[R, 3]`, unit vectors from the camera.
        normals: `[R, 3]`, unit normals towards the camera, NaN where unknown.
        reach: metres.

    Raises:
        ConfigError: unknown method.
    """
    ray = depth[:, None] - t
    towards = -directions[:, None].expand(points.shape)
    if method == "ray":
        return Bounds(ray, towards)
    if method == "normal":
        known = ~normals[:, :1].isnan()
        normals = torch.where(known, normals, -directions)
        cosine = (normals * directions).sum(dim=-1, keepdim=True).abs()
        return Bounds(ray - (1 - cosine) * ray.clamp(max=reach), normals[:, None].expand(points.shape))
    if method != "batch":
        raise ConfigError(f"bounds {method!r} are unknown; choose one of {', '.join(get_args(BoundMethod))}")
    surface = points - t[..., None] * directions[:, None] + depth[:, None, None] * directions[:, None]
    nearest = _nearest(points.flatten(0, 1), surface[:, 0]).view_as(points)
    away = points - nearest
    distance = away.norm(dim=-1)
    # the search is exact to a millimetre or so only; a ray's own surface point is known to be that near
    own = ray.abs() <= distance
    sign = torch.where(ray < 0, -1.0, 1.0)
    distance = torch.where(own, ray.abs(), distance)
    direction = away * (sign / distance.clamp_min(1e-9))[..., None]
    return Bounds(distance * sign, torch.where(own[..., None], towards, direction))


def _nearest(points: Tensor, surface: Tensor) -> Tensor:
    """For each point `[N, 3]` the nearest of `surface`, `[M, 3]`."""
    centre = surface.mean(dim=0)
    targets = surface - centre
    half_squares = 0.5 * targets.square().sum(dim=-1)
    nearest = [
        torch.addmm(half_squares, part - centre, targets.T, alpha=-1).argmin(dim=-1)
        for part in points.split(max(1, MAX_PAIRS // len(surface)))
    ]
    return surface[torch.cat(nearest)]


def free_space_loss(d: Tensor, bound: Tensor, beta: float) -> Tensor:
    """`max(0, exp(-beta d) - 1, d - bound)`: what lies in front of a surface is outside, and no farther than the bound.

    Args:
        d: predicted distances, metres.
        bound: of the same shape, positive.
        beta: how steeply negative distances cost, in 1 / metres.
    """
    return torch.maximum(F.relu(d - bound), torch.expm1(-beta * d))


def distance_loss(d: Tensor, bound: Tensor, truncation: float, beta: float) -> tuple[Tensor, Tensor]:
    """The free-space loss where the bound is beyond the truncation, and `|d - bound|` nearer and behind the surface.

    Args:
        d: predicted distances, metres.
        bound: of the same shape.
        truncation: metres.
        beta: of the free-space loss.

    Returns:
        Both of the shape of `d`, each 0 where the other applies.
    """
    free = bound > truncation
    zero = d.new_zeros(())
    return torch.where(free, free_space_loss(d, bound, beta), zero), torch.where(free, zero, (d - bound).abs())


def eikonal_loss(gradient: Tensor, bound: Tensor, beyond: float) -> Tensor:
    """`| |grad d| - 1 |`, but 0 where the bound is below `beyond`: surfaces may have edges.

    Args:
        gradient: of the predicted distance, `[..., 3]`.
        bound: `[...]`, metres.
        beyond: metres.
    """
    return torch.where(bound < beyond, gradient.new_zeros(()), (gradient.norm(dim=-1) - 1).abs())


def gradient_loss(gradient: Tensor, direction: Tensor) -> Tensor:
    """`1 - cos` of the angle between the gradient and the direction it should have, in [0, 2].

    Args:
        gradient: of the predicted distance, `[..., 3]`.
        direction: unit vectors `[..., 3]`.
    """
    return 1 - F.cosine_similarity(gradient, direction, dim=-1, eps=1e-6)
