"""How far work is: bars on a terminal; elsewhere, as in a log file, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status

from eugen_nerf.core.durations import duration
from eugen_nerf.evaluation.stage_lines import EVERY, repeated, say


class Report(Protocol):
    """Takes note of how far a step is."""

    def __call__(self, title: str, percent: float, words: str = "") -> None:
        """A step's title, how many per cent of it are done, and what it says itself, where it does."""


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

            def update(title: str, percent: float, words: str = "") -> None:
                bars.update(tasks[title], completed=percent, description=f"{title} {words}".strip())

            yield update
        return
    lines = Lines(titles)
    with repeated(EVERY, lambda: say(console, lines.line())):
        yield lines.report
    say(console, lines.line())


@contextmanager
def working(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Says that something is done whose end is not known before, while the block runs.

    The block may call what it gets with the step that it is at.
    """
    step = ""

    def at(words: str) -> None:
        nonlocal step
        step = words
        if status is not None:
            status.update(f"{what}: {words}")

    def line() -> str:
        return f"{what}, for {duration(time.monotonic() - start)}" + (f"; {step}" if step else "")

    status: Status | None = None
    start = time.monotonic()
    if console.is_terminal:
        with console.status(what) as status:
            yield at
        return
    say(console, what)
    with repeated(EVERY, lambda: say(console, line())):
        yield at


@dataclass
class _Step:
    percent: float = 0.0
    words: str = ""
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

    def report(self, title: str, percent: float, words: str = "") -> None:
        """Takes note of how far a step is, and of what it says itself."""
        step = self._steps[title]
        step.percent, step.words = percent, words
        if step.first is None or step.first[1] == 0:
            step.first = (self._clock(), percent)

    def line(self) -> str:
        """One line on all steps that have begun."""
        done = sum(step.percent >= 100 for step in self._steps.values())
        parts = [f"{done} of {len(self._steps)} steps done"]
        for title, step in self._steps.items():
            if step.first is None or step.percent >= 100:
                continue
            if step.words:
                parts.append(f"{title}, {step.words}")
                continue
            began, at_first = step.first
            part = f"{title} {step.percent:.0f} %"
            if step.percent > at_first:
                seconds = (self._clock() - began) * (100 - step.percent) / (step.percent - at_first)
                part += f", {duration(seconds)} left"
            parts.append(part)
        return "; ".join(parts)
