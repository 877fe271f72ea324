"""The loops of `compiled_products.py`, compiled by numba at their first call and kept on the disk for later processes.

Rows hold m numbers a, then m numbers b. bfloat16 comes as uint16, the upper half of a float32. Every product has loops
of its own: with a choice inside them they would not be vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from eugen_nerf.core.layers.numba_loops import compiled

ZERO, HALF, ONE, EPSILON = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1e-6)
HALF_WORD, LAST_BIT, BELOW_HALF = np.uint32(16), np.uint32(1), np.uint32(0x7FFF)
RULES = {"arcp", "contract", "afn", "nsz"}
"""What the compiler may change: divisions and roots are estimated and refined, and NaN stays NaN."""
Function = Callable[..., Any]


class ProductLoops(NamedTuple):
    """The loops of one product."""

    join: Function
    """Writes the products over b: float32 `[n, 2 m]`, and m."""
    join_halves: Function
    """The same of bfloat16."""
    pull_back: Function
    """Writes the gradient with respect to `[a, b]` over that with respect to `[a, product]`: a and b, that gradient,
    float32 `[n, 2 m]` each, and m."""
    pull_back_halves: Function
    """The same of bfloat16."""


@compiled(fastmath=RULES)
def widened(bits):
    """float32 of bfloat16."""
    return np.uint32(np.uint32(bits) << HALF_WORD).view(np.float32)


@compiled(fastmath=RULES)
def rounded(value):
    """bfloat16 of float32, to the nearest, ties to even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + BELOW_HALF + ((bits >> HALF_WORD) & LAST_BIT)) >> HALF_WORD)


@compiled(fastmath=RULES)
def sign(value):
    """-1, 0 or 1."""
    return ONE if value > ZERO else (-ONE if value < ZERO else ZERO)


@compiled(fastmath=RULES)
def clamp(value):
    """The number, or -1 or 1 where it is beyond."""
    return -ONE if value < -ONE else (ONE if value > ONE else value)


@compiled(fastmath=RULES)
def harmonic(a, b):
    """`a b / sqrt(a^2 + b^2)`."""
    return a * b / np.sqrt(a * a + b * b + EPSILON)


@compiled(fastmath=RULES)
def harmonic_slopes(a, b):
    """Its derivatives with respect to a and b; likewise for the others."""
    inverse = ONE / np.sqrt(a * a + b * b + EPSILON)
    x, y = a * inverse, b * inverse
    return y * (ONE - x * x), x * (ONE - y * y)


@compiled(fastmath=RULES)
def minimum(a, b):
    """`sgn(a b) min(|a|, |b|)`."""
    x, y = abs(a), abs(b)
    size = y if y < x or y != y else x
    return size if (a < ZERO) == (b < ZERO) else -size


@compiled(fastmath=RULES)
def minimum_slopes(a, b):
    """Those of the smaller one alone, or half of each."""
    x, y = abs(a), abs(b)
    share = ONE if x < y else (ZERO if y < x else HALF)
    return share * sign(b), (ONE - share) * sign(a)


@compiled(fastmath=RULES)
def clamped(a, b):
    """`a clamp(b, -1, 1)`."""
    return a * clamp(b)


@compiled(fastmath=RULES)
def clamped_slopes(a, b):
    """As PyTorch has them, 0 at the ends."""
    return clamp(b), a if abs(b) < ONE else ZERO


def _loops(product: Function, slopes: Function) -> ProductLoops:
    @compiled(fastmath=RULES)
    def join(u, m):
        for i in range(len(u)):
            row = u[i]
            for j in range(m):
                row[m + j] = product(row[j], row[m + j])

    @compiled(fastmath=RULES)
    def join_halves(u, m):
        for i in range(len(u)):
            row = u[i]
            for j in range(m):
                row[m + j] = rounded(product(widened(row[j]), widened(row[m + j])))

    @compiled(fastmath=RULES)
    def pull_back(u, grad, m):
        for i in range(len(u)):
            row, out = u[i], grad[i]
            for j in range(m):
                to_a, to_b = slopes(row[j], row[m + j])
                g = out[m + j]
                out[j] += g * to_a
                out[m + j] = g * to_b

    @compiled(fastmath=RULES)
    def pull_back_halves(u, grad, m):
        for i in range(len(u)):
            row, out = u[i], grad[i]
            for j in range(m):
                to_a, to_b = slopes(widened(row[j]), widened(row[m + j]))
                g = widened(out[m + j])
                out[j] = rounded(widened(out[j]) + g * to_a)
                out[m + j] = rounded(g * to_b)

    return ProductLoops(join, join_halves, pull_back, pull_back_halves)


LOOPS = {
    "harmonic": _loops(harmonic, harmonic_slopes),
    "minimum": _loops(minimum, minimum_slopes),
    "clamped": _loops(clamped, clamped_slopes),
}
