"""Background jobs with progress reports, and a worker that processes only the newest value."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from eugen_nerf.core.errors import EugenError
from eugen_viewer.server.failures import report_failure

Progress = Callable[[float | None, str], None]
"""Called with the completed share (None if unknown) and a description of the current step."""
T = TypeVar("T")


@dataclass
class Jobs:
    """Runs each job in its own thread.

    Attributes:
        report: called with title, share and text of a job; at its end with a share of 1 and its result or error.
    """

    report: Callable[[str, float | None, str], None]
    _running: dict[str, threading.Thread] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, title: str, work: Callable[[Progress], str]) -> bool:
        """Starts a job unless one with the same title is running; returns whether it was started.

        Args:
            title: identifies the job.
            work: takes a `Progress`; returns the final text.
        """

        def run() -> None:
            self.report(title, 0.0, "starting")
            try:
                line = work(lambda share, what: self.report(title, share, what))
            except EugenError as error:
                line = f"failed: {error}"
            except Exception as error:  # a defect of ours: the viewer goes on, and the terminal says where
                report_failure(title, error)
                line = f"failed: {type(error).__name__}: {error}"
            self.report(title, 1.0, line)

        with self._lock:  # two tabs may press a button at once
            thread = self._running.get(title)
            if thread is not None and thread.is_alive():
                return False
            self._running[title] = thread = threading.Thread(target=run, daemon=True, name=title)
            thread.start()
        return True

    def wait(self, title: str, timeout: float | None = None) -> None:
        """Waits until the job of this title has ended, or for some seconds."""
        thread = self._running.get(title)
        if thread is not None:
            thread.join(timeout)


class NewestValueWorker(Generic[T]):
    """Calls a function in its own thread with the newest value; values replaced by a newer one are skipped.

    Args:
        act: called with a value.
    """

    def __init__(self, act: Callable[[T], None]) -> None:
        self._act = act
        self._value: list[T] = []
        self._changed = threading.Condition()
        self._busy = False
        threading.Thread(target=self._loop, daemon=True).start()

    def put(self, value: T) -> None:
        """Submits a value."""
        with self._changed:
            self._value = [value]
            self._changed.notify_all()

    def wait_until_idle(self, timeout: float) -> bool:
        """Waits until all values are processed; returns whether that happened within some seconds."""
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
            except Exception as error:
                report_failure("a change was left out", error)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
