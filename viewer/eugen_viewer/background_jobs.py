"""Long work in the background: one piece at a time, with a line and a share for who waits."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from eugen_nerf.core.errors import EugenError

Progress = Callable[[float | None, str], None]
"""Is told the share done (None where it is not known) and what is being done."""
T = TypeVar("T")


@dataclass
class Jobs:
    """Runs pieces of work in threads of their own.

    Attributes:
        report: is told title, share and line of a piece of work, and at its end a share of 1; an error is a line.
    """

    report: Callable[[str, float | None, str], None]
    _running: dict[str, threading.Thread] = field(default_factory=dict)

    def start(self, title: str, work: Callable[[Progress], str]) -> bool:
        """Starts work, unless work of the same title is running; whether it was started.

        Args:
            title: what it is called.
            work: takes a `Progress`, returns the line that is left at its end.
        """
        thread = self._running.get(title)
        if thread is not None and thread.is_alive():
            return False

        def run() -> None:
            self.report(title, 0.0, "starting")
            try:
                line = work(lambda share, what: self.report(title, share, what))
            except EugenError as error:
                line = f"failed: {error}"
            except Exception as error:  # a defect of ours: the viewer goes on, and the terminal has the details
                traceback.print_exc()
                line = f"failed: {type(error).__name__}: {error}"
            self.report(title, 1.0, line)

        thread = threading.Thread(target=run, daemon=True, name=title)
        self._running[title] = thread
        thread.start()
        return True

    def wait(self, title: str, timeout: float | None = None) -> None:
        """Returns when work of this title has ended, or after some seconds."""
        thread = self._running.get(title)
        if thread is not None:
            thread.join(timeout)


class Latest(Generic[T]):
    """Calls a function in a thread of its own with the newest value; values that a newer one overtakes are skipped.

    Args:
        act: is called with a value.
    """

    def __init__(self, act: Callable[[T], None]) -> None:
        self._act = act
        self._value: list[T] = []
        self._changed = threading.Condition()
        self._busy = False
        threading.Thread(target=self._loop, daemon=True).start()

    def put(self, value: T) -> None:
        """Hands a value over."""
        with self._changed:
            self._value = [value]
            self._changed.notify_all()

    def settled(self, timeout: float) -> bool:
        """Waits until there is nothing to do; whether that came within some seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._value and not self._busy, timeout)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._value))
                (value,), self._value = self._value, []
                self._busy = True
            try:
                self._act(value)
            except Exception:
                traceback.print_exc()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
