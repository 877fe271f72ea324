"""A pyramid of grids with features at arbitrary scale (arXiv 2304.06706) on hash tables (arXiv 2201.05989).

Indices and interpolation weights are tiny-cuda-nn's: level l has `s_l = n_l - 1` cells between 0 and 1, a point sits at
`s_l x + 1/2`, levels whose vertices fit into the table are indexed densely, the others hashed. So one table gives the
same features in both. nerfstudio's own grids in PyTorch have points at `s_l x` (`shift` 0).
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from eugen_nerf.core.encodings.compiled_grid import GridLevel, can_pool, pool_compiled
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.projections import seeded_generator
from eugen_nerf.core.training.mixed_precision import full_precision

# 2654435761 and 805459861 (Teschner et al. 2003) as 32-bit integers, whose products wrap as unsigned ones do
_PRIMES = (1, 2654435761 - (1 << 32), 805459861)
# as in Zip-NeRF's configuration: the table holds a tenth of the features, which is a learning rate ten times higher
PRECONDITION = 10.0


class HashGrid(nn.Module):
    """Features of isotropic Gaussians in the unit cube.

    Args:
        resolutions: vertices n_l along each side, by level.
        features: numbers a vertex, F.
        log2_table_size: levels with more vertices than 2 to this power are hashed.
        init_range: the features start uniform in [-init_range, init_range].
        seed: of that start.
        shift: place of the point 0, in cells from the first vertex.

    Raises:
        ConfigError: no level, resolutions below 2, or a table that 32-bit indices cannot reach.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import HashGrid
        >>> grid = HashGrid((16, 32), features=2, log2_table_size=12)
        >>> points, widths = torch.rand(5, 1, 3), torch.full((5, 1), 0.01)
        >>> grid(points, widths).shape, grid.out_features
        (torch.Size([5, 6]), 6)
    """

    _cells: Tensor

    def __init__(
        self,
        resolutions: tuple[int, ...],
        features: int = 4,
        log2_table_size: int = 21,
        init_range: float = 1e-4,
        seed: int = 0,
        shift: float = 0.5,
    ) -> None:
        super().__init__()
        if not resolutions or min(resolutions) < 2 or features < 1 or not 3 <= log2_table_size <= 26:
            raise ConfigError(
                "a hash grid needs at least one level, resolutions of at least 2, one feature, and a log2 table size "
                f"from 3 to 26; got resolutions {resolutions}, {features} features, log2 table size {log2_table_size}"
            )
        self.resolutions, self.features, self.init_range = tuple(resolutions), features, init_range
        self.shift = shift
        self.sizes = tuple(_level_size(n, 1 << log2_table_size) for n in resolutions)
        self.hashed = tuple(n**3 > size for n, size in zip(resolutions, self.sizes, strict=True))
        drawn = torch.rand(sum(self.sizes), features, generator=seeded_generator(seed, "hash grid")) * 2 - 1
        self.table = nn.Parameter(drawn * (init_range / PRECONDITION))
        self.out_features = len(resolutions) * (features + 1)
        # integers, which no change of a module's dtype rounds
        self.register_buffer("_cells", torch.tensor(resolutions) - 1, persistent=False)
        starts = accumulate(self.sizes[:-1], initial=0)
        levels = zip(self.resolutions, starts, self.sizes, self.hashed, strict=True)
        self._levels = tuple(GridLevel(*level, shift) for level in levels)
        self._spread, self._spread_of = torch.empty(0), (0, -1)

    def forward(self, points: Tensor, widths: Tensor) -> Tensor:
        """Features of groups of Gaussians, each group's mean.

        Every level's feature is weighted by the part of a Gaussian that lies in one cell's width round its mean,
        `erf(1 / sqrt(8 sigma^2 s_l^2))`; the mean weight itself is one more feature, scaled as the features are.

        Args:
            points: `[n, J, 3]`, means in [0, 1] (others are moved to the border).
            widths: standard deviations `[n, J]`, in the same unit, positive.

        Returns:
            `[n, L * (F + 1)]`: L * F features, level by level, then the L weights.
        """
        weights = torch.erf(1 / (self._cells[:, None, None] * (math.sqrt(8) * widths)))  # [L, n, J]
        features = self.pool(points, weights)
        means = 2 * weights.mean(dim=-1).T - 1
        return torch.cat([features.flatten(1), means * self._spreads()], dim=-1) * PRECONDITION

    def pool(self, points: Tensor, level_weights: Tensor) -> Tensor:
        """Weighted means of the groups' interpolated features.

        Args:
            points: `[n, J, 3]`.
            level_weights: of the points on each level, `[L, n, J]`; `[1, n, J]` where they are the same on all.

        Returns:
            `[n, L, F]`.
        """
        weights = level_weights / points.shape[1]
        if can_pool(self.table, points, weights):
            return pool_compiled(self.table, self._levels, points, weights)
        features = []
        for level, rows in enumerate(self.table.split(self.sizes)):
            corners = self.corners(points, level, weights[level % len(weights)])
            index, shares = (v.permute(1, 0, 2).flatten(1) for v in corners)
            features.append(gather_sum(rows, index, shares))
        return torch.stack(features, dim=1)

    def corners(self, points: Tensor, level: int, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The eight vertices round each point on one level.

        Args:
            points: `[..., 3]`.
            level: number of the level.
            weight: `[...]` of the points, multiplied in.

        Returns:
            Rows of the level's part of the table, int32 `[8, ...]`, and trilinear weights `[8, ...]`. Corners come
            first because torch broadcasts slowly over a last dimension of 2.
        """
        n, size = self.resolutions[level], self.sizes[level]
        position = points.clamp(0, 1) * (n - 1) + self.shift
        low = position.detach().floor()
        x, y, z = (position - low).unbind(dim=-1)
        z_parts = (1 - z, z) if weight is None else (weight - weight * z, weight * z)
        pairs = [torch.stack(parts) for parts in ((1 - x, x), (1 - y, y), z_parts)]
        weights = (pairs[2][:, None] * pairs[1])[:, :, None] * pairs[0]
        axes = [torch.stack([v, v + 1]) for v in low.to(torch.int32).unbind(dim=-1)]
        if self.hashed[level]:
            a, b, c = ((v * prime) & (size - 1) for v, prime in zip(axes, _PRIMES, strict=True))
            rows = (c[:, None] ^ b)[:, :, None] ^ a
        else:
            a, b, c = axes[0], axes[1] * n, axes[2] * (n * n)
            rows = (c[:, None] + b)[:, :, None] + a
            # the last half cell reaches one vertex beyond the grid: tiny-cuda-nn wraps it round the level's end
            rows = torch.where(rows < size, rows, rows - size)
        return rows.flatten(0, 2), weights.flatten(0, 2)

    def _spreads(self) -> Tensor:
        """Root mean square of each level's table, softly at least that of the start; no gradient."""
        key = (self.table.data_ptr(), self.table._version)
        if self._spread_of != key:  # reading the whole table is too slow for every chunk of rays
            least = (self.init_range / PRECONDITION) ** 2
            with torch.inference_mode(False), torch.no_grad():  # training may use the cached tensor next
                levels = self.table.split(self.sizes)
                self._spread = torch.stack([level.square().mean() for level in levels]).add_(least).sqrt_()
            self._spread_of = key
        return self._spread

    def decay_loss(self) -> Tensor:
        """Normalised weight decay: the sum over levels of their mean square (Sec. 4 of arXiv 2304.06706)."""
        return sum((level.square().mean() for level in self.table.split(self.sizes)), self.table.new_zeros(()))

    def extra_repr(self) -> str:
        """Levels and sizes."""
        return f"resolutions={self.resolutions}, features={self.features}, rows={sum(self.sizes)}"


