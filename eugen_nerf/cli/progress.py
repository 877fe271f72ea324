"""How far work is: bars on a terminal; elsewhere, as in a log file, a line now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eugen_nerf.core.durations import duration

EVERY = 20.0
"""Seconds between two lines."""
Report = Callable[[str, float], None]
"""Is called with a step's title and how many per cent of it are done."""


@contextmanager
def stages(console: Console, titles: Sequence[str]) -> Iterator[Report]:
    """Shows how far each of several steps is, while the block runs.

    Args:
        console: where.
        titles: of all steps; they may be done side by side.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
            tasks = {title: bars.add_task(title, total=100) for title in titles}
            yield lambda title, percent: bars.update(tasks[title], completed=percent)
        return
    lines = Lines(titles)
    with repeated(EVERY, lambda: _print(console, lines.line())):
        yield lines.report
    _print(console, lines.line())


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Says that something is done whose end is not known before, while the block runs."""
    if console.is_terminal:
        with console.status(what):
            yield
        return
    start = time.monotonic()
    _print(console, what)
    with repeated(EVERY, lambda: _print(console, f"{what}, for {duration(time.monotonic() - start)}")):
        yield


@dataclass
class _Step:
    percent: float = 0.0
    first: tuple[float, float] | None = None
    """Time and per cent of the first report above 0: what came before, such as loading, says nothing of the rate."""


class Lines:
    """Steps in words: how many are done, how far the others are, and how long they will take at that rate.

    Args:
        titles: of all steps.
        clock: seconds.
    """

    def __init__(self, titles: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._clock = {title: _Step() for title in titles}, clock

    def report(self, title: str, percent: float) -> None:
        """Takes note of how far a step is."""
        step = self._steps[title]
        step.percent = percent
        if step.first is None or step.first[1] == 0:
            step.first = (self._clock(), percent)

    def line(self) -> str:
        """One line on all steps that have begun."""
        done = sum(step.percent >= 100 for step in self._steps.values())
        parts = [f"{done} of {len(self._steps)} steps done"]
        for title, step in self._steps.items():
            if step.first is None or step.percent >= 100:
                continue
            began, at_first = step.first
            part = f"{title} {step.percent:.0f} %"
            if step.percent > at_first:
                seconds = (self._clock() - began) * (100 - step.percent) / (step.percent - at_first)
                part += f", {duration(seconds)} left"
            parts.append(part)
        return "; ".join(parts)


@contextmanager
def repeated(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Calls a function again and again, with pauses, in a thread of its own while the block runs."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(seconds):
            do()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()
