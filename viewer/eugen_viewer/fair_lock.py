"""A lock that goes to the waiting thread that has not had it for longest."""

from __future__ import annotations

import itertools
import threading
import weakref


class FairLock:
    """A lock for many threads that each want it again and again.

    Python's own goes to whoever comes first when it is free, which is mostly the thread that has just released it: one
    tab that moves would keep the others waiting. In the order of waiting, tabs that never rest would take a turn each
    before one that wants an image now and then.
    """

    def __init__(self) -> None:
        self._inner = threading.Lock()
        self._held = False
        self._waiting: list[tuple[int, int, threading.Event]] = []
        self._turns = itertools.count(1)
        self._last: weakref.WeakKeyDictionary[threading.Thread, int] = weakref.WeakKeyDictionary()
        """Number of the last turn of each thread that had one."""

    def __enter__(self) -> None:
        thread = threading.current_thread()
        with self._inner:
            if self._held:
                turn = threading.Event()
                self._waiting.append((self._last.get(thread, 0), next(self._turns), turn))
            else:
                self._held, turn = True, None
        if turn is not None:
            turn.wait()
        with self._inner:
            self._last[thread] = next(self._turns)

    def __exit__(self, *error: object) -> None:
        with self._inner:
            if self._waiting:
                following = min(self._waiting)
                self._waiting.remove(following)
                following[2].set()  # stays held, by that thread
            else:
                self._held = False

    def locked(self) -> bool:
        """Whether a thread has it."""
        return self._held
