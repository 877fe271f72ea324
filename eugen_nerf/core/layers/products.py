"""What joins the projections of one feature: the products of Eq. (1), and bounded stand-ins for them in degree 2.

Alphabet: `a`, `b` the two projections of a feature of degree 2; `z = a + i b` is one projection by a complex row of G.
`harmonic` and `minimum` grow as their inputs do (degree 2 of the name, homogeneous of degree 1), so that deep stacks
keep the size of their values, as stacks of ReLU do. `clamped` has one factor that stops growing at 1.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from eugen_nerf.core.choices import Product
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.compiled_products import can_join, join_in_place, join_with_gradients

PRODUCTS: tuple[Product, ...] = ("plain", "harmonic", "minimum", "clamped")
HARMONIC_EPSILON = 1e-6
"""Added to `|z|^2`: rounds the kink at the origin off, within about 1e-3 of it."""
MEAN_SQUARE = {"plain": 1.0, "harmonic": 0.25, "minimum": 0.3634, "clamped": 0.5161}
"""Mean square of the product of two independent standard normal projections."""


def check_product(product: str, degree: int) -> None:
    """Refuses a product that there is not, or one that a degree has no use for.

    Raises:
        ConfigError: an unknown product, or another than plain without two projections to join.
    """
    if product not in PRODUCTS:
        raise ConfigError(f"product {product!r} is unknown; choose one of {', '.join(PRODUCTS)}")
    if product != "plain" and degree != 2:
        raise ConfigError(f"product {product!r} joins two projections, got degree {degree}; choose degree 2 with it")


def joined(a: Tensor, b: Tensor, product: str) -> Tensor:
    """The feature of two projections, element by element.

    * `plain`: `a b`, Eq. (1) with k = 2.
    * `harmonic`: `a b / |z|`, Eq. (1) with k = 1, complex G and `Phi(z) = Re z Im z / |z|`; its square is half the
      harmonic mean of the squares of a and b. Its derivatives are at most 1 everywhere.
    * `minimum`: `sgn(a b) min(|a|, |b|)`, piecewise linear.
    * `clamped`: `a clamp(b, -1, 1)`.

    Args:
        a: of any shape.
        b: of the same shape.
        product: one of `PRODUCTS`.
    """
    if product == "harmonic":
        if a.dtype == torch.float16:  # squares overflow from 256 on
            return joined(a.float(), b.float(), product).to(a.dtype)
        return a * b * torch.rsqrt(torch.addcmul(a * a, b, b) + HARMONIC_EPSILON)
    if product == "minimum":
        return torch.minimum(a.abs(), b.abs()).copysign(a * b)
    if product == "clamped":
        return a * b.clamp(-1.0, 1.0)
    return a * b


def hadamard_products(u: Tensor, degree: int, shared: bool, product: str = "plain") -> Tensor:
    """The products of Eq. (1) from stacked pre-activations.

    Args:
        u: `[..., blocks * m]`, blocks as in `Stage`.
        degree: k.
        shared: whether block j serves every degree i >= j.
        product: how two factors are joined; other than plain in degree 2 alone.

    Returns:
        `[..., degree * m]`, the product of degree i in block i.
    """
    if degree <= 1:
        return u
    if shared and can_join(u, product):
        return join_with_gradients(u, product, joined)
    blocks = u.chunk(degree if shared else degree * (degree + 1) // 2, dim=-1)
    products: list[Tensor] = []
    for i in range(1, degree + 1):
        factors = blocks[:i] if shared else blocks[i * (i - 1) // 2 : i * (i + 1) // 2]
        made = joined(products[-1], factors[-1], product) if shared and products else factors[0]
        if not shared:
            for factor in factors[1:]:
                made = joined(made, factor, product)
        products.append(made)
    return torch.cat(products, dim=-1)


def features_in_place(u: Tensor, degree: int, shared: bool, phi: str, product: str = "plain") -> Tensor:
    """`Phi(hadamard_products(u))` without gradients, in the memory of `u`: fewer passes over it.

    Args:
        u: as in `hadamard_products`; overwritten.
        degree: k.
        shared: as there.
        phi: name of the function.
        product: as there.
    """
    if not shared or torch.compiler.is_compiling():
        return activation(phi)(hadamard_products(u, degree, shared, product))
    if can_join(u, product):
        join_in_place(u, product)
    else:
        for lower, block in pairwise(u.chunk(degree, dim=-1)):
            _join_in_place(lower, block, product)
    return u.relu_() if phi == "relu" else activation(phi)(u)


def _join_in_place(a: Tensor, b: Tensor, product: str) -> None:
    """`joined`, written over `b`."""
    if product == "plain":
        b *= a
    elif product == "clamped":
        b.clamp_(-1.0, 1.0).mul_(a)
    elif product == "harmonic" and a.dtype != torch.float16:
        inverse = (a * a).addcmul_(b, b).add_(HARMONIC_EPSILON).rsqrt_()
        b.mul_(a).mul_(inverse)
    else:
        b.copy_(joined(a, b, product))
