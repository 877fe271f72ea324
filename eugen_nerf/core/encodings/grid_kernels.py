"""The loops of `compiled_grid.py`, compiled by numba at their first call and kept on the disk for later processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from eugen_nerf.core.layers.numba_loops import compiled

PRIME_Y, PRIME_Z = np.uint32(2654435761), np.uint32(805459861)  # Teschner et al. 2003
ZERO, ONE = np.float32(0), np.float32(1)
ONE_ROW = np.uint32(1)


BLOCK = 96
"""Points at a time: few enough that what is kept of them stays in the fastest cache."""


@compiled()
def split(coordinates, first, count, steps, shift, cells, places):
    """The cells of some coordinates in [0, 1], others being moved to the border, and the places in them.

    Positions are rounded as PyTorch rounds them, so that points lie in the same cells. What is not a number lies in
    the first cell, at a place that is not a number either.
    """
    for q in range(count):
        x = coordinates[first + q]
        inside = ZERO if x < ZERO else (ONE if x > ONE else x)
        position = inside * steps + shift
        cell = np.int32(position if position >= shift else shift)
        cells[q], places[q] = np.uint32(cell), position - np.float32(cell)


@compiled()
def divide(weights, first, count, places, shares):
    """The trilinear shares of some weights, of the eight vertices round each point."""
    for q in range(count):
        right, up = places[0, q], places[1, q]
        far = weights[first + q] * places[2, q]
        near = weights[first + q] - far
        near_upper, far_upper = near * up, far * up
        near_lower, far_lower = near - near_upper, far - far_upper
        shares[1, q], shares[3, q] = near_lower * right, near_upper * right
        shares[5, q], shares[7, q] = far_lower * right, far_upper * right
        shares[0, q], shares[2, q] = near_lower - shares[1, q], near_upper - shares[3, q]
        shares[4, q], shares[6, q] = far_lower - shares[5, q], far_upper - shares[7, q]


@compiled()
def find_hashed(cells, count, start, size, rows):
    """The rows of the eight vertices round each point, by hashing."""
    mask = np.uint32(size - ONE_ROW)
    for q in range(count):
        left, below, front = cells[0, q], np.uint32(cells[1, q] * PRIME_Y), np.uint32(cells[2, q] * PRIME_Z)
        right, above, behind = np.uint32(left + ONE_ROW), np.uint32(below + PRIME_Y), np.uint32(front + PRIME_Z)
        rows[0, q], rows[1, q] = ((left ^ below ^ front) & mask) + start, ((right ^ below ^ front) & mask) + start
        rows[2, q], rows[3, q] = ((left ^ above ^ front) & mask) + start, ((right ^ above ^ front) & mask) + start
        rows[4, q], rows[5, q] = ((left ^ below ^ behind) & mask) + start, ((right ^ below ^ behind) & mask) + start
        rows[6, q], rows[7, q] = ((left ^ above ^ behind) & mask) + start, ((right ^ above ^ behind) & mask) + start


@compiled()
def wrapped(row, start, size):
    """A row of a level: the last half cell reaches one vertex beyond the grid, round the level's end (tiny-cuda-nn)."""
    return (row if row < size else row - size) + start


@compiled()
def find_plain(cells, count, n, start, size, rows):
    """The rows of the eight vertices round each point, of a level that has all of its vertices."""
    for q in range(count):
        first = cells[0, q] + (cells[1, q] + cells[2, q] * n) * n
        upper, behind = first + n, first + n * n
        rows[0, q], rows[1, q] = wrapped(first, start, size), wrapped(first + ONE_ROW, start, size)
        rows[2, q], rows[3, q] = wrapped(upper, start, size), wrapped(upper + ONE_ROW, start, size)
        rows[4, q], rows[5, q] = wrapped(behind, start, size), wrapped(behind + ONE_ROW, start, size)
        rows[6, q], rows[7, q] = wrapped(behind + n, start, size), wrapped(behind + n + ONE_ROW, start, size)


