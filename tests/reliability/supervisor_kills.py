"""Table `supervisor` of `scripts/reliability.py`: what runs a suite's jobs is killed, and started again at once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NEVER = ("processes left", "trained twice", "not finished", "holder not named")
KILLS = 20
"""Of each kind."""
SIDE_BY_SIDE = 5
ENDING = 40.0
"""Seconds in which everything that a killed process started has to end."""
PATIENCE = 300.0
"""Seconds for a start that is left alone."""

# as eugen-bench runs its jobs: two, side by side, ended by SIGTERM as by Ctrl-C
SUITE = """
import sys
from pathlib import Path
from rich.console import Console
from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.cli.support.runner import Job, WorkerPool, run_jobs
folder = Path(sys.argv[1])
def job(name):
    place = folder / name
    place.mkdir(exist_ok=True)
    words = (sys.executable, "-c", sys.argv[2], str(place), *sys.argv[3:])
    return Job(name, words, folder / f"{name}.log", place / "result")
run_cli(lambda: run_jobs([job("a"), job("b")], WorkerPool(2, 1), Console()))
"""
# a training: it has a worker, which may ignore SIGTERM, and notes whether another one lives in its folder
TRAINING = """
import os, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
if any(lives(each.name.partition("-")[2]) for each in folder.glob("alive-*")):
    (folder / "twice").touch()
def note(pid):
    (folder / f"alive-{pid}").touch()
note(os.getpid())
worker = "import signal, time; signal.signal(signal.SIGTERM, getattr(signal, %r)); time.sleep(600)" % sys.argv[2]
child = subprocess.Popen([sys.executable, "-c", worker])
note(child.pid)
time.sleep(float(sys.argv[3]))
child.kill()
child.wait()
(folder / "result").touch()
"""


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each kind of kill, and one for a second start while the first works."""
    kinds = [
        ("SIGKILL", signal.SIGKILL, "SIG_DFL"),
        ("SIGTERM", signal.SIGTERM, "SIG_DFL"),
        ("SIGKILL, with workers that ignore SIGTERM", signal.SIGKILL, "SIG_IGN"),
        ("SIGTERM, with workers that ignore SIGTERM", signal.SIGTERM, "SIG_IGN"),
    ]
    for number, (what, kill, handler) in enumerate(kinds):

        def one(index: int, number: int = number, kill: signal.Signals = kill, handler: str = handler) -> list[int]:
            return _kill_and_start_again(
                folder / f"{number}-{index}", kill, handler, random.Random(97 * number + index)
            )

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            left, twice, unfinished = (sum(each) for each in zip(*pool.map(one, range(KILLS)), strict=True))
        yield {
            "what": what,
            "tries": KILLS,
            "processes left": left,
            "trained twice": twice,
            "not finished": unfinished,
        }
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        named = sum(pool.map(_start_twice, [folder / f"twice-{index}" for index in range(SIDE_BY_SIDE)]))
    yield {
        "what": "a second start while the first works",
        "tries": SIDE_BY_SIDE,
        "holder not named": SIDE_BY_SIDE - named,
    }


def _kill_and_start_again(folder: Path, kill: signal.Signals, handler: str, draw: random.Random) -> list[int]:
    """Kills at a random moment; the number of processes left, of trainings beside another, of unfinished suites."""
    folder.mkdir()
    first = _start(folder, handler, 1.5)
    time.sleep(draw.uniform(0.05, 2.5))
    first.send_signal(kill)
    again = _start(folder, handler, 0.3)  # at once, while what the first one started may still be ending
    first.communicate(timeout=PATIENCE)
    status = _status(again)
    results = [(folder / name / "result").exists() for name in "ab"]
    end = time.monotonic() + ENDING
    while (left := _alive(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    return [left, sum(1 for _ in folder.glob("*/twice")), int(status != 0 or not all(results))]


def _start_twice(folder: Path) -> bool:
    """Whether a start beside a running one is refused, and says who works there and since when."""
    folder.mkdir()
    first = _start(folder, "SIG_DFL", 60.0)
    while not list(folder.glob("*/alive-*")):
        time.sleep(0.1)
    second = _start(folder, "SIG_DFL", 0.1)
    _, errors = second.communicate(timeout=PATIENCE)
    first.terminate()
    first.communicate(timeout=PATIENCE)
    words = " ".join(errors.split())
    return (
        second.returncode == 1 and re.search(r"process \d+ on \S+, since \d{4}-\d\d-\d\d \d\d:\d\d", words) is not None
    )


def _start(folder: Path, handler: str, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SUITE, str(folder), TRAINING, handler, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "1000"}
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def _status(process: subprocess.Popen[str]) -> int:
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def _alive(folder: Path) -> int:
    """Number of processes of a suite that run."""
    count = 0
    for path in folder.glob("*/alive-*"):
        try:
            state = Path(f"/proc/{path.name.partition('-')[2]}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        count += state != "Z"
    return count
