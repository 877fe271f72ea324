"""Muon: momentum whose matrices are orthogonalised before they become a step (Jordan et al. 2024), batched.

A matrix moves by the orthogonal factor of its momentum, so that an update is equally large in all directions, however
small their gradients are. Vectors, outputs of a few rows and tables of features have no such directions: train them by
Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.core.layers.factors import diagonal_blocks, update_share

MIN_SIDE = 8
"""Shortest side of a matrix for Muon: narrower ones are outputs (density, colour, offset) or tables of features."""
MAX_SIDE = 8192
"""Longest side of a matrix for Muon: a longer one belongs to a table of features."""

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of an iteration `a X + (b X X^T + c (X X^T)^2) X` (Jordan et al. 2024)."""
NEWTON_SCHULZ_STEPS = 5
"""Number of iterations."""
SIDE_MULTIPLE = 128
"""Where products of few small matrices are mostly overhead, matrices form one batch if their shorter sides round up to
the same multiple of it."""
MIN_NORM = 1e-7
"""Least Frobenius norm to divide by."""


def is_orthogonalised(parameter: Tensor) -> bool:
    """Whether Muon is for a parameter: a matrix between hidden layers.

    Args:
        parameter: of any shape.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import is_orthogonalised
        >>> [is_orthogonalised(torch.zeros(shape)) for shape in ((64, 64), (64,), (3, 64))]
        [True, False, False]
    """
    return parameter.ndim == 2 and min(_block(parameter)) >= MIN_SIDE and max(parameter.shape) <= MAX_SIDE


def _block(matrix: Tensor) -> tuple[int, int]:
    """Rows and columns of one diagonal block of a matrix; of the whole where it has none."""
    return matrix.shape[0] // diagonal_blocks(matrix), matrix.shape[1]


def orthogonalised(matrices: Tensor) -> Tensor:
    """Approximate orthogonal factors `U V^T` of matrices `U S V^T`, by a quintic Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2 with Muon's coefficients, which trade exactness for few steps.

    Args:
        matrices: `[batch, r, c]`, of any scale.

    Returns:
        `[batch, r, c]`, of the same dtype.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=MIN_NORM)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class BatchedMuon(Optimizer):
    """`torch.optim.Muon` (torch 2.9 and later) that orthogonalises matrices of similar size in one batch.

    Steps and state equal torch's with `match_rms_adamw`; factors of one matrix share a step (`core/layers/factors.py`).
    Products are in bfloat16, as torch's, where the device multiplies it fast; else in the parameters' dtype.

    Args:
        params: matrices.
        lr: learning rate; the root mean square of an update is 0.2 of it.
        weight_decay: decoupled, a step, times the learning rate.
        momentum: of the gradients' running mean, with Nesterov's step ahead.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import BatchedMuon
        >>> weight, wanted = torch.nn.Parameter(torch.zeros(16, 16)), torch.eye(16)
        >>> optimizer = BatchedMuon([weight], lr=0.1)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     loss = (weight - wanted).square().sum()
        ...     loss.backward()
        ...     _ = optimizer.step()
        >>> bool(loss < 1.6)  # it was 16
        True
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-2, *, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns the closure's loss, None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            batches: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    batches.setdefault((_batch_of(p), p.device, p.dtype), []).append(p)
            for parameters in batches.values():
                self._move(group, parameters)
        return loss

    def _move(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Moves parameters of one batch."""
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])
        halved = updates[0].dtype == torch.float32 and has_fast_bfloat16(updates[0].device)
        parts = [part for p, update in zip(parameters, updates, strict=True) for part in update.split(_block(p)[0])]
        directions = iter(orthogonalised(_stacked(parts, torch.bfloat16 if halved else parts[0].dtype)))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for p in parameters:
            shorter, longer = sorted(_block(p))
            # root mean square of an update as Adam's usually is, so that rates mean the same for all shapes
            rate = group["lr"] * 0.2 * longer**0.5 * update_share(p)
            for part in p.split(_block(p)[0]):
                _wide(part).add_(next(directions)[:shorter, :longer], alpha=-rate)


def _batch_of(parameter: Tensor) -> tuple[int, ...]:
    """What parameters of one batch have in common, device and dtype apart.

    On a CPU their sides: padding narrower matrices to join a batch took a third to a half of a step's time. Elsewhere a
    launch costs more than padding does.
    """
    shorter, longer = sorted(_block(parameter))
    return (shorter, longer) if parameter.device.type == "cpu" else (math.ceil(shorter / SIDE_MULTIPLE),)


def _stacked(matrices: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """`[batch, r, c]`, r <= c: tall matrices transposed and small ones padded with zeros, which stay zeros."""
    wide = [_wide(matrix) for matrix in matrices]
    rows, columns = (max(side) for side in zip(*(matrix.shape for matrix in wide), strict=True))
    stacked = matrices[0].new_zeros((len(wide), rows, columns), dtype=dtype)
    for place, matrix in zip(stacked, wide, strict=True):
        place[: matrix.shape[0], : matrix.shape[1]] = matrix
    return stacked


def _wide(matrix: Tensor) -> Tensor:
    """View of a matrix, or of its transpose, whose rows are not more than its columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
