"""Whether loops can be compiled here, and the threads that run them: known without importing numba."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

COMPILES = find_spec("numba") is not None
"""Whether there is numba: some Pythons and processors have no wheel of it. Importing it takes half a second."""


@cache
def loop_threads(count: int) -> ThreadPoolExecutor:
    """So many threads, which compiled loops of this process share; loops release the interpreter's lock."""
    return ThreadPoolExecutor(count, "compiled loops")
