"""The renderer of trained fields: a grid of densities says where, the field itself says what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.compiled_marching import can_march, place_by_loops
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.marching.marching import march
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.marching.sample_placement import place_samples
from eugen_nerf.core.rendering.compositing import Composite, composite

FieldOnRays = Callable[[RayBatch, Spans], tuple[Tensor, Tensor]]
"""Density `[n]` and colour `[n, 3]` of a field in spans `[n]`, evaluated at their middles."""


@dataclass(frozen=True)
class GridRenderer:
    """Renders rays by querying a field only where a grid of its densities has rendering weight.

    In place of a coarse network, the grid's own rendering weights place the samples; their number differs from ray to
    ray. Rays that have ended, hidden space and empty space are never queried, so nothing has to be sorted out between
    blocks of samples.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.marching.density_grid import build_density_grid
        >>> from eugen_nerf.core.rendering.grid_renderer import GridRenderer
        >>> from eugen_nerf.core.marching.ray_spans import RayBatch
        >>> density = lambda points, times: 200.0 * (points.norm(dim=-1) < 0.5)
        >>> renderer = GridRenderer(build_density_grid(density, torch.tensor([[-1.0] * 3, [1.0] * 3]), cells=32))
        >>> def field(rays, spans):
        ...     points = rays.origins[spans.ray] + rays.directions[spans.ray] * spans.middle[:, None]
        ...     return density(points, None), torch.ones(len(spans), 3)
        >>> origins, ahead = torch.tensor([[0.0, 0, -2], [0.9, 0, -2]]), torch.tensor([[0.0, 0, 1]]).expand(2, 3)
        >>> result = renderer(field, RayBatch(origins, ahead, torch.zeros(2), torch.full((2,), 4.0)))
        >>> [round(x, 2) for x in result.accumulation.flatten().tolist()]
        [1.0, 0.0]
    """

    grid: DensityGrid
    rate: float = 2.0
    """Samples of a run of cells in which all light ends within one cell."""
    early_stop: float = 1e-4
    """Transmittance, by the grid, below which a ray ends."""
    min_weight: float = 1e-3
    """Rendering weight of a cell, by the grid, below which it is not queried."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 64 or not 0 <= self.early_stop < 1 or not 0 < self.min_weight < 1:
            raise ConfigError(
                "a renderer takes a rate in (0, 64], an early stop in [0, 1) and a least weight in (0, 1), "
                f"got {self.rate:g}, {self.early_stop:g} and {self.min_weight:g}"
            )

    def place(self, rays: RayBatch) -> Spans:
        """The spans of rays in which the field is queried."""
        if can_march(self.grid, rays):
            limits = {"early_stop": self.early_stop, "min_weight": self.min_weight}
            return place_by_loops(self.grid, rays, rate=self.rate, **limits)
        spans, optical_depth = march(self.grid, rays)
        return place_samples(
            spans,
            optical_depth,
            rate=self.rate,
            early_stop=self.early_stop,
            min_weight=self.min_weight,
            unit=self.grid.cell,
        )

    @torch.no_grad()
    def __call__(self, field: FieldOnRays, rays: RayBatch) -> Composite:
        """Renders rays `[r]`; see `Composite`.

        Args:
            field: whose densities the grid holds.
            rays: with unit directions.
        """
        spans = self.place(rays)
        if not len(spans):
            return composite(spans, rays.near[:0].reshape(-1), rays.origins[:0])
        density, colour = field(rays, spans)
        return composite(spans, density.reshape(-1), colour)
