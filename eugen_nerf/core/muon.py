"""Muon: momentum whose matrices are orthogonalised before they become a step (Jordan et al. 2024), batched.

A matrix moves by the orthogonal factor of its momentum, so that all directions of an update are of one size, however
small their gradients are. Vectors, outputs of a few rows and tables of features have no such directions: Adam moves
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Muon, Optimizer

LEAST_SIDE = 8
"""Of a matrix that is orthogonalised: narrower ones are outputs (density, colour, offset) or tables of features."""
LARGEST_SIDE = 8192
"""A longer side belongs to a table of features."""


def is_orthogonalised(parameter: Tensor) -> bool:
    """Whether Muon moves a parameter: a matrix between hidden layers.

    Args:
        parameter: of any shape.
    """
    return parameter.ndim == 2 and min(parameter.shape) >= LEAST_SIDE and max(parameter.shape) <= LARGEST_SIDE


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Nearly the orthogonal factors `U V^T` of matrices `U S V^T`, by a quintic Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2 with torch's coefficients, which trade exactness for few steps.

    Args:
        matrices: `[batch, r, c]`, of any scale.
        coefficients: a, b, c of `a X + (b X X^T + c (X X^T)^2) X`.
        steps: iterations.
        eps: least Frobenius norm that is divided by.

    Returns:
        `[batch, r, c]`, of the same dtype.
    """
    a, b, c = coefficients
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class BatchedMuon(Muon):
    """`torch.optim.Muon` whose matrices of one shape are orthogonalised together: one by one, the small matrices of
    these networks are all overhead. Parameters, state and defaults are torch's.

    On a CPU products are of the parameters' dtype and not of bfloat16, which many processors are slow at.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            shapes: dict[tuple[torch.Size, torch.device, torch.dtype], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault((p.shape, p.device, p.dtype), []).append(p)
            for parameters in shapes.values():
                self._move(group, parameters)
        return loss

    def _move(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Moves parameters of one shape, device and dtype."""
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        if group["nesterov"]:
            buffers = torch._foreach_lerp(gradients, buffers, group["momentum"])  # type: ignore[assignment]
        stacked = torch.stack(buffers)
        half = stacked.to(torch.bfloat16) if stacked.device.type == "cuda" else stacked
        directions = orthogonalised(half, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(stacked.dtype)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        # root mean square of an update as Adam's usually is, so that rates mean the same for all shapes
        rate = group["lr"] * 0.2 * max(parameters[0].shape) ** 0.5
        torch._foreach_add_(parameters, directions.unbind(), alpha=-rate)


class MuonAdam(Optimizer):
    """Muon for matrices and Adam for the rest, as one optimizer with one learning rate that schedulers move.

    Args:
        params: of a network and its encodings.
        lr: Muon's rate; the root mean square of a matrix's update is 0.2 of it.
        adam_ratio: Adam's rate over Muon's.
        momentum: Muon's.
        betas: Adam's.
        eps: Adam's.
        weight_decay: decoupled, of the matrices.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-2,
        *,
        adam_ratio: float = 0.25,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        parameters = list(params)
        super().__init__(parameters, {"lr": lr})
        matrices = [p for p in parameters if is_orthogonalised(p)]
        rest = [p for p in parameters if not is_orthogonalised(p)]
        self._parts: dict[str, Optimizer] = {}
        if matrices:
            self._parts["muon"] = BatchedMuon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay)
        if rest:
            self._parts["adam"] = Adam(rest, lr=lr * adam_ratio, betas=betas, eps=eps)
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' state, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned.

        Raises:
            ValueError: the state of another optimizer.
        """
        if set(state_dict) != set(self._parts):
            raise ValueError(
                f"the state holds {', '.join(map(str, state_dict))} and not {', '.join(self._parts)}: it is another "
                "optimizer's; resume with the optimizer that the run was trained with"
            )
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()

    def _share_groups(self) -> None:
        """Schedulers and gradient scalers reach both optimizers' groups through this one's."""
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]
