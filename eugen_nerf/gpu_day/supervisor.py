"""Runs the parts of a day, each as a process group of its own that can be stopped whole, and collects their rows."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.gpu_day.day import ROOT, Day
from eugen_nerf.gpu_day.day_parts import CHECKS, PARTS, DayPart
from eugen_nerf.gpu_day.rows import DeviceLost, RowLog, read_rows

GRACE = 0.15
"""Share of its time that a part may take beyond it, to end the row that it has begun."""
AT_THE_END = 8.0
"""Seconds kept for the results."""
RESULT = "gpu_day.json"
BROKEN = "ended with status"
"""How the state of a part begins that no one stopped."""


def measure_part(day: Day, name: str, function: str, seconds: float) -> list[str]:
    """Measures the rows of a part in this process.

    Args:
        day: the settings.
        name: of the part.
        function: "module:function".
        seconds: for all rows.

    Returns:
        Names of the rows that did not begin in time.
    """
    module, attribute = function.split(":")
    log = RowLog(day.rows / f"{name}.jsonl", name, seconds)
    getattr(importlib.import_module(module), attribute)(day, log)
    if not log.left_out:
        complete(day, name).touch()
    return log.left_out


def complete(day: Day, name: str) -> Path:
    """A file that is there once a part has no rows left to measure: a second call passes it over."""
    return day.rows / f"{name}.complete"


@dataclass
class Running:
    """A part at work."""

    part: DayPart
    process: subprocess.Popen[bytes]
    began: float
    end: float

    def stop(self) -> None:
        """Ends it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Supervisor:
    """One call of the command.

    Args:
        day: the settings.
        parts: in order of worth.
    """

    def __init__(self, day: Day, parts: Sequence[DayPart] = PARTS) -> None:
        self.day, self.parts = day, parts
        self.states: dict[str, str] = {}
        self._running: list[Running] = []
        self._began = time.monotonic()
        self._settings = day.write()
        self._clock = day.work / "seconds"
        self._before = float(self._clock.read_text()) if self._clock.is_file() else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of this call."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the results of this call have to be written."""
        return 60 * (self.day.call or self.day.minutes) - AT_THE_END - self.elapsed

    @property
    def left_of_day(self) -> float:
        """Seconds of this call and of those that follow; at least those of this one."""
        return max(self.left, 60 * self.day.minutes - AT_THE_END - self.elapsed - self._before)

    def run(self) -> None:
        """All parts; the results are written after each, and at the end whatever ends it."""
        try:
            for group in groups_of(self.parts):
                self._run_together(group)
                self._write()
        finally:
            for running in self._running:
                running.stop()
                self.states[running.part.name] = "stopped with the day"
            self._write()
            self._clock.write_text(str(self._before + self.elapsed))

    def _run_together(self, group: Sequence[DayPart]) -> None:
        before = [part for part in group if complete(self.day, part.name).exists()]
        self.states |= {part.name: "done by an earlier call" for part in before}
        group = [part for part in group if part not in before]
        if not group:
            return
        seconds = self._seconds_of(group)
        if seconds < min(part.least for part in group):
            self.states |= {part.name: "not begun: no time was left" for part in group}
            return
        self._running = [self._start(part, seconds) for part in group]
        while self._running:
            time.sleep(0.05)
            self._running = [running for running in self._running if not self._over(running)]

    def _seconds_of(self, group: Sequence[DayPart]) -> float:
        """Its share of what is left, but enough for it to be of use."""
        later = self.parts[self.parts.index(group[0]) :]
        shares = sum(g[0].share for g in groups_of(later) if not complete(self.day, g[0].name).exists())
        return min(self.left, max(self.left_of_day * group[0].share / shares, max(part.least for part in group)))

    def _start(self, part: DayPart, seconds: float) -> Running:
        words = [sys.executable, "-m", "eugen_nerf.gpu_day", str(self._settings), part.name, part.function]
        with self.log_of(part).open("ab") as log:
            process = subprocess.Popen(
                [*words, f"{time.time() + seconds:.1f}"],
                cwd=ROOT,
                env=self.day.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        now = time.monotonic()
        return Running(part, process, now, now + min(seconds * (1 + GRACE), self.left))

    def _over(self, running: Running) -> bool:
        name, status = running.part.name, running.process.poll()
        if status is None and time.monotonic() < running.end:
            return False
        running.stop()  # what it started may still be at work
        if status == DeviceLost.STATUS and (left := running.end - time.monotonic()) > 0:
            running.process = self._start(running.part, left).process  # the rows that it has are not measured again
            return False
        taken = time.monotonic() - running.began
        if status is None:
            self.states[name] = f"stopped after {taken:.0f} s"
        elif status:
            self.states[name] = f"{BROKEN} {status} after {taken:.0f} s: {_last_line(self.log_of(running.part))}"
        else:
            self.states[name] = f"done in {taken:.0f} s"
        print(f"{name}: {self.states[name]}", flush=True)
        return True

    def log_of(self, part: DayPart) -> Path:
        """The file of a part's output."""
        folder = self.day.work / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{part.name}.txt"

    def result(self) -> dict[str, Any]:
        """The results so far."""
        parts = {
            part.name: {
                "state": self.states.get(part.name, "not begun"),
                "rows": read_rows(self.day.rows / f"{part.name}.jsonl"),
            }
            for part in self.parts
        }
        seconds = self._before + self.elapsed
        heading = {"dry_run": self.day.tiny, "minutes": self.day.minutes, "seconds": seconds}
        return {**heading, "failed": failures(parts), "parts": parts}

    def _write(self) -> None:
        """Stores the results so far: the file is whole at any time."""
        with atomic_path(self.day.output / RESULT, replace=True) as partial:
            partial.write_text(json.dumps(self.result(), indent=1) + "\n", encoding="utf8")


def groups_of(parts: Sequence[DayPart]) -> list[list[DayPart]]:
    """Parts that run at the same time, in order."""
    groups: list[list[DayPart]] = []
    for part in parts:
        if part.beside and groups:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def failures(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the checks that failed, `part: row`, and of parts of checks that broke off by themselves."""
    failures = []
    for name in CHECKS:
        part = parts.get(name, {"state": "", "rows": []})
        rows = (row for row in part["rows"] if "error" in row or row["figures"].get("ok") is False)
        failures += [f"{name}: {row['row']}" for row in rows]
        failures += [f"{name}: {part['state']}"] if part["state"].startswith(BROKEN) else []
    return failures


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
