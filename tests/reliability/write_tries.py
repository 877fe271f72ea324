"""Kills and full disks at system calls that write, over all commands: how many were tried, and what became of them."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from attempts import attempt
from system_faults import Fault
from written_commands import WRITERS, Writer

Kind = Literal["kill", "full"]
NEVER = ("tracebacks", "unclear", "broken", "gone", "lost", "left")


@dataclass
class Outcome:
    """What became of one try; every text says what is wrong, and is empty where nothing is."""

    status: int
    """Exit status of the command that was disturbed."""
    broken: str
    """A file or folder under its final name that is not whole, or claimed by exit status 0 and not there."""
    lost: str
    """A command that does not go on when it is started again."""
    left: str
    """Temporary files that are still there after that."""
    gone: bool
    """The older result had no name until the command was started again."""
    traceback: bool
    """A stack trace instead of a message."""
    unclear: bool
    """It failed, and neither was it killed nor did it say why."""


@dataclass
class Tries:
    """One writer, ready to be disturbed.

    Args:
        writer: of `WRITERS`.
        place: a folder for its files.
    """

    writer: Writer
    place: Path

    def __post_init__(self) -> None:
        """Makes the older result, and counts the calls of a command that nothing disturbs."""
        self.ready = self.writer.folder(self.place / "ready")
        folder = self._fresh()
        whole = attempt(self.writer.words, folder)
        assert whole.status == 0, f"{self.writer.what}: {whole.output}{whole.errors}"
        assert self.writer.check(folder) == "", f"{self.writer.what}: {self.writer.check(folder)}"
        self.calls = whole.calls
        self._started_again: set[object] = set()

    def outcome(self, fault: Fault) -> Outcome:
        """Disturbs the command in a fresh folder, looks at what is there, and starts it again.

        It is started again once for everything different that was left there.
        """
        folder, writer = self._fresh(), self.writer
        done = attempt(writer.words, folder, fault)
        state, broken = self._look(folder)
        if done.status == 0 and state is None:
            broken = broken or "exit status 0, and no result"
        gone = bool(writer.before) and state is None and not broken
        lost = left = ""
        there = (state, _what_is_there(folder))
        if done.status != 0 and (writer.before or writer.resume or state != "") and there not in self._started_again:
            self._started_again.add(there)
            again = attempt(writer.words if writer.resume is None else writer.resume(folder), folder)
            state, wrong = self._look(folder)
            whole = again.status == 0 and state == ""
            lost = "" if whole else f"started again: {again.status}, {wrong}: {(again.output + again.errors)[-400:]}"
            left = ", ".join(
                path.name for path in folder.rglob("*") if ".partial" in path.name or ".replaced" in path.name
            )
        unclear = done.status not in (0, -9) and "error: " not in done.output + done.errors
        return Outcome(done.status, broken, lost, left, gone, done.traceback, unclear)

    def _look(self, folder: Path) -> tuple[str | None, str]:
        """What `check` says, and what is broken."""
        try:
            state = self.writer.check(folder)
        except Exception as error:  # whatever a reader raises: the file is not whole
            return None, f"{type(error).__name__}: {str(error)[:200]}"
        return state, state or ""

    def _fresh(self) -> Path:
        place = self.place / "try"
        shutil.rmtree(place, ignore_errors=True)
        return shutil.copytree(self.ready, place, symlinks=True)


def _what_is_there(folder: Path) -> frozenset[str]:
    """What is in a folder: names, and what final names hold; a command that is started again meets nothing else."""
    found = set()
    for path in folder.rglob("*"):
        name = re.sub(r"[0-9a-f]{6}-\d+\.(partial|replaced)|tfevents.*", r"\1", str(path.relative_to(folder)))
        final = path.is_file() and "partial" not in name and "replaced" not in name and "events.out" not in name
        found.add(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}" if final else name)
    return frozenset(found)


def chosen(calls: Sequence[str], most: int | None = None) -> list[int]:
    """Numbers of calls to try, from 1: of many in a row on one file the first, the middle one and the last.

    Between them nothing changes but the length of that file.

    Args:
        calls: name and path of each.
        most: at most so many of them, evenly.
    """
    found: list[int] = []
    for _, row in groupby(enumerate(calls, 1), key=lambda call: call[1].partition(" ")[2]):
        numbers = [number for number, _ in row]
        found += sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]})
    if most is not None and len(found) > most:
        found = [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]
    return found


def row_of(tries: Tries, most: int | None = None) -> dict[str, Any]:
    """Counts over all calls of a writer, or at most so many of each kind; prints what is wrong."""
    counts = ("tries", "kills", "full disks", "clear", *NEVER)
    row: dict[str, Any] = {"what": tries.writer.what, "calls": len(tries.calls), **dict.fromkeys(counts, 0)}
    for kind in ("kill", "full"):
        for at in chosen(tries.calls, most):
            outcome = tries.outcome(Fault(kind, at))
            row["tries"] += 1
            row["kills" if kind == "kill" else "full disks"] += 1
            wrong = {
                "tracebacks": outcome.traceback,
                "unclear": outcome.unclear,
                **{name: getattr(outcome, name) for name in ("broken", "gone", "lost", "left")},
            }
            row["clear"] += kind == "full" and outcome.status != 0 and not outcome.unclear and not outcome.traceback
            for name, value in wrong.items():
                row[name] += bool(value)
            if any(wrong.values()):
                print(f"{tries.writer.what}: {kind} at {at} ({tries.calls[at - 1]}): {outcome}", flush=True)
    return row


def rows(folder: Path, most: int | None = None, only: str = "") -> Iterator[dict[str, Any]]:
    """A row for every writer whose name has a word, with all calls of `chosen`, or at most so many of each kind."""
    for number, writer in enumerate(writer for writer in WRITERS if only in writer.what):
        yield row_of(Tries(writer, folder / str(number)), min(filter(None, (most, writer.most)), default=None))
        shutil.rmtree(folder / str(number))
