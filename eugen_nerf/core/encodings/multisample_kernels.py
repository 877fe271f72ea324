"""The loops of `compiled_multisamples.py`, compiled by numba at their first call and kept on the disk."""

from __future__ import annotations

import math

import numpy as np

from eugen_nerf.core.layers.numba_loops import compiled, cube_root

ONE, TWO, HALF = np.float32(1), np.float32(2), np.float32(0.5)
SPREAD, FIFTH = np.float32(3 / math.sqrt(7)), np.float32(2 / 5)
ROOT_HALF, LEAST, LEAST_WIDTH = np.float32(math.sqrt(0.5)), np.float32(1e-30), np.float32(1e-9)


@compiled()
def measure(starts, ends, parts):
    """Of each frustum: half of what its points are spread over, their middle, and what both are multiplied by."""
    for j in range(len(starts)):
        middle, half = (starts[j] + ends[j]) * HALF, (ends[j] - starts[j]) * HALF
        middles, halves = middle * middle, half * half
        across, both = halves - middles, TWO * middles
        parts[0, j] = SPREAD * math.sqrt(across * across + both * both)
        parts[1, j] = ends[j] * ends[j] + both
        parts[2, j] = half / max(halves + both + middles, LEAST)


@compiled()
def contract_points(origin, axes, radius, starts, parts, turned, order, found):
    """One point of each frustum, contracted, and its width, `[4, n]`."""
    for j in range(len(starts)):
        z = starts[j] + (parts[1, j] + order * parts[0, j]) * parts[2, j]
        away = radius * z * ROOT_HALF
        u, v = away * turned[0, j], away * turned[1, j]
        x = origin[0] + u * axes[0, 0] + v * axes[1, 0] + z * axes[2, 0]
        y = origin[1] + u * axes[0, 1] + v * axes[1, 1] + z * axes[2, 1]
        w = origin[2] + u * axes[0, 2] + v * axes[1, 2] + z * axes[2, 2]
        square = max(x * x + y * y + w * w, ONE)
        outer = TWO * math.sqrt(square) - ONE
        root, scale = cube_root(outer), outer / square
        found[0, j], found[1, j], found[2, j] = x * scale, y * scale, w * scale
        found[3, j] = max(HALF * away * root * root / square, LEAST_WIDTH)


@compiled()
def multisamples(origins, axes, starts, ends, radii, angles, mirrors, chosen, turns, points, widths):
    """Fills in contracted points `[3, r, n, J]` and widths `[r, n, J]`; see `place_compiled`.

    Args:
        origins: `[r, 3]`.
        axes: `[r, 3, 3]`: two across a ray, and its direction.
        starts, ends, mirrors: `[r, n]`.
        angles: cosine and sine of each frustum's turn, `[2, r, n]`.
        radii: `[r]`.
        chosen: numbers of the J points among the six, float32 `[J]`.
        turns: cosine and sine of each one without a turn, plain and mirrored, `[2, J, 2]`.
        points, widths: to be filled in.
    """
    count = starts.shape[1]
    parts, turned = np.empty((3, count), np.float32), np.empty((2, count), np.float32)
    found = np.empty((len(chosen), 4, count), np.float32)
    for i in range(len(origins)):
        measure(starts[i], ends[i], parts)
        for k in range(len(chosen)):
            for j in range(count):
                cosine, sine = turns[1, k] if mirrors[i, j] else turns[0, k]
                turned[0, j] = cosine * angles[0, i, j] - sine * angles[1, i, j]
                turned[1, j] = sine * angles[0, i, j] + cosine * angles[1, i, j]
            order = chosen[k] * FIFTH - ONE
            contract_points(origins[i], axes[i], radii[i], starts[i], parts, turned, order, found[k])
        for axis in range(3):
            for j in range(count):
                for k in range(len(chosen)):
                    points[axis, i, j, k] = found[k, axis, j]
        for j in range(count):
            for k in range(len(chosen)):
                widths[i, j, k] = found[k, 3, j]
