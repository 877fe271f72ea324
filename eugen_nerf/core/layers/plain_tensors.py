"""Which tensors code outside of torch's operations may read and write."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def are_plain(*tensors: Tensor) -> bool:
    """Whether tensors are torch's own, with memory of a CPU behind them: not of a subclass, as fake ones are, and not
    inside a transformation of torch.func (vmap, grad, jacrev), which has to see every operation.
    """
    return all(
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        for x in tensors
    )
