"""Linear maps on a CPU by oneDNN, where it multiplies much faster than MKL, which torch has for float32.

MKL does not use the widest registers of every processor (on a Zen 5: 105 against 240 GFLOP/s on one core). Which of
the two is faster, and for which products of a training step, is measured once a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eugen_nerf.core.layers.plain_tensors import are_plain

ROWS, WIDTH = 4096, 128
"""Of the products that are measured: rows enough to hide what a call costs, at the width of the small presets."""
ROUNDS = 9
MIN_ROWS = 1024
"""Fewest rows of inputs that are worth another path."""
MIN_GAIN = 1.5
"""How much faster oneDNN has to be. Most processors are far from it, above or below, so that every process on a machine
chooses alike and results repeat bit for bit."""


class OneDNNGains(NamedTuple):
    """Processor time of torch's products over that of oneDNN's, for a training step's products of two kinds."""

    rows: float
    """`x W^T` and `g W`: outputs and gradients of inputs, a row for each query."""
    weights: float
    """`g^T x`: gradients of weights, sums over all queries."""


@cache
def multiplies_by_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN has products of this dtype here, by a trial: its build, or ONEDNN_MAX_CPU_ISA, may allow less than
    the processor does.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False  # torch.compile itself calls this product; it has no public name
    try:
        onednn_linear(torch.ones(2, 3, dtype=dtype), torch.ones(4, 3, dtype=dtype), None, "relu")
    except RuntimeError:
        return False
    return True


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None, function: str = "none") -> Tensor:
    """`function(x W^T + b)` for `x` `[..., d]` and `W` `[l, d]`, without gradients; its relu turns NaN into 0."""
    if not (weight.is_contiguous() or weight.mT.is_contiguous()):
        weight = weight.contiguous()  # for a part of a matrix oneDNN has its reference alone, a thousand times as slow
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, function, [], "")
    return made


def trained_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + b` as `torch.nn.functional.linear` has it, by oneDNN where gradients are wanted and it is faster.

    Args:
        x: `[..., d]`.
        weight: `[l, d]`.
        bias: `[l]`.
    """
    if not _is_trained_here(x, weight, bias) or max(onednn_gains()) < MIN_GAIN:
        return F.linear(x, weight, bias)
    made: Tensor = _Linear.apply(x, weight, bias)
    return made


@cache
def onednn_gains() -> OneDNNGains:
    """Measures both libraries' processor time, in turns, in some 100 ms; both are 0 where oneDNN does not multiply."""
    if not multiplies_by_onednn(torch.float32):
        return OneDNNGains(0.0, 0.0)
    x, weight = torch.ones(ROWS, WIDTH), torch.ones(WIDTH, WIDTH)
    ways: dict[str, Callable[[], Tensor]] = {
        "rows": lambda: F.linear(x, weight),
        "rows, oneDNN": lambda: onednn_linear(x, weight, None),
        "weights": lambda: x.T @ x,
        "weights, oneDNN": lambda: onednn_linear(x.T, x.T, None),
    }
    best = dict.fromkeys(ways, float("inf"))
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, product in ways.items():
                start = time.process_time()  # by the clock, other programs made one library 5 times as fast
                product()
                best[name] = min(best[name], time.process_time() - start)
    return OneDNNGains(*(best[kind] / best[f"{kind}, oneDNN"] for kind in OneDNNGains._fields))


def products_line() -> str:
    """What was measured, and by which library networks multiply in training on a CPU: one line for users."""
    gains = onednn_gains()
    if not any(gains):
        return "products: by torch's own library (this torch has no oneDNN)"
    parts = zip(("queries", "gradients of weights"), gains, strict=True)
    said = ", ".join(f"{what} by {'oneDNN' if gain >= MIN_GAIN else 'MKL'} ({gain:.2f}x)" for what, gain in parts)
    return f"products: {said}; x: speed of oneDNN over MKL here"


def _is_trained_here(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether gradients flow through float32 rows on a CPU: without autocast, a compiler, or torch.func."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    given = [t for t in (x, weight, bias) if t is not None]
    if not are_plain(*given) or any(t.dtype != torch.float32 for t in given):
        return False
    many = x.numel() >= MIN_ROWS * max(1, x.shape[-1])
    return many and any(t.requires_grad for t in given) and not _autocasts()


def _autocasts() -> bool:
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4 and later; the older name warns there
        return torch.is_autocast_enabled("cpu")
    return torch.is_autocast_cpu_enabled()


class _Linear(torch.autograd.Function):
    """Differentiable as often as is wanted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias) if onednn_gains().rows >= MIN_GAIN else F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _Linear.apply(grad, weight.mT, None) if of_x else None,
            _summed_products(rows, x.reshape(-1, x.shape[-1])) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _summed_products(grad: Tensor, x: Tensor) -> Tensor:
    """`g^T x` `[l, d]` of rows `[n, l]` and `[n, d]`."""
    again = torch.is_grad_enabled()  # gradients of gradients are wanted
    return grad.mT @ x if again or onednn_gains().weights < MIN_GAIN else onednn_linear(grad.mT, x.mT, None)
