"""Interpolation on a pyramid of grids in one pass over its points, compiled by numba for CPUs where it is installed.

PyTorch's operations write indices and weights of all eight corners to memory and read them again; here they stay in
registers. Levels have rows of the table for themselves, so threads take levels, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eugen_nerf.core.layers.loop_threads import COMPILES, loop_threads
from eugen_nerf.core.layers.plain_tensors import are_plain


class GridLevel(NamedTuple):
    """Where a level of a pyramid has its rows of the table."""

    resolution: int
    """Vertices along each side."""
    start: int
    """First row."""
    size: int
    """Number of rows."""
    hashed: bool
    """Whether rows are found by hashing."""
    shift: float
    """Place of the point 0, in cells from the first vertex."""


def can_pool(table: Tensor, points: Tensor, weights: Tensor) -> bool:
    """Whether `pool_compiled` takes these: float32 on a CPU, with gradients for the table at most."""
    tensors, positions = (table, points, weights), (points, weights)
    single = are_plain(*tensors) and all(x.dtype == torch.float32 for x in tensors)
    return COMPILES and single and not any(x.requires_grad for x in positions)


def pool_compiled(table: Tensor, levels: Sequence[GridLevel], points: Tensor, weights: Tensor) -> Tensor:
    """`HashGrid.pool` without PyTorch's operations.

    Args:
        table: `[rows, F]`.
        levels: those of the table.
        points: `[n, J, 3]`.
        weights: `[L, n, J]` or `[1, n, J]`, those of the sums; divided by J already.

    Returns:
        `[n, L, F]`.
    """
    axes = points.movedim(-1, 0).contiguous()  # as multisamples lie in memory: no copy of theirs
    pooled: Tensor = _Pool.apply(table, levels, axes, weights.contiguous())
    return pooled


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, levels: Sequence[GridLevel], points: Tensor, weights: Tensor) -> Tensor:
        ctx.levels = levels
        ctx.save_for_backward(table, points, weights)
        pooled = table.new_zeros(points.shape[1], len(levels), table.shape[1])
        _by_level("gather", levels, points, weights, table.detach(), pooled)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        table, points, weights = ctx.saved_tensors
        sums = torch.zeros_like(table)
        _by_level("scatter", ctx.levels, points, weights, sums, grad.contiguous())
        return sums, None, None, None


def _by_level(
    name: Literal["gather", "scatter"],
    levels: Sequence[GridLevel],
    points: Tensor,
    weights: Tensor,
    table: Tensor,
    values: Tensor,
) -> None:
    """Runs a kernel on every level, as many at a time as torch has threads."""
    from eugen_nerf.core.encodings import grid_kernels

    kernel = grid_kernels.gather if name == "gather" else grid_kernels.scatter

    def run(level: int) -> None:
        kernel(points, weights, table, values, level, levels[level])

    count = len(levels)
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        for level in range(count):
            run(level)
    else:
        list(loop_threads(threads).map(run, reversed(range(count))))  # fine levels miss the cache and take longest
