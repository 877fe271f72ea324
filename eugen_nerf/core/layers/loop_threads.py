"""Whether loops can be compiled here, and the threads that run them: known without importing numba."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

import torch

COMPILES = find_spec("numba") is not None
"""Whether there is numba: some Pythons and processors have no wheel of it. Importing it takes half a second."""


@cache
def loop_threads(count: int) -> ThreadPoolExecutor:
    """So many threads, which compiled loops of this process share; loops release the interpreter's lock."""
    return ThreadPoolExecutor(count, "compiled loops")


def in_parts(run: Callable[[slice], None], count: int, least: int) -> None:
    """Runs a loop on all of `count` rows, in as many parts as torch has threads.

    Args:
        run: takes the rows of its part.
        count: number of rows.
        least: rows of a part, at least: fewer are not worth a thread of their own.
    """
    threads = max(1, min(torch.get_num_threads(), count // least))
    if threads == 1:
        run(slice(0, count))
        return
    parts = [slice(part * count // threads, (part + 1) * count // threads) for part in range(threads)]
    list(loop_threads(threads).map(run, parts))
