"""A lock that is handed on in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A lock for many threads that each want it again and again.

    Python's own goes to whoever comes first when it is free, which is mostly the thread that has just released it:
    one tab that moves would keep the others waiting.
    """

    def __init__(self) -> None:
        self._inner = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._inner:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *error: object) -> None:
        with self._inner:
            if self._waiting:
                self._waiting.popleft().set()  # stays held, by the thread that has waited longest
            else:
                self._held = False

    def locked(self) -> bool:
        """Whether a thread has it."""
        return self._held
