"""Parts of a day that do next to nothing, for tests: run by their name in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.rows import RowLog


def quick(day: Day, log: RowLog) -> None:
    """Three rows, one of which fails."""
    log.measure("first", lambda: {"ok": True, "value": float("nan")})
    log.measure("broken", lambda: {}["nothing"])
    log.measure("last", lambda: {"ok": True})


def slow(day: Day, log: RowLog) -> None:
    """A row, then one that never ends, with a child that would outlive it."""
    log.measure("kept", lambda: {"value": 1})

    def never() -> dict[str, Any]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (day.work / "child").write_text(str(child.pid))
        time.sleep(600)
        return {}

    log.measure("never", never)


def losing(day: Day, log: RowLog) -> None:
    """A row after which the device is lost to the process, and one after it."""

    def lose() -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    log.measure("lost", lose)
    log.measure("after", lambda: {"process": os.getpid()})


def waiting(day: Day, log: RowLog) -> None:
    """A row that lasts until its process group is stopped."""
    log.measure("kept", lambda: {"value": 1})
    Path(day.work / "waiting").touch()
    time.sleep(600)
