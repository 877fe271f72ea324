"""Several processes that share the samples: sums over all of them, and the first process's decisions for all.

Nothing here starts processes: where `torch.distributed` was not initialised, there is one and these are no-ops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_index() -> int:
    """Index of this process, from 0."""
    return distributed.get_rank() if process_count() > 1 else 0


def is_mine(number: int) -> bool:
    """Whether the batch of this number belongs to this process: processes take turns."""
    return number % process_count() == process_index()


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, on the tensor's device; the tensor itself where there is one process."""
    if process_count() == 1:
        return tensor
    total = tensor.detach().clone().to(_exchange_device(tensor.device))
    distributed.all_reduce(total)
    return total.to(tensor.device)


def first_process_value(value: Any, device: torch.device | str = "cpu") -> Any:
    """The first process's value, in all of them: for decisions that rest on measurements.

    Args:
        value: anything that pickle takes; those of other processes are ignored.
        device: where this process computes.
    """
    if process_count() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, src=0, device=_exchange_device(torch.device(device)))
    return held[0]


def _exchange_device(device: torch.device) -> torch.device:
    """Device on which values are exchanged: NCCL needs a GPU, gloo main memory."""
    if distributed.get_backend() != "nccl":
        return torch.device("cpu")
    # `ns-train` leaves the first GPU as the current one of every process: a GPU that is named goes before it
    return device if device.type == "cuda" else torch.device("cuda", torch.cuda.current_device())
