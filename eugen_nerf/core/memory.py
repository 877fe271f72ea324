"""Memory of a CPU process that is freed and asked for again, call after call."""

from __future__ import annotations

import ctypes

KEPT = 1 << 30
"""Bytes of freed memory that a process keeps before it gives some back."""
MAPPED = 32 << 20
"""Bytes from which a tensor has pages of its own, which go back when it is freed: the most that glibc allows."""
AHEAD = 64 << 20
"""Bytes that are asked for beyond what is needed."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed instead of giving it back to the system at once.

    A rendering frees and asks for the same megabytes with every chunk of rays; given back, every page of them is
    cleared and entered anew, which took a tenth of an image's time. It is for commands, which own their process.

    Returns:
        Whether the allocator took it; False where it is another one than glibc's.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no library that stands for the process
        return False
    wanted = ((M_MMAP_THRESHOLD, MAPPED), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, AHEAD))
    taken = [bool(set_option(option, value)) for option, value in wanted]
    return all(taken)
