"""Rendering by proposals on conical frustums (Sec. 3 of arXiv 2111.12077): each round says where the next samples are.

Alphabet: `s` normalised distances in [0, 1], edges `[r, n + 1]`; `t` distances along rays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch
from eugen_nerf.core.rendering.compositing import Composite
from eugen_nerf.core.rendering.step_functions import inverse_power_transform, power_transform

MAX_COUNT = 512
"""Samples of a round, at most."""
MAX_ROUNDS = 8
"""Rounds of proposals and the final one, at most."""
Spacing = Literal["power", "piecewise", "linear"]
"""Of the first round's samples: by a power of distance or disparity; linear up to distance 1 and in disparity beyond,
as nerfacto has them; linear."""
_LEAST = 1e-5
"""Sum of weights from which samples are drawn by them; below, they are spread."""


@dataclass(frozen=True)
class ConeFrustums:
    """Parts `[r, n]` of cones round rays."""

    origins: Tensor
    """`[r, 1, 3]`."""
    directions: Tensor
    """Unit vectors `[r, 1, 3]`."""
    starts: Tensor
    """Distance of the near end, `[r, n]`."""
    ends: Tensor
    """Distance of the far end, `[r, n]`."""
    radius: Tensor
    """Of the cone at distance 1, `[r, 1]`."""

    @property
    def shape(self) -> torch.Size:
        """Rays, and parts of each."""
        return self.starts.shape

    @property
    def middles(self) -> Tensor:
        """Points on the rays halfway between the ends, `[r, n, 3]`."""
        return self.origins + self.directions * ((self.starts + self.ends) / 2)[..., None]

    def to(self, dtype: torch.dtype) -> ConeFrustums:
        """The same in another dtype."""
        parts = (self.origins, self.directions, self.starts, self.ends, self.radius)
        return ConeFrustums(*(part.to(dtype) for part in parts))


FrustumDensity = Callable[[ConeFrustums], Tensor]
"""Densities `[r, n]` of a proposal in frustums."""
FrustumField = Callable[[ConeFrustums], tuple[Tensor, Tensor]]
"""Density `[r, n]` and colour `[r, n, 3]` of the final field in frustums."""


@dataclass(frozen=True)
class ProposalRenderer:
    """Rounds of samples, each drawn from the weights of the round before, and the final field at the last.

    Raises:
        ConfigError: counts or spacing that sample nothing.
    """

    counts: tuple[int, ...]
    """Samples a ray of each round of proposals, then of the field."""
    exponent: float | None = None
    """Of the power transformation that spaces the first round; None for spacing linear in disparity."""
    multiplier: float = 1.0
    """Of distances before the transformation."""
    padding: float = 0.01
    """Added to all weights before samples are drawn by them."""
    spacing: Spacing = "power"
    """What spaces the first round; the other kinds have no exponent and no multiplier."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.counts) <= MAX_ROUNDS or not all(2 <= count <= MAX_COUNT for count in self.counts):
            raise ConfigError(
                f"2 to {MAX_ROUNDS} rounds have from 2 to {MAX_COUNT} samples, a proposal's and the field's; "
                f"got {self.counts}"
            )
        if self.exponent in (0, 1) or self.multiplier <= 0 or self.padding < 0:
            raise ConfigError(
                "proposals take an exponent that is neither 0 nor 1, a positive multiplier and a padding of at least "
                f"0, got {self.exponent}, {self.multiplier:g} and {self.padding:g}"
            )

    @torch.no_grad()
    def __call__(self, proposals: Sequence[FrustumDensity], field: FrustumField, rays: RayBatch) -> Composite:
        """Renders rays `[r]`; see `Composite`.

        Args:
            proposals: densities of the rounds; the last one serves all that follow.
            field: of the final round.
            rays: with unit directions, pixel areas, and near ends above 0 (or at 0 where `spacing` is no power).

        Raises:
            ConfigError: rays without pixel areas.
        """
        if rays.areas is None:
            raise ConfigError("these rays need the areas of their pixels: the field depends on what a pixel sees")
        radius = (rays.areas / math.pi).sqrt()[:, None]
        near, far = self._spaced(rays.near[:, None]), self._spaced(rays.far[:, None])
        s = torch.linspace(0.0, 1.0, self.counts[0] + 1, device=near.device).expand(len(rays), -1)
        for number, count in enumerate(self.counts[1:]):
            frustums = self._frustums(rays, s, near, far, radius)
            density = proposals[min(number, len(proposals) - 1)](frustums)
            s = draw_edges(s, _weights(frustums, density) + self.padding, count)
        frustums = self._frustums(rays, s, near, far, radius)
        density, colour = field(frustums)
        weights = _weights(frustums, density)
        reached = weights.cumsum(dim=-1)
        half = torch.full_like(reached[:, :1], 0.5)
        middle = torch.searchsorted(reached, half).clamp(max=weights.shape[-1] - 1)
        depth = ((frustums.starts + frustums.ends) / 2).gather(-1, middle)
        accumulation = weights.sum(dim=-1, keepdim=True)
        return Composite((weights[..., None] * colour).sum(dim=-2), accumulation, depth, colour[:, -1])

    def _spaced(self, t: Tensor) -> Tensor:
        if self.spacing == "linear":
            return t
        if self.spacing == "piecewise":
            return torch.where(t < 1, t / 2, 1 - 1 / (2 * t))
        return 1 / t if self.exponent is None else power_transform(self.multiplier * t, self.exponent)

    def _distances(self, spaced: Tensor) -> Tensor:
        if self.spacing == "linear":
            return spaced
        if self.spacing == "piecewise":
            return torch.where(spaced < 0.5, 2 * spaced, 1 / (2 - 2 * spaced))
        exponent = self.exponent
        return 1 / spaced if exponent is None else inverse_power_transform(spaced, exponent) / self.multiplier

    def _frustums(self, rays: RayBatch, s: Tensor, near: Tensor, far: Tensor, radius: Tensor) -> ConeFrustums:
        t = self._distances(s * far + (1 - s) * near)
        return ConeFrustums(rays.origins[:, None], rays.directions[:, None], t[:, :-1], t[:, 1:], radius)


