"""Step functions along a ray, and the loss that keeps a proposal close to what it proposes for.

Alphabet: `t` edges `[..., n + 1]`, increasing; `w` the weight between neighbouring edges `[..., n]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MIN_BLUR = 1e-8
"""Half-widths below it change nothing by more than float64's rounding errors, on edges in [0, 1]."""


def power_transform(x: Tensor, exponent: float) -> Tensor:
    """`P(x, l) = |l - 1| / l ((x / |l - 1| + 1)^l - 1)` for x >= 0 (Eq. 6 of arXiv 2304.06706).

    Raises:
        ValueError: exponent 0 or 1, where P is a limit.
    """
    scale = _scale(exponent)
    return scale / exponent * ((x / scale + 1).pow(exponent) - 1)


def inverse_power_transform(y: Tensor, exponent: float) -> Tensor:
    """The x that `power_transform` maps to y.

    A negative exponent has a bound, which y of short dtypes reaches at a finite x already: there the largest x is
    returned that differs from infinity.

    Raises:
        ValueError: exponent 0 or 1, where P is a limit.
    """
    scale = _scale(exponent)
    base = (exponent / scale * y + 1).clamp_min(torch.finfo(y.dtype).eps / 2)
    return scale * (base.pow(1 / exponent) - 1)


def blur_and_resample(t: Tensor, w: Tensor, queries: Tensor, halfwidth: float) -> Tensor:
    """Weights between query edges after the step function was blurred with a box (Sec. 3 of arXiv 2304.06706).

    The blurred function's integral up to q is the mean of the unblurred one's over [q - r, q + r], and that mean is a
    difference of second integrals, which are quadratic between edges.

    Args:
        t: edges `[..., n + 1]`.
        w: weights `[..., n]`.
        queries: edges `[..., k + 1]`.
        halfwidth: r >= 0; 0 blurs nothing, the step function is resampled as it is.

    Returns:
        `[..., k]`, not negative; they sum to what w sums to where the queries reach r beyond t on both sides.

    Raises:
        ValueError: a half-width that is negative or not finite.
    """
    check_halfwidth(halfwidth)
    t, w, queries = (v.double() for v in (t, w, queries))  # a difference of nearly equal numbers follows
    density = w / (t[..., 1:] - t[..., :-1]).clamp_min(1e-12)
    first = torch.cat([torch.zeros_like(w[..., :1]), w.cumsum(dim=-1)], dim=-1)
    steps = (first[..., 1:] + first[..., :-1]) / 2 * (t[..., 1:] - t[..., :-1])
    second = torch.cat([torch.zeros_like(w[..., :1]), steps.cumsum(dim=-1)], dim=-1)
    # past the last edge the first integral is constant: one more piece, of density 0
    density = torch.cat([density, torch.zeros_like(density[..., :1])], dim=-1)

    def pieces(q: Tensor) -> tuple[Tensor, Tensor]:
        piece = (torch.searchsorted(t, q.contiguous(), right=True) - 1).clamp_min(0)
        return piece, (q - t.gather(-1, piece)).clamp_min(0)

    def integral(q: Tensor) -> Tensor:
        piece, past = pieces(q)
        return second.gather(-1, piece) + past * (first.gather(-1, piece) + past * density.gather(-1, piece) / 2)

    if halfwidth <= MIN_BLUR:
        piece, past = pieces(queries)
        blurred = first.gather(-1, piece) + past * density.gather(-1, piece)
    else:
        blurred = (integral(queries + halfwidth) - integral(queries - halfwidth)) / (2 * halfwidth)
    return blurred.diff(dim=-1).clamp_min(0)


def check_halfwidth(halfwidth: float) -> None:
    """Refuses what no box is as wide as.

    Raises:
        ValueError: a half-width that is negative or not finite.
    """
    if not 0 <= halfwidth < math.inf:
        raise ValueError(f"a blur's half-width is 0 (none) or a positive number, got {halfwidth:g}")


def antialiased_interlevel_loss(
    t: Tensor, w: Tensor, proposals: Sequence[tuple[Tensor, Tensor]], halfwidths: Sequence[float]
) -> Tensor:
    """`mean(max(0, blurred w - w_p)^2 / w_p)`, summed over the proposals (Eq. 5 of arXiv 2304.06706).

    Args:
        t: edges of the final samples, `[rays, n + 1]`, normalised distance.
        w: their weights `[rays, n]`; no gradient reaches them.
        proposals: edges and weights of each round before.
        halfwidths: of the blur, one a round; 0 blurs nothing.

    Returns:
        A scalar.
    """
    total = w.new_zeros(())
    for (edges, weights), halfwidth in zip(proposals, halfwidths, strict=True):
        target = blur_and_resample(t.detach(), w.detach(), edges.detach(), halfwidth).to(weights)
        total = total + ((target - weights).clamp_min(0).square() / (weights + 1e-7)).mean()
    return total


def annealed(weights: Tensor, fraction: float, slope: float) -> Tensor:
    """Weights to the power of Schlick's bias `s x / ((s - 1) x + 1)` (Sec. 3 of arXiv 2111.12077): flat at the start.

    Args:
        weights: `[...]`, not negative.
        fraction: x, the part of training that is done, in [0, 1].
        slope: s.
    """
    return weights.pow(slope * fraction / ((slope - 1) * fraction + 1))


def _scale(exponent: float) -> float:
    if exponent in (0, 1):
        raise ValueError(f"the power transformation's exponent must not be {exponent:g}; take a number close to it")
    return abs(exponent - 1)
