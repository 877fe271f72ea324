"""The contraction of unbounded space into a ball of radius 2 (Eq. 10 of arXiv 2111.12077), for points and Gaussians.

Alphabet: `x` a point, `r = |x|`, `n = x / r`. Outside the unit ball `f(x) = (2 r - 1) / r^2 x`, whose Jacobian is
`a (I - n n^T) + r^-2 n n^T` with `a = (2 r - 1) / r^2`. With `r` replaced by `max(1, r)` the same formulas are the
identity inside the ball, and no derivative meets the square root at 0.
"""

from __future__ import annotations

from torch import Tensor


def contract(x: Tensor) -> Tensor:
    """Contracted points `[..., 3]`, of norm below 2; the identity inside the unit ball."""
    r = _radius(x)
    return (2 * r - 1) / r.square() * x


def contract_cube(x: Tensor) -> Tensor:
    """As `contract`, by the largest coordinate in place of the norm: `[..., 3]`, in the cube `[-2, 2]^3`."""
    r = x.abs().amax(dim=-1, keepdim=True).clamp_min(1)
    return (2 * r - 1) / r.square() * x


def inverse_contract(z: Tensor) -> Tensor:
    """The point that `contract` maps to z `[..., 3]`, of norm below 2."""
    square = z.square().sum(dim=-1, keepdim=True).clamp_min(1)
    return z / (2 * square.sqrt() - square)


def contract_gaussian(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Contracted Gaussians: mean `f(mu)` and covariance `J Sigma J^T` by the Jacobian at the mean.

    Args:
        mean: `[..., 3]`.
        covariance: `[..., 3, 3]`, symmetric.

    Returns:
        Mean `[..., 3]` and covariance `[..., 3, 3]`.
    """
    r = _radius(mean)
    a = (2 * r - 1) / r.square()
    # J = a I + b n n^T, multiplied out: small batched matrix products are slow
    b = r.reciprocal().square() - a
    n = mean / r
    sn = (covariance * n[..., None, :]).sum(dim=-1)  # Sigma n
    nsn = (n * sn).sum(dim=-1, keepdim=True)
    cross = n[..., :, None] * (a * b * sn + 0.5 * b.square() * nsn * n)[..., None, :]
    return a * mean, a.square()[..., None] * covariance + cross + cross.transpose(-1, -2)


def contraction_scale(x: Tensor) -> Tensor:
    """Cube root of the Jacobian's determinant at x `[..., 3]`: what a small isotropic Gaussian's width grows by.

    Returns:
        `[..., 1]`, 1 inside the unit ball (Sec. 2 of arXiv 2304.06706).
    """
    r = _radius(x)
    return (2 * r - 1).pow(2 / 3) / r.square()


def _radius(x: Tensor) -> Tensor:
    return x.square().sum(dim=-1, keepdim=True).clamp_min(1).sqrt()
