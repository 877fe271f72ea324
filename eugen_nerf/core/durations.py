"""Times in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds in words: the largest unit of which there are two or more."""
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
