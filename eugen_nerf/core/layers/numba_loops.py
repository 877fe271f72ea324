"""What loops of core share: numba's decorator as they take it, and cube roots. Importing this needs numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

THREE, GUESS = np.int32(3), np.int32(709921077)
"""A third of a float's bits, and this, are about the bits of its cube root (within 4 %)."""


def compiled(**settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: numba's, without a copy on the disk where there is no place for it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy", **settings)(function)
        except RuntimeError:
            return numba.njit(nogil=True, error_model="numpy", **settings)(function)

    return decorate


@compiled()
def cube_root(x):
    """Of a positive float32, to its rounding: Newton's steps are products, which a processor does several at a time."""
    bits = np.float32(x).view(np.int32) // THREE + GUESS
    root = np.int32(bits).view(np.float32)
    for _ in range(3):
        root = (np.float32(2) * root + x / (root * root)) * np.float32(1 / 3)
    return root
