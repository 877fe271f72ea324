"""Half precision in the products of networks, and nowhere else.

Mixed precision is switched on outside, by `torch.autocast` round a whole training step. An encoding at frequency 2^11
has no right digit left in float16, nor in TF32, whose numbers have as many digits. So a model computes inside
`full_precision`, which remembers the autocast that was on, and its networks multiply inside `network_products`, which
takes it up again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

import torch

from eugen_nerf.core.training.tf32 import float32_products

Arithmetic = Literal["fast", "exact", "bfloat16"]
"""Precision of networks' products. fast: TF32 on CUDA and float32 elsewhere; exact: float32 everywhere; bfloat16: that
while training, and the same as fast otherwise."""
_KINDS = ("cpu", "cuda")
_REMEMBERED: ContextVar[Mapping[str, torch.dtype] | None] = ContextVar("autocast outside full_precision", default=None)
"""By kind of device, the dtype of the autocast that the innermost `full_precision` switched off."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it float32 is float32: neither autocast nor TF32. It costs nothing where neither is on."""
    outside = {kind: dtype for kind in _KINDS if (dtype := _autocast_dtype(kind)) is not None}
    with ExitStack() as stack:
        for kind in outside:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(float32_products("ieee"))
        token = _REMEMBERED.set({**(_REMEMBERED.get() or {}), **outside})
        try:
            yield
        finally:
            _REMEMBERED.reset(token)


def network_products(device: torch.device, own: torch.dtype | None) -> AbstractContextManager[object]:
    """A context in which products have the network's own dtype, else that of the autocast outside `full_precision`.

    Args:
        device: of the products.
        own: the network's setting, which goes first; None takes the dtype that `full_precision` remembers, or leaves
            autocast as it is. float32 switches autocast off.
    """
    dtype = own
    if dtype is None and _autocast_dtype(device.type) is None:
        dtype = (_REMEMBERED.get() or {}).get(device.type)
    if dtype is None:
        return nullcontext()
    if dtype == torch.float32:
        return nullcontext() if _autocast_dtype(device.type) is None else torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


def _autocast_dtype(kind: str) -> torch.dtype | None:
    """The dtype of the autocast that is on for a kind of device, or None."""
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4 and later; the older names warn there
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if kind == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
