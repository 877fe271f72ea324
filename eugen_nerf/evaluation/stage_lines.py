"""How far known steps are: a bar on a terminal; elsewhere, as in a log file, a line now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eugen_nerf.core.durations import duration

EVERY = 20.0
"""Seconds between two lines."""


class Steps:
    """Steps of one stage in words, such as `rendering dense: 3 of 8, 20 seconds left`.

    Args:
        what: the stage.
        count: of its steps.
        unit: what follows their number, such as " per cent".
        clock: seconds.
    """

    def __init__(self, what: str, count: int, unit: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.count, self.unit, self.done = what, count, unit, 0
        self._clock, self._start = clock, clock()

    def line(self) -> str:
        """The step at hand, and how long it and those after it will take at the rate of those before."""
        line = f"{self.what}: {min(self.done + 1, self.count)} of {self.count}{self.unit}"
        if 0 < self.done < self.count:
            line += f", {duration((self._clock() - self._start) * (self.count - self.done) / self.done)} left"
        return line


@contextmanager
def counted(
    what: str, count: int, console: Console | None = None, *, timed: bool = False
) -> Iterator[Callable[[], None]]:
    """Shows how far a stage is while the block runs, which calls what it gets after every step.

    Args:
        what: the stage.
        count: of its steps.
        console: where; standard error by default.
        timed: whether the stage takes times, which drawing a bar would lengthen: it has lines on a terminal too.
    """
    console = console or Console(stderr=True)
    if console.is_terminal and not timed:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=count)
            yield lambda: bar.advance(task)
        return
    steps = Steps(what, count)

    def advance() -> None:
        steps.done += 1

    say(console, steps.line())
    with repeated(EVERY, lambda: say(console, steps.line())):
        yield advance


@contextmanager
def shares(console: Console | None = None) -> Iterator[Callable[[str], Callable[[float], None]]]:
    """Gives a function that begins a stage and gives one to call with the share of it that is done.

    Args:
        console: where; standard error by default. The stages come one after the other.
    """
    console = console or Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:

            def draw(what: str) -> Callable[[float], None]:
                task = bar.add_task(what, total=1.0)
                return lambda share: bar.update(task, completed=share)

            yield draw
        return
    stages: list[Steps] = []

    def begin(what: str) -> Callable[[float], None]:
        stage = Steps(what, 100, " per cent")
        stages.append(stage)
        say(console, stage.line())
        return lambda share: setattr(stage, "done", round(100 * share))

    with repeated(EVERY, lambda: say(console, stages[-1].line()) if stages else None):
        yield begin


def followed(work: Callable[[], None], done: Callable[[], None]) -> Callable[[], None]:
    """Both, one after the other; the second takes no time that counts."""

    def both() -> None:
        work()
        done()

    return both


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


def say(console: Console, line: str) -> None:
    """Prints a line as it is, at once."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()