def draw_edges(s: Tensor, weights: Tensor, count: int) -> Tensor:
    """Edges of new samples at equal shares of the weights: quantiles of a step function.

    Args:
        s: edges `[r, n + 1]`.
        weights: between them, `[r, n]`, not negative.
        count: of the new samples.

    Returns:
        `[r, count + 1]`, not decreasing.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.rendering.proposal_renderer import draw_edges
        >>> draw_edges(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0]]), 1)
        tensor([[1.2500, 1.7500]])
    """
    missing = (_LEAST - weights.sum(dim=-1, keepdim=True)).clamp_min(0)
    weights = weights + missing / weights.shape[-1]
    share = weights / weights.sum(dim=-1, keepdim=True)
    before = torch.cat([torch.zeros_like(share[:, :1]), share.cumsum(dim=-1).clamp_max(1)], dim=-1)
    step = 1 / (count + 1)
    wanted = torch.linspace(0.0, 1.0 - step, count + 1, device=s.device) + step / 2
    wanted = wanted.expand(len(s), -1).contiguous()
    above = torch.searchsorted(before, wanted, side="right")
    below, above = ((index).clamp(0, s.shape[-1] - 1) for index in (above - 1, above))
    low, high = before.gather(-1, below), before.gather(-1, above)
    part = ((wanted - low) / (high - low)).nan_to_num(0).clamp(0, 1)
    start = s.gather(-1, below)
    return start + part * (s.gather(-1, above) - start)


def _weights(frustums: ConeFrustums, density: Tensor) -> Tensor:
    """Rendering weights `[r, n]`."""
    depth = (frustums.ends - frustums.starts) * density
    before = torch.cat([torch.zeros_like(depth[:, :1]), depth[:, :-1].cumsum(dim=-1)], dim=-1)
    return ((1 - torch.exp(-depth)) * torch.exp(-before)).nan_to_num()
