"""Which activation stands between two tensors, found from their values alone: functional ones leave no module behind.

Everything here is normalised to `x = scale_out * g(scale_in * u)` with a g of `core.activations`, so that one set of
names serves softplus of any sharpness and sines of any frequency.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eugen_nerf.core.layers.activations import activation

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}
_COARSE = 5e-2  # of half precisions: the model rounds the argument of the function as well


@dataclass(frozen=True, eq=False)
class Elementwise:
    """The function `scale_out * g(scale_in * u)`."""

    name: str
    """Of g, for `core.activations.activation`."""
    scale_in: float = 1.0
    scale_out: float = 1.0

    def __call__(self, u: Tensor) -> Tensor:
        """Values of the same shape and dtype."""
        return activation(self.name)(u * self.scale_in) * self.scale_out

    def __str__(self) -> str:
        """As a person would write it."""
        inner = "z" if self.scale_in == 1 else f"{self.scale_in:g} z"
        return f"{self.name}({inner})" if self.scale_out == 1 else f"{self.scale_out:g} {self.name}({inner})"


IDENTITY = Elementwise("identity")
_COMMON = (
    IDENTITY,
    *(Elementwise(name) for name in ("relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "gaussian", "softplus")),
    *(Elementwise("softplus", beta, 1 / beta) for beta in (10.0, 100.0)),
    Elementwise("silu", 1.702, 1 / 1.702),  # the "quick" GELU of CLIP
)


def functions_of(model: nn.Module) -> tuple[Elementwise, ...]:
    """The functions to compare with: common ones, and those with the parameters of a model's own modules."""
    own = []
    for module in model.modules():
        if isinstance(module, nn.Softplus):
            own.append(Elementwise("softplus", float(module.beta), 1 / float(module.beta)))
        elif isinstance(module, nn.LeakyReLU):
            own.append(Elementwise(f"leaky_relu({float(module.negative_slope)!r})"))
        elif isinstance(module, nn.ELU):
            own.append(Elementwise(f"elu({float(module.alpha)!r})"))
    return tuple(dict.fromkeys((*_COMMON, *own)))


def find_blocks(u: Tensor, x: Tensor, functions: Iterable[Elementwise]) -> list[tuple[int, Elementwise]]:
    """Blocks of neighbouring columns of x that hold one function of u.

    Args:
        u: pre-activations, `[n, l]`.
        x: what a layer reads, `[n, d]`.
        functions: to compare with, besides sines, leaky ReLUs and ELUs whose parameter is found from the data.

    Returns:
        The first column of each block and the function that fits best, by column; `IDENTITY` where it fits at all.
    """
    n, width = u.shape
    if x.shape[0] != n or x.shape[1] < width or n == 0:
        return []
    finite = u.isfinite().all(dim=1) & x.isfinite().all(dim=1)  # rows of padding may be NaN
    if not bool(finite.any()):
        return []
    u, x = u[finite], x[finite]
    # the coarser of the two decides: under autocast they differ
    tolerance = max(_TOLERANCE.get(t.dtype, _COARSE) for t in (u, x))
    exact = torch.float64 if u.dtype == x.dtype == torch.float64 else torch.float32
    u, x = u.detach().to(exact), x.detach().to(exact)
    column = int(u.std(dim=0, unbiased=False).argmax())
    shifted = x[:, column : column + x.shape[1] - width + 1]
    widest = u[:, column]
    scale = shifted.square().mean(dim=0).sqrt().clamp_min(1e-30)
    starts: set[int] = set()
    for values in (*(f(widest)[:, None] for f in functions), *_family_values(widest, shifted)):
        residual = (shifted - values).square().mean(dim=0).sqrt()
        starts.update(torch.nonzero(residual <= 10 * tolerance * scale).flatten().tolist())
    found: list[tuple[int, Elementwise]] = []
    for start in sorted(starts):
        block = x[:, start : start + width]
        allowed = tolerance * float(block.square().mean().sqrt())
        # what is well within the tolerance ties, and the first wins: a plain copy (where no unit is ever negative, ReLU
        # and no function at all look the same), a common function, a parameter with few digits
        errors = [
            (max(float((block - function(u)).square().mean().sqrt()), 0.1 * allowed), index, function)
            for index, function in enumerate((*functions, *_families(u.flatten(), block.flatten())))
        ]
        error, _, best = min(errors, key=lambda entry: entry[:2])
        if error <= allowed and allowed > 0:
            found.append((start, best))
    return found


def agrees(u: Tensor, x: Tensor, start: int, function: Elementwise) -> bool:
    """Whether a block of columns still holds a function of u that was found on other rows.

    Args:
        u: pre-activations, `[n, l]`.
        x: what a layer reads, `[n, d]`.
        start: the block's first column.
        function: from `find_blocks`.
    """
    block = x[:, start : start + u.shape[1]]
    finite = u.isfinite().all(dim=1) & block.isfinite().all(dim=1)
    tolerance = min(0.3, 50 * max(_TOLERANCE.get(t.dtype, _COARSE) for t in (u, x)))
    exact = torch.float64 if u.dtype == x.dtype == torch.float64 else torch.float32
    u, block = u[finite].to(exact), block[finite].to(exact)
    return float((block - function(u)).norm()) <= tolerance * float(block.norm())


def _parameters(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frequency of a sine, slope of a leaky ReLU, scale of an ELU that make u `[n]` into x `[n, k]`: `[k]` each."""
    small = torch.where(u == 0, torch.inf, u.abs()).argmin()  # where a sine has not turned yet
    lowest = u.argmin()
    frequency = torch.asin(x[small].clamp(-1, 1)) / u[small]
    return frequency, x[lowest] / u[lowest], x[lowest] / torch.expm1(u[lowest])


def _family_values(u: Tensor, x: Tensor) -> Iterable[Tensor]:
    """u `[n]` through each family, with the parameters that fit each column of x `[n, k]` best: `[n, k]` each."""
    frequency, slope, alpha = _parameters(u, x)
    u = u[:, None]
    yield torch.sin(frequency * u)
    yield torch.where(u > 0, u, slope * u)
    yield torch.where(u > 0, u, alpha * torch.expm1(u))


def _families(u: Tensor, x: Tensor) -> Iterable[Elementwise]:
    """Members of the families that may make u `[n]` into x `[n]`."""
    frequency, slope, alpha = (float(p) for p in _parameters(u.double(), x.double()[:, None]))
    for value in _nearby(frequency):
        if 1e-3 < abs(value) < 1e6:
            yield Elementwise("sin", value)
    for value in _nearby(slope):
        if 0 < value < 1 and float(u.min()) < 0:
            yield Elementwise(f"leaky_relu({value!r})")
    for value in _nearby(alpha):
        if 0 < value < 100 and float(u.min()) < 0:
            yield Elementwise(f"elu({value!r})")


def _nearby(value: float) -> tuple[float, ...]:
    """What was measured, and what a person would have typed for it."""
    return (float(f"{value:.3g}"), value) if math.isfinite(value) else ()
