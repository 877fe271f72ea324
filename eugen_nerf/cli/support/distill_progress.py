"""How far a conversion is: a bar on a terminal; elsewhere, as in a log file, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eugen_nerf.core.durations import duration
from eugen_nerf.evaluation.stage_lines import EVERY, Steps, repeated, say


class ConversionSteps:
    """What a conversion is at, in words.

    Args:
        layers: field and layer of all that will be fitted, where they are known before; of a budget they are not.
    """

    def __init__(self, layers: Collection[tuple[str, str]] = ()) -> None:
        self._layers, self._start, self._what = set(layers), time.monotonic(), "preparing"
        self._stage = Steps("converting", len(self._layers))
        self._known = False

    def report(self, which: str, what: str) -> None:
        """Takes note of what was done for a field; layers are counted where they are known."""
        self._what = f"{which}, {what}"
        if (which, what) in self._layers:
            self._layers.remove((which, what))
            self._stage.done += 1
        self._known = 0 < self._stage.done < self._stage.count

    def calibrating(self, share: float, what: str) -> None:
        """Takes note of the share of the calibration that is done."""
        if self._stage.what != "calibrating":
            self._stage = Steps("calibrating", 100, " per cent")
        self._stage.done, self._what, self._known = round(100 * share), what, True

    def line(self) -> str:
        """The step of steps and the time left where they are known, else what was done last and the time so far."""
        if self._known:
            return self._stage.line()
        return f"converting: {self._what}, for {duration(time.monotonic() - self._start)}"

    def drawn(self) -> str:
        """The line and what was done last, for a terminal."""
        return f"{self._stage.line()}: {self._what}" if self._known else self._what


@contextmanager
def shown(console: Console, layers: Collection[tuple[str, str]]) -> Iterator[ConversionSteps]:
    """Shows how far a conversion is while the block runs, which reports to what it gets.

    Args:
        console: where.
        layers: as for `ConversionSteps`.
    """
    steps = ConversionSteps(layers)
    if not console.is_terminal:
        with repeated(EVERY, lambda: say(console, steps.line())):
            yield steps
        return
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)  # how often a budget converts is not known before
        with repeated(0.1, lambda: bar.update(task, description=steps.drawn())):
            yield steps