def pyramid(lowest: int, highest: int) -> tuple[int, ...]:
    """Resolutions that double from `lowest` up to `highest`.

    Raises:
        ConfigError: `highest` is not `lowest` times a power of 2.
    """
    levels = round(math.log2(highest / lowest)) + 1 if 0 < lowest <= highest else 0
    if levels < 1 or lowest * 2 ** (levels - 1) != highest:
        raise ConfigError(
            f"grid resolutions double from lowest to highest: {highest} is not {lowest} times 2, 4, 8 ..."
        )
    return tuple(lowest << i for i in range(levels))


def gather_sum(table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """`sum_k weights[..., k] table[index[..., k]]`, in one pass without the rows in between.

    `embedding_bag` does the forward pass; its own backward pass for dense gradients takes more than twenty times as
    long as adding one feature after the other (measured on a CPU).

    Args:
        table: `[rows, F]`.
        index: integers `[..., K]`.
        weights: `[..., K]`.

    Returns:
        `[..., F]`.
    """
    k = index.shape[-1]
    sums: Tensor = _GatherSum.apply(table, index.reshape(-1, k), weights.reshape(-1, k))
    return sums.reshape(*index.shape[:-1], table.shape[1])


class _GatherSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weights)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, index, weights = ctx.saved_tensors
        table_grad = weights_grad = None
        if ctx.needs_input_grad[0]:
            # into one table: columns that are put together later cost more than adding them up
            sums, places = torch.zeros_like(table).flatten(), index.flatten().long() * table.shape[1]
            for k in range(table.shape[1]):
                sums.scatter_add_(0, places + k, (weights * grad[:, k : k + 1]).flatten())
            table_grad = sums.view_as(table)
        if ctx.needs_input_grad[2]:
            with full_precision():
                weights_grad = torch.einsum("nkf,nf->nk", F.embedding(index, table), grad)
        return table_grad, None, weights_grad


def _level_size(resolution: int, limit: int) -> int:
    """Rows of a level: its vertices, rounded up to a multiple of 8, at most the table's size."""
    return min(-(-(resolution**3) // 8) * 8, limit)
