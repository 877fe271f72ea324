"""The loops of `compiled_grid.py`, compiled by numba at their first call and kept on the disk for later processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from eugen_nerf.core.layers.numba_loops import compiled

PRIME_Y, PRIME_Z = np.uint32(2654435761), np.uint32(805459861)  # Teschner et al. 2003
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
ONE_ROW = np.uint32(1)


@compiled()
def split(x, steps):
    """The cell of a coordinate in [0, 1], others being moved to the border, and the place in it."""
    inside = ZERO if x < ZERO else (ONE if x > ONE else x)
    position = inside * steps + HALF
    cell = np.uint32(position) if position >= HALF else np.uint32(0)  # also where it is not a number
    return cell, position - np.float32(cell)


@compiled()
def corners(rows, parts, x, y, z, weight, n, start, size, hashed):
    """Fills in the eight vertices round a point: rows of the table, uint32, and shares of the weight, float32, `[8]`.

    Positions are rounded as PyTorch rounds them, so that points lie in the same cells. Shares are not a number where
    the point is not.
    """
    steps = np.float32(n - ONE_ROW)
    (i, right), (j, up), (k, back) = split(x, steps), split(y, steps), split(z, steps)
    far = weight * back
    for c, plane in enumerate((weight - far, far)):
        upper = plane * up
        lower = plane - upper
        parts[4 * c + 1], parts[4 * c + 3] = lower * right, upper * right
        parts[4 * c], parts[4 * c + 2] = lower - parts[4 * c + 1], upper - parts[4 * c + 3]
    if hashed:
        mask, following = np.uint32(size - 1), np.uint32(i + ONE_ROW)
        below, front = np.uint32(j * PRIME_Y), np.uint32(k * PRIME_Z)
        above, behind = np.uint32(below + PRIME_Y), np.uint32(front + PRIME_Z)
        for place, line in enumerate((below ^ front, above ^ front, below ^ behind, above ^ behind)):
            rows[2 * place] = ((i ^ line) & mask) + start
            rows[2 * place + 1] = ((following ^ line) & mask) + start
    else:
        first = i + (j + k * n) * n
        for place, line in enumerate((first, first + n, first + n * n, first + n * n + n)):
            # the last half cell reaches one vertex beyond the grid: tiny-cuda-nn wraps it round the level's end
            rows[2 * place] = (line if line < size else line - size) + start
            rows[2 * place + 1] = (line + 1 if line + 1 < size else line + 1 - size) + start


@compiled()
def gather_rows(points, weights, table, values, level, n, start, size, hashed, features):
    """See `gather`; `features` is a tuple of length F, which is a constant of the compiled code."""
    rows, parts = np.empty(8, np.uint32), np.empty(8, np.float32)
    for i in range(points.shape[1]):
        for j in range(points.shape[2]):
            x, y, z = points[0, i, j], points[1, i, j], points[2, i, j]
            corners(rows, parts, x, y, z, weights[level, i, j], n, start, size, hashed)
            for f in range(len(features)):
                total = parts[0] * table[rows[0], f]
                for c in range(1, 8):
                    total += parts[c] * table[rows[c], f]
                values[i, level, f] += total


@compiled()
def scatter_rows(points, weights, table, values, level, n, start, size, hashed, features):
    """See `scatter`; `features` as in `gather_rows`."""
    rows, parts = np.empty(8, np.uint32), np.empty(8, np.float32)
    for i in range(points.shape[1]):
        for j in range(points.shape[2]):
            x, y, z = points[0, i, j], points[1, i, j], points[2, i, j]
            corners(rows, parts, x, y, z, weights[level, i, j], n, start, size, hashed)
            for c in range(8):
                for f in range(len(features)):
                    table[rows[c], f] += parts[c] * values[i, level, f]


def gather(
    points: Tensor, weights: Tensor, table: Tensor, values: Tensor, level: int, rows: tuple[int, int, int, bool]
) -> None:
    """Adds rows of the table to the values of one level; all tensors are float32, contiguous and on the CPU.

    Args:
        points: `[3, groups, J]`.
        weights: `[L, groups, J]`.
        table: `[rows, F]`.
        values: `[groups, L, F]`.
        level: number of the level.
        rows: its vertices along each side, its first row, its number of rows, and whether they are hashed.
    """
    _run(gather_rows, (points, weights, table, values), level, rows)


def scatter(
    points: Tensor, weights: Tensor, table: Tensor, values: Tensor, level: int, rows: tuple[int, int, int, bool]
) -> None:
    """Adds the values of one level to rows of the table: the derivative of `gather`, whose arguments it has."""
    _run(scatter_rows, (points, weights, table, values), level, rows)


def _run(
    kernel: Callable[..., None], tensors: tuple[Tensor, ...], level: int, rows: tuple[int, int, int, bool]
) -> None:
    *sizes, hashed = rows
    kernel(*(x.numpy() for x in tensors), level, *map(np.uint32, sizes), hashed, (0,) * tensors[2].shape[1])
