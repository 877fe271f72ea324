"""Small PyTorch models that do not use this project."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Three layers, the function a line of code, the input concatenated before the second layer on request."""

    def __init__(self, function: Callable[[Tensor], Tensor], skip: str = "none", width: int = 24) -> None:
        super().__init__()
        self.function, self.skip = function, skip
        self.first = nn.Linear(5, width)
        self.second = nn.Linear(width + (0 if skip == "none" else 5), width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.function(self.first(x))
        if self.skip == "before":
            h = torch.cat([x, h], dim=-1)
        elif self.skip == "after":
            h = torch.cat([h, x], dim=-1)
        return self.last(self.function(self.second(h)))


def batches(*shape: int, count: int = 6, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*(shape or (200, 5)), generator=generator).to(dtype) for _ in range(count)]


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "in place": F.relu_,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softplus 37": nn.Softplus(beta=37),
    "leaky": partial(F.leaky_relu, negative_slope=0.137),
    "elu": partial(F.elu, alpha=0.7),
    "sine": torch.sin,
    "sine 30": lambda x: torch.sin(30 * x),
    "sine 17.77": lambda x: torch.sin(17.7712 * x),
    "gaussian": lambda x: torch.exp(-0.5 * x * x),
}
