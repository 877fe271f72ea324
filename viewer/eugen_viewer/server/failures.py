"""Failures while the viewer serves: a line each in the terminal, and not too many of them."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

MAX_CHARACTERS = 200
"""Of an error's text."""
LINES_PER_MINUTE = 30
"""At most; whoever can connect can cause a line."""

_written: list[float] = []


def report_failure(what: str, error: Exception) -> None:
    """Writes what failed, why and where to the terminal: one line of printable characters.

    Args:
        what: failed, in words.
        error: its text may come from a client, which could hold control characters of the terminal.
    """
    now = time.monotonic()
    _written[:] = [at for at in _written if now - at < 60.0]
    if len(_written) > LINES_PER_MINUTE:
        return
    _written.append(now)
    if len(_written) > LINES_PER_MINUTE:
        print("more failed: further lines are left out for a minute", file=sys.stderr)
        return
    print(f"{what}: {one_line(error)}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """Kind, text and place of an error, in printable characters and without line breaks."""
    words = " ".join(str(error).split())[:MAX_CHARACTERS]
    places = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(place.filename).name}:{place.lineno})" for place in places)
    return "".join(c if c.isprintable() else "?" for c in f"{type(error).__name__}: {words}{where}")
