"""TF32 on CUDA: where float32 products may be rounded to ten bits, and where they must not.

torch has one switch for the whole process. It is on during a network's products alone: references, fits and encodings
in the same process are computed with it off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

Float32Products = Literal["ieee", "tf32"]


class _Switch:
    """torch's switch, and its setting before the first `turn`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._before = "none"

    def turn(self, to: Float32Products) -> str:
        """Sets it and returns its former setting; each `turn` needs a `turn_back`."""
        with self._lock:
            former = _read()
            if not self._open:
                self._before = former
            self._open += 1
            if former != to:
                _write(to)
            return former

    def turn_back(self, to: str) -> None:
        """Sets it to what `turn` returned; the last open one, in whatever thread, to the setting before all."""
        with self._lock:
            self._open -= 1
            to = to if self._open else self._before
            if _read() != to:
                _write(to)


_SWITCH = _Switch()


@contextmanager
def float32_products(how: Float32Products) -> Iterator[None]:
    """Within it CUDA's float32 products are `ieee` or `tf32`, for the whole process; nothing else changes.

    Args:
        how: ieee does nothing where TF32 is off.
    """
    if how == "ieee" and _read() != "tf32":
        yield
        return
    former = _SWITCH.turn(how)
    try:
        yield
    finally:
        _SWITCH.turn_back(former)


def tf32_backward(tensors: Iterable[Tensor]) -> None:
    """Makes the backward pass multiply in TF32 from these tensors on, until it ends."""
    for tensor in tensors:
        if tensor.requires_grad:
            tensor.register_hook(_until_the_end_of_this_pass)


def _until_the_end_of_this_pass(_: Tensor) -> None:
    former = _SWITCH.turn("tf32")
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(lambda: _SWITCH.turn_back(former))


# torch has two kinds of names for it, and refuses to read the old one where the new one says something else


def _read() -> str:
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch 2.9 and later, where the older name warns
        return str(matmul.fp32_precision)
    return "tf32" if matmul.allow_tf32 else "ieee"


def _write(value: str) -> None:
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = value
    else:
        matmul.allow_tf32 = value == "tf32"
