"""Element-wise functions of the fused kernel. Importing this needs triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sine(turns):
    """`sin(2 pi turns)`: whole turns go exactly, then half ones by symmetry, then Taylor's polynomial (error 6e-8)."""
    part = turns - tl.floor(turns + 0.5)
    size = tl.abs(part)
    x = 6.283185307179586 * tl.minimum(size, 0.5 - size)
    z = x * x
    y = -2.505210838544172e-8 * z + 2.7557319223985893e-6
    y = y * z - 1.984126984126984e-4
    y = y * z + 8.333333333333333e-3
    y = y * z - 0.16666666666666666
    y = x + x * z * y
    return tl.where(part < 0.0, -y, y)


@triton.jit
def softplus(u):
    """`log(1 + exp(u))`, of large numbers too."""
    return tl.maximum(u, 0.0, propagate_nan=tl.PropagateNan.ALL) + tl.log(1.0 + tl.exp(-tl.abs(u)))


@triton.jit
def joined(a, b, PRODUCT: tl.constexpr):
    """The product called `PRODUCT` in `core/layers/products.py`."""
    if PRODUCT == "harmonic":
        return a * b * tl.rsqrt(a * a + b * b + 1e-6)
    elif PRODUCT == "minimum":
        size = tl.minimum(tl.abs(a), tl.abs(b), propagate_nan=tl.PropagateNan.ALL)
        return tl.where((a < 0.0) == (b < 0.0), size, -size)
    elif PRODUCT == "clamped":
        low = tl.maximum(b, -1.0, propagate_nan=tl.PropagateNan.ALL)
        return a * tl.minimum(low, 1.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        tl.static_assert(PRODUCT == "plain")
        return a * b


@triton.jit
def phi(u, PHI: tl.constexpr):
    """The function called `PHI` in `core/layers/activations.py`."""
    if PHI == "relu":
        return tl.maximum(u, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif PHI == "softplus":
        return softplus(u)
    elif PHI == "softplus100":
        return softplus(100.0 * u) * 0.01
    elif PHI == "gelu":
        return 0.5 * u * (1.0 + tl.erf(u * 0.7071067811865476))
    elif PHI == "gelu_tanh":
        return u * tl.sigmoid(1.5957691216057308 * (u + 0.044715 * u * u * u))
    elif PHI == "silu":
        return u * tl.sigmoid(u)
    elif PHI == "sin":
        return sine(u * 0.15915494309189535)
    elif PHI == "cos":
        return sine(u * 0.15915494309189535 + 0.25)
    elif PHI == "tanh":
        return 2.0 * tl.sigmoid(2.0 * u) - 1.0
    elif PHI == "sigmoid":
        return tl.sigmoid(u)
    elif PHI == "gaussian":
        return tl.exp(-0.5 * u * u)
    else:
        tl.static_assert(PHI == "identity")
        return u