@compiled()
def corners(points, weights, first, count, level, cells, places, rows, shares):
    """Fills in rows and shares `[8, count]` of the vertices round some points, and what lies between, `[3, count]`.

    These are loops of a few arrays each, so that a processor takes several points in one instruction.
    """
    n, start, size, hashed, shift = level
    for axis in range(3):
        split(points[axis], first, count, np.float32(n - ONE_ROW), shift, cells[axis], places[axis])
    divide(weights, first, count, places, shares)
    if hashed:
        find_hashed(cells, count, start, size, rows)
    else:
        find_plain(cells, count, n, start, size, rows)


@compiled()
def room(points):
    """Memory for some points: cells, places, rows and shares of their vertices."""
    three, eight = (3, points), (8, points)
    return (
        np.empty(three, np.uint32), np.empty(three, np.float32), np.empty(eight, np.uint32), np.empty(eight, np.float32)
    )  # fmt: skip


@compiled()
def eight_of(values, q):
    """A column of eight numbers, in registers."""
    return (
        values[0, q], values[1, q], values[2, q], values[3, q], values[4, q], values[5, q], values[6, q], values[7, q]
    )  # fmt: skip


@compiled()
def gather_rows(points, weights, table, values, number, level, features):
    """See `gather`; `features` is a tuple of length F, which is a constant of the compiled code."""
    groups, each = points.shape[1], points.shape[2]
    flat, own = points.reshape(3, groups * each), weights[number % len(weights)].reshape(groups * each)
    block = max(1, BLOCK // each)
    cells, places, rows, shares = room(block * each)
    for begin in range(0, groups, block):
        here = min(block, groups - begin)
        corners(flat, own, begin * each, here * each, level, cells, places, rows, shares)
        for i in range(here):
            for q in range(i * each, (i + 1) * each):
                r, s = eight_of(rows, q), eight_of(shares, q)
                for f in range(len(features)):
                    near = s[0] * table[r[0], f] + s[1] * table[r[1], f] + s[2] * table[r[2], f] + s[3] * table[r[3], f]
                    far = near + s[4] * table[r[4], f] + s[5] * table[r[5], f]
                    values[begin + i, number, f] += far + s[6] * table[r[6], f] + s[7] * table[r[7], f]


@compiled()
def scatter_rows(points, weights, table, values, number, level, features):
    """See `scatter`; `features` as in `gather_rows`."""
    groups, each = points.shape[1], points.shape[2]
    flat, own = points.reshape(3, groups * each), weights[number % len(weights)].reshape(groups * each)
    block = max(1, BLOCK // each)
    cells, places, rows, shares = room(block * each)
    for begin in range(0, groups, block):
        here = min(block, groups - begin)
        corners(flat, own, begin * each, here * each, level, cells, places, rows, shares)
        for i in range(here):
            for q in range(i * each, (i + 1) * each):
                for c in range(8):
                    for f in range(len(features)):
                        table[rows[c, q], f] += shares[c, q] * values[begin + i, number, f]


def gather(
    points: Tensor, weights: Tensor, table: Tensor, values: Tensor, level: int, rows: tuple[int, int, int, bool, float]
) -> None:
    """Adds rows of the table to the values of one level; all tensors are float32, contiguous and on the CPU.

    Args:
        points: `[3, groups, J]`.
        weights: `[L, groups, J]`, or `[1, groups, J]` for all levels.
        table: `[rows, F]`.
        values: `[groups, L, F]`.
        level: number of the level.
        rows: its vertices along each side, its first row, its number of rows, whether they are hashed, and the place
            of the point 0, in cells from the first vertex.
    """
    _run(gather_rows, (points, weights, table, values), level, rows)


def scatter(
    points: Tensor, weights: Tensor, table: Tensor, values: Tensor, level: int, rows: tuple[int, int, int, bool, float]
) -> None:
    """Adds the values of one level to rows of the table: the derivative of `gather`, whose arguments it has."""
    _run(scatter_rows, (points, weights, table, values), level, rows)


def _run(
    kernel: Callable[..., None], tensors: tuple[Tensor, ...], level: int, rows: tuple[int, int, int, bool, float]
) -> None:
    *sizes, hashed, shift = rows
    of_level = (*map(np.uint32, sizes), hashed, np.float32(shift))
    kernel(*(x.numpy() for x in tensors), level, of_level, (0,) * tensors[2].shape[1])
