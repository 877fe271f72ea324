"""Which device a tensor is on, as far as the pretence goes: a mark on its storage, which views share."""

from __future__ import annotations

from typing import Any

import torch

CPU = torch.device("cpu")
_untyped_storage = torch.Tensor.untyped_storage


def as_device(device: Any) -> torch.device:
    """What torch makes of a `device` argument; `cuda` is `cuda:0`."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device


def device_of(tensor: torch.Tensor) -> torch.device:
    """The device that a tensor is on, pretended or not."""
    return getattr(_untyped_storage(tensor), "pretended", CPU)


def tag(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a tensor, and all that share its storage, by word alone; returns it."""
    tag_storage(_untyped_storage(tensor), device)
    return tensor


def tag_storage(storage: torch.UntypedStorage, device: torch.device) -> torch.UntypedStorage:
    """As `tag`, for a storage."""
    storage.pretended = device  # type: ignore[attr-defined]
    return storage


def storage_key(tensor: torch.Tensor) -> int:
    """Equal for tensors that share a storage."""
    return _untyped_storage(tensor)._cdata
