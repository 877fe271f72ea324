"""Memory that a CPU process frees and allocates again in every call."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD_BYTES = 1 << 30
"""Freed bytes that a process keeps before it returns some."""
MMAP_THRESHOLD_BYTES = 32 << 20
"""Bytes from which a tensor gets its own pages, which are returned when it is freed: the most that glibc allows."""
TOP_PAD_BYTES = 64 << 20
"""Bytes allocated beyond what is needed."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""glibc's numbers of these options."""


def keep_freed_memory() -> bool:
    """Makes glibc's allocator keep freed memory instead of returning it to the system at once.

    Rendering frees and allocates the same megabytes with every chunk of rays. Memory that was returned has to be
    cleared and mapped again page by page, which took a tenth of an image's time. For commands, which own their process.

    Returns:
        Whether the allocator accepted it; False where it is not glibc's.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no library that stands for the process
        return False
    options = (
        (M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
        (M_TOP_PAD, TOP_PAD_BYTES),
    )
    accepted = [bool(set_option(option, value)) for option, value in options]
    return all(accepted)
