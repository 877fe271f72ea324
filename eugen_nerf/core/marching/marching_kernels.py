"""The loops of `compiled_marching.py`, compiled by numba at their first call and kept on the disk."""

from __future__ import annotations

import math

import numpy as np

from eugen_nerf.core.layers.numba_loops import compiled, cube_root

HALF, LEAST_LENGTH, TOUCHING = np.float32(0.5), np.float32(1e-6), np.float32(1e-3)
GROWTH = 2


@compiled()
def cell_at(sides, origin, direction, slice_, t):
    """Flat number of the cell at distance t along a ray given in cells."""
    x = min(max(np.int64(origin[0] + direction[0] * t), 0), sides[0] - 1)
    y = min(max(np.int64(origin[1] + direction[1] * t), 0), sides[1] - 1)
    z = min(max(np.int64(origin[2] + direction[2] * t), 0), sides[2] - 1)
    return (x * sides[1] + y) * sides[2] + z + slice_


@compiled()
def counted_spans(grid, settings, origin, direction, slice_, begin, end, starts, ends, weights):
    """Writes the occupied spans of a ray that count, near to far, with the weight of each; returns their number.

    The loop leaves where what the ray has passed hides the rest.
    """
    occupied, near, density, sides, stride = grid
    unit, early_stop, min_weight = settings
    step, light, before, count, k = np.float32(stride) * unit, 1.0, False, 0, 0
    while True:
        start = begin + step * np.float32(k)
        k += 1
        if not start < end:
            return count
        if not near[cell_at(sides, origin, direction, slice_, start + step * HALF)]:
            continue
        for j in range(stride):
            first = start + unit * np.float32(j)
            last = min(first + unit, end)
            if not last > first:
                break
            cell = cell_at(sides, origin, direction, slice_, first + unit * HALF)
            if not occupied[cell]:
                continue
            # in double precision the difference to 1 keeps all digits that a weight needs
            left = math.exp(-np.float64(density[cell] * (last - first)))
            weight = np.float32(light * (1.0 - left)) / max((last - first) / unit, LEAST_LENGTH)
            counts = weight >= min_weight and light >= early_stop
            # one more behind each: within a cell the field can be less dense than the cell's mean, and let light pass
            if counts or before:
                starts[count], ends[count], weights[count] = first, last, max(weight, min_weight)
                count += 1
            elif light < early_stop:
                return count
            before = counts
            light *= left


@compiled()
def place_on_run(first, last, starts, ends, measures, rate, max_samples, edges):
    """Writes the edges of a run's samples, at equal shares of its measure, and returns how many samples it has."""
    total = 0.0
    for i in range(first, last):
        total += measures[i]
    count = np.int64(min(max(np.rint(rate * total), 1.0), float(max_samples)))
    i, before = first, 0.0
    for number in range(count + 1):
        wanted = np.float64(np.float32(number) / np.float32(count)) * total
        while i < last - 1 and before + measures[i] < wanted:
            before += measures[i]
            i += 1
        share = np.float32(min(max((wanted - before) / measures[i], 0.0), 1.0))
        edges[number] = starts[i] + (ends[i] - starts[i]) * share
    return count


@compiled()
def place(grid, settings, rate, max_samples, longest, rays, numbers):
    """Spans of some rays in which a field is queried: of each its ray's number, start and end.

    Args:
        grid: flat cells, bool: occupied, and near an occupied one; their densities, float32; sides `[3]`; cells of a
            coarse step.
        settings: side of a cell, transmittance at which rays end, least weight of a span.
        rate: samples of a run whose light ends within one cell.
        max_samples: of a run.
        longest: spans of a ray, at most.
        rays: origins and directions `[r, 3]` in cells, first cells of their slices of time, where they enter the grid
            and leave it, `[r]`.
        numbers: of the rays, int64 `[r]`.
    """
    origins, directions, slices, begins, leaves = rays
    unit = settings[0]
    starts, ends = np.empty(longest, np.float32), np.empty(longest, np.float32)
    weights, measures = np.empty(longest, np.float32), np.empty(longest, np.float32)
    edges = np.empty(max_samples + 1, np.float32)
    room, placed = max(16 * len(numbers), 2 * max_samples), 0
    of_ray, from_, until = np.empty(room, np.int64), np.empty(room, np.float32), np.empty(room, np.float32)
    for r in range(len(numbers)):
        count = counted_spans(
            grid, settings, origins[r], directions[r], slices[r], begins[r], leaves[r], starts, ends, weights
        )
        first = 0
        for i in range(count):
            measures[i] = cube_root(weights[i]) * ((ends[i] - starts[i]) / unit)
            if i + 1 < count and starts[i + 1] - ends[i] <= TOUCHING * unit:
                continue
            if placed + max_samples > room:
                room *= GROWTH
                of_ray, from_, until = grown(of_ray, room), grown(from_, room), grown(until, room)
            for number in range(place_on_run(first, i + 1, starts, ends, measures, rate, max_samples, edges)):
                of_ray[placed], from_[placed], until[placed] = numbers[r], edges[number], edges[number + 1]
                placed += 1
            first = i + 1
    return of_ray[:placed], from_[:placed], until[:placed]


@compiled()
def grown(values, room):
    """The same values with room for more."""
    more = np.empty(room, values.dtype)
    more[: len(values)] = values
    return more
