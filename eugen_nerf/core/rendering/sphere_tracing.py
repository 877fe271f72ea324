"""Along a ray: samples at which a signed distance is trained, and its first zero crossing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def surface_samples(
    near: Tensor,
    depth: Tensor,
    *,
    stratified: int,
    around: int,
    margin: float,
    spread: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Distances along rays: the surface, Gaussian ones around it, and stratified ones from the camera to behind it.

    Args:
        near: `[R]`, metres.
        depth: `[R]`, distance to the surface, metres.
        stratified: number of samples between `near` and `depth + margin`, one in each of as many equal bins.
        around: number of samples at the surface (the first one) and around it, at least 1.
        margin: metres behind the surface; no sample is farther.
        spread: standard deviation around the surface, metres.
        generator: of the draws, on the rays' device.

    Returns:
        `[R, around + stratified]`; the first column is `depth`, the others are not sorted.
    """
    rays, far = len(depth), depth + margin
    noise = torch.randn(rays, around - 1, generator=generator, device=depth.device, dtype=depth.dtype)
    gaussian = torch.clamp(depth[:, None] + spread * noise, min=near[:, None], max=far[:, None])
    fraction = torch.rand(rays, stratified, generator=generator, device=depth.device, dtype=depth.dtype)
    fraction = (fraction + torch.arange(stratified, device=depth.device)) / max(1, stratified)
    return torch.cat([depth[:, None], gaussian, near[:, None] + fraction * (far - near)[:, None]], dim=1)


STEPS_PER_COUNT = 8
"""Steps of a march on a GPU between two counts of the active rays: each count makes the host wait."""


def first_crossing(
    distance: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    *,
    step_scale: float = 0.9,
    min_step: float = 0.01,
    max_steps: int = 96,
    refinements: int = 2,
) -> tuple[Tensor, Tensor]:
    """First zero crossings: sphere tracing until the sign changes, then the false position method.

    Rays that have reached their surface, or have left, are not queried any more (on a GPU some are, in vain).

    Args:
        distance: signed distances `[n]` at points `[n, 3]`, metres.
        origins: `[R, 3]`.
        directions: `[R, 3]`, unit vectors.
        near: `[R]`, where the search begins; a ray that begins inside stops there.
        far: `[R]`, where it ends.
        step_scale: step over distance; below 1, because a learnt distance may be too long.
        min_step: shortest step, metres: what is thinner can be missed, and what is slower to approach is not.
        max_steps: after which a ray counts as a miss.
        refinements: evaluations inside the last step.

    Returns:
        Distances along the rays `[R]`, `far` for misses, and whether each ray hit, bool `[R]`.
    """
    low, high, t = near.clone(), far.clone(), near.clone()
    at_low, at_high = torch.ones_like(near), torch.zeros_like(near)
    hit = torch.zeros_like(near, dtype=torch.bool)
    interval = STEPS_PER_COUNT if near.is_cuda else 1
    active = torch.arange(len(near), device=near.device)
    for step in range(max_steps):
        if step % interval == 0:
            active = active[(~hit[active] & (t[active] <= far[active])).nonzero()[:, 0]]
            if not len(active):
                break
        here = t[active]
        value = distance(torch.addcmul(origins[active], directions[active], here[:, None]))
        searching = ~hit[active] & (here <= far[active])
        crossed = searching & (value <= 0)
        going = searching & ~crossed
        further = here + (step_scale * value).clamp_min(min_step)
        # where and not a mask as an index, which the host would wait for
        for state, new, changed in (
            *((high, here, crossed), (at_high, value, crossed)),
            *((low, here, going), (at_low, value, going), (t, further, going)),
        ):
            state[active] = torch.where(changed, new, state[active])
        hit[active] = hit[active] | crossed
    chosen = hit.nonzero()[:, 0]
    if len(chosen):
        ends = [state[chosen] for state in (low, high, at_low, at_high)]
        for _ in range(refinements):
            middle = _false_position(*ends)
            value = distance(torch.addcmul(origins[chosen], directions[chosen], middle[:, None]))
            inside = value <= 0
            ends = [
                torch.where(inside == closer, new, old)
                for closer, new, old in zip(
                    (False, True, False, True), (middle, middle, value, value), ends, strict=True
                )
            ]
        far = far.index_copy(0, chosen, _false_position(*ends))
    return far, hit


def _false_position(low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor) -> Tensor:
    """Zero of the line through two points with values above and at or below 0."""
    return low + (high - low) * at_low / (at_low - at_high).clamp_min(1e-12)
