"""The products of degree 2 in one pass over the projections, compiled by numba for CPUs where it is installed.

PyTorch makes six passes of the harmonic product, each of which reads and writes memory (`scripts/product_cost.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core.layers.loop_threads import COMPILES, in_parts
from eugen_nerf.core.layers.plain_tensors import are_plain

_COMPILED = ("harmonic", "minimum", "clamped")
_ROWS = 1 << 10
"""Fewest rows that are worth a thread of their own."""


def can_join(u: Tensor, product: str) -> bool:
    """Whether `join_compiled` takes these: stacked a and b, float32 or bfloat16 without gaps on a CPU."""
    if product not in _COMPILED or not COMPILES or torch.compiler.is_compiling():
        return False
    return are_plain(u) and u.is_contiguous() and u.dtype in (torch.float32, torch.bfloat16)


def join_in_place(u: Tensor, product: str) -> None:
    """Writes `joined(a, b)` over b, for `u = [a, b]`, `[..., 2 m]`, without gradients."""
    from eugen_nerf.core.layers.product_kernels import LOOPS

    loops = LOOPS[product]
    _by_rows(loops.join if u.dtype == torch.float32 else loops.join_halves, u)


def join_with_gradients(u: Tensor, product: str, formula: Callable[[Tensor, Tensor, str], Tensor]) -> Tensor:
    """`[a, joined(a, b)]` for `u = [a, b]`, `[..., 2 m]`; `formula` is `joined`, for gradients of gradients."""
    made: Tensor = _Join.apply(u, product, formula)
    return made


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, product: str, formula: Callable[[Tensor, Tensor, str], Tensor]) -> Tensor:
        ctx.product, ctx.formula = product, formula
        ctx.save_for_backward(u)
        made = u.detach().clone()
        join_in_place(made, product)
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        from eugen_nerf.core.layers.product_kernels import LOOPS

        (u,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants gradients of these
            a, b = u.chunk(2, dim=-1)
            made = torch.cat([a, ctx.formula(a, b, ctx.product)], dim=-1)
            (pulled,) = torch.autograd.grad(made, u, grad, create_graph=True)
            return pulled, None, None
        grad = grad.clone(memory_format=torch.contiguous_format)
        loops = LOOPS[ctx.product]
        _by_rows(loops.pull_back if u.dtype == torch.float32 else loops.pull_back_halves, u, grad)
        return grad, None, None


def _by_rows(kernel: Callable[..., None], *tensors: Tensor) -> None:
    """Runs a kernel on all rows, in as many parts as torch has threads."""
    width = tensors[0].shape[-1]
    arrays = [_array(t).reshape(-1, width) for t in tensors]

    def run(rows: slice) -> None:
        kernel(*(array[rows] for array in arrays), width // 2)

    in_parts(run, len(arrays[0]), _ROWS)


def _array(t: Tensor) -> Any:
    """The same memory as numpy's; uint16 for bfloat16, which numpy has not."""
    t = t.detach()
    return t.numpy() if t.dtype == torch.float32 else t.view(torch.int16).numpy().view("uint16")
