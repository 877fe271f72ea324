"""When a new connection is let in: it costs a page of controls, a thread and a first image, and others are served."""

from __future__ import annotations

import time
from collections.abc import Callable

NEW_PER_SECOND = 5.0
"""New connections a second, once `AT_ONCE` have come."""
AT_ONCE = 128
"""New connections that nobody has to wait for, after a quiet time."""
LONGEST_WAIT = 6.0
"""Seconds: browsers and proxies give up later, and who would wait longer is turned away."""
REFUSAL_COST = 3.0
"""New connections fewer for each that was thrown out: who is comes again at once."""


class Admission:
    """Gives new connections the times at which they are let in, one after another.

    Args:
        rate: connections a second; `NEW_PER_SECOND` by default.
        burst: connections that are let in at once after a quiet time; `AT_ONCE` by default.
        longest: seconds that one waits at most.
        clock: seconds that grow.
    """

    def __init__(
        self,
        rate: float | None = None,
        burst: int | None = None,
        longest: float = LONGEST_WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = 1 / (NEW_PER_SECOND if rate is None else rate)
        self._saved = (AT_ONCE if burst is None else burst) * self._seconds
        self._longest, self._clock = longest, clock
        self._last = clock() - self._saved

    def wait(self) -> float | None:
        """Seconds that a new connection has to wait from now on; None where it is turned away."""
        wait = max(0.0, self._after(1.0) - self._clock())
        if wait > self._longest:
            return None
        self._last = self._after(1.0)
        return wait

    def punish(self) -> None:
        """Lets later ones in as if more had come, because one was thrown out; nobody is turned away by it alone."""
        latest = self._clock() + self._longest - self._seconds
        self._last = max(self._last, min(latest, self._after(REFUSAL_COST)))

    def _after(self, connections: float) -> float:
        """The time that so many more are over."""
        return max(self._last, self._clock() - self._saved) + connections * self._seconds
