"""numba's decorator as the loops of core take it. Importing this needs numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(**settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: numba's, without a copy on the disk where there is no place for it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy", **settings)(function)
        except RuntimeError:
            return numba.njit(nogil=True, error_model="numpy", **settings)(function)

    return decorate
