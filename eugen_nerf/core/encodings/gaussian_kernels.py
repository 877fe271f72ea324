"""The loops of `compiled_gaussians.py`, compiled by numba at their first call and kept on the disk."""

from __future__ import annotations

import math

import numpy as np

from eugen_nerf.core.layers.numba_loops import compiled

ZERO, HALF, ONE, TWO, THREE = (np.float32(x) for x in (0, 0.5, 1, 2, 3))
THIRD, QUARTER, TWELVE = np.float32(1 / 3), np.float32(0.25), np.float32(12)
ACROSS, BOTH = np.float32(5 / 12), np.float32(4 / 15)
HALF_PI = np.float32(math.pi / 2)
LEAST_DOUBLINGS = np.float32(-72)
"""Of a damping, below which it is 0: 2^-72 is `exp(-50)`."""
SINE = tuple(np.float32(x) for x in (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4))
COSINE = tuple(np.float32(x) for x in (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5))
POWER = tuple(
    np.float32(x)
    for x in (
        6.931472028550421e-1,
        2.402264791363012e-1,
        5.550332471162809e-2,
        9.618437357674640e-3,
        1.339887440266574e-3,
        1.535336188319500e-4,
    )
)
"""Polynomials of the Cephes library (`sinf.c`, `exp2f.c`): sine and cosine from -pi/4 to pi/4, 2^x from -1/2 to 1/2."""
S1, S2, S3 = SINE
C1, C2, C3 = COSINE
P1, P2, P3, P4, P5, P6 = POWER
FIRST, SECOND, BIAS, MANTISSA = (np.int32(x) for x in (1, 2, 127, 23))
RULES = {"contract", "nsz"}
"""What the compiler may change: a product and a sum are rounded once, and zeros have no sign. NaN stays NaN."""


@compiled(fastmath=RULES)
def encode(means, covariances, waves, outer, features):
    """Fills in sines `features[:, 0]` and cosines `features[:, 1]`; see `encode_compiled`.

    A quarter turn is 1, so that what is left of a phase beyond whole quarters is exact. All of a row is one loop of
    sums, products and choices, of which a processor takes eight columns at a time.

    Args:
        means: `[n, 3]`.
        covariances: `[n, 9]`, symmetric.
        waves: `[3, columns]`, to phases in quarter turns.
        outer: `[6, columns]`, to binary logarithms of dampings, from the upper triangle of a covariance.
        features: `[n, 2, columns]`, to be filled in.
    """
    for i in range(len(means)):
        x, y, z = means[i, 0], means[i, 1], means[i, 2]
        c = covariances[i]
        xx, xy, xz, yy, yz, zz = c[0], c[1], c[2], c[4], c[5], c[8]
        sines, cosines = features[i, 0], features[i, 1]
        for j in range(waves.shape[1]):
            phase = x * waves[0, j] + y * waves[1, j] + z * waves[2, j]
            quarters = np.rint(phase)
            angle = (phase - quarters) * HALF_PI
            square = angle * angle
            sine = angle + angle * square * (S1 + square * (S2 + square * S3))
            cosine = ONE - HALF * square + square * square * (C1 + square * (C2 + square * C3))
            turn = np.int32(quarters)
            odd = (turn & FIRST) != 0
            along, across = (cosine, sine) if odd else (sine, cosine)

            power = xx * outer[0, j] + xy * outer[1, j] + xz * outer[2, j]
            power = power + yy * outer[3, j] + yz * outer[4, j] + zz * outer[5, j]
            power = ZERO if power > ZERO else power
            power = LEAST_DOUBLINGS if power < LEAST_DOUBLINGS else power
            doublings = np.rint(power)
            rest = power - doublings
            damping = ONE + rest * (P1 + rest * (P2 + rest * (P3 + rest * (P4 + rest * (P5 + rest * P6)))))
            damping = damping * np.int32((np.int32(doublings) + BIAS) << MANTISSA).view(np.float32)
            damping = ZERO if power <= LEAST_DOUBLINGS else damping

            sines[j] = damping * (-along if (turn & SECOND) != 0 else along)
            cosines[j] = damping * (-across if ((turn + FIRST) & SECOND) != 0 else across)


@compiled(fastmath=RULES)
def contract_gaussians(origins, directions, starts, ends, radii, means, covariances):
    """Fills in means `[r, n, 3]` and covariances `[r, n, 9]`; see `contract_compiled`.

    A frustum's covariance is `across I + (along - across) d d^T`, so a contracted one is `across J J^T + (along -
    across) (J d) (J d)^T`, by the Jacobian J of `core/rendering/contraction.py`.

    Args:
        origins, directions: `[n, 3]`.
        starts, ends, radii: `[n]`.
        means: `[n, 3]`, to be filled in.
        covariances: `[n, 9]`, to be filled in.
    """
    for i in range(len(starts)):
        dx, dy, dz = directions[i, 0], directions[i, 1], directions[i, 2]
        middle, half = (starts[i] + ends[i]) * HALF, (ends[i] - starts[i]) * HALF
        middles, halves = middle * middle, half * half
        scale = THREE * middles + halves
        t, share = middle + TWO * middle * halves / scale, halves / scale
        along = halves * THIRD - BOTH * share * share * (TWELVE * middles - halves)
        across = radii[i] * radii[i] * (middles * QUARTER + ACROSS * halves - BOTH * halves * share)
        x, y, z = origins[i, 0] + dx * t, origins[i, 1] + dy * t, origins[i, 2] + dz * t

        square = max(x * x + y * y + z * z, ONE)
        radius = math.sqrt(square)
        a = (TWO * radius - ONE) / square
        nx, ny, nz = x / radius, y / radius, z / radius
        inward = (ONE / square - a) * (nx * dx + ny * dy + nz * dz)
        jx, jy, jz = a * dx + inward * nx, a * dy + inward * ny, a * dz + inward * nz
        rest, whole = along - across, across * a * a
        radial = across * (ONE / (square * square) - a * a)
        mean, c = means[i], covariances[i]
        mean[0], mean[1], mean[2] = a * x, a * y, a * z
        c[0] = whole + radial * nx * nx + rest * jx * jx
        c[4] = whole + radial * ny * ny + rest * jy * jy
        c[8] = whole + radial * nz * nz + rest * jz * jz
        c[1] = c[3] = radial * nx * ny + rest * jx * jy
        c[2] = c[6] = radial * nx * nz + rest * jx * jz
        c[5] = c[7] = radial * ny * nz + rest * jy * jz
