"""Rows of one part, appended to a file of JSON lines as they are measured."""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TRACEBACK_LINES = 6
"""Of an error that are kept."""
Figures = Mapping[str, Any]


class DeviceLost(SystemExit):
    """The device refuses further work of this process: another process has to go on."""

    STATUS = 3

    def __init__(self) -> None:
        super().__init__(self.STATUS)


class RowLog:
    """Measures rows and keeps them.

    Rows that the file holds already are not measured again, so that a part can be cut off and go on later. No row
    begins once the time is over: `left_out` has their names.

    Args:
        path: the part's file.
        part: its name.
        seconds: from now on, for all rows.
    """

    def __init__(self, path: Path, part: str, seconds: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.part = path, part
        self.left_out: list[str] = []
        self._end = time.monotonic() + seconds
        self._done = {row["row"] for row in read_rows(path)}

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def measure(self, name: str, work: Callable[[], Figures], *, needs: float = 0.0) -> None:
        """One row: the figures that `work` returns, or its error.

        Args:
            name: of the row, unlike all others of the part.
            work: what measures it.
            needs: seconds without which it is not begun.

        Raises:
            DeviceLost: after an error that leaves the device unusable for this process.
        """
        if name in self._done:
            return
        if self.left <= needs:
            self.left_out.append(name)
            return
        print(f"{self.part}: {name}", flush=True)
        outcome: dict[str, Any] = {}
        began, lost = time.monotonic(), False
        try:
            outcome["figures"] = dict(work())
        except Exception as error:  # whatever it is, it is kept and the next row goes on
            outcome["error"] = "\n".join(traceback.format_exc().strip().splitlines()[-TRACEBACK_LINES:])
            lost = "CUDA error" in str(error)
        self._append({"part": self.part, "row": name, "seconds": time.monotonic() - began, **outcome})
        if lost:
            raise DeviceLost

    def _append(self, row: dict[str, Any]) -> None:
        self._done.add(row["row"])
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(_finite(row), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file in the order they were measured; a last line that was cut off is passed over."""
    rows = []
    for line in path.read_text(encoding="utf8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
