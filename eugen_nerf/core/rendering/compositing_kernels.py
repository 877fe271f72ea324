"""The loop of `compiled_compositing.py`, compiled by numba at its first call and kept on the disk."""

from __future__ import annotations

import math

import numpy as np

from eugen_nerf.core.layers.numba_loops import compiled


@compiled()
def composite_rays(spans, density, colour, rays, summed, accumulation, depth, last):
    """Writes what some rays meet; see `Composite`.

    Args:
        spans: rays' numbers, starts and ends, `[n]`; those of one ray follow one another.
        density: `[n]`.
        colour: `[n, channels]`.
        rays: first and last number of the rays that are written, exclusive.
        summed, last: `[r, channels]`, zeros.
        accumulation, depth: `[r]`, zeros.
    """
    ray, start, end = spans
    i, stop = np.searchsorted(ray, rays[0]), np.searchsorted(ray, rays[1])
    weights, sums = np.empty(64), np.empty(colour.shape[1])
    while i < stop:
        own, first, light, opacity = ray[i], i, 1.0, 0.0
        sums[:] = 0.0
        while i < stop and ray[i] == own:
            # in double precision the difference to 1 keeps all digits that a weight needs
            left = math.exp(-np.float64(density[i] * (end[i] - start[i])))
            weight = light * (1.0 - left)
            if i - first == len(weights):
                more = np.empty(2 * len(weights))
                more[: len(weights)] = weights
                weights = more
            weights[i - first] = weight
            for channel in range(len(sums)):
                sums[channel] += weight * colour[i, channel]
            opacity += weight
            light *= left
            i += 1
        passed = 0.0
        for j in range(first, i):
            if not passed <= 0.5 * opacity:
                break
            depth[own] = max(depth[own], (start[j] + end[j]) / np.float32(2))
            passed += weights[j - first]
        accumulation[own] = opacity
        for channel in range(len(sums)):
            summed[own, channel], last[own, channel] = sums[channel], colour[i - 1, channel]
