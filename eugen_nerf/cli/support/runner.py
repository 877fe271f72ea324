"""Commands run side by side, each with a log of its own; what is done already is not done again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from eugen_nerf.cli.support.progress import stages
from eugen_nerf.cli.support.supervised import LOCKED, supervised
from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.stage_lines import repeated
from eugen_nerf.surfaces.files import write_texts

T = TypeVar("T")
_RUNNING: set[subprocess.Popen[str]] = set()
_PERCENT = re.compile(r"\((\d+(?:\.\d+)?)%\)")
"""How far ns-train says that it is."""
_STEP = re.compile(r"^.{1,80}: \d+ of \d+(?: per cent)?(?:, \d+ \w+ left)?$", re.MULTILINE)
"""How far our own commands say that they are (`evaluation/stage_lines.py`)."""
_READ_EVERY = 1.0
"""Seconds between two looks at how far a job's log is."""
_LOOK_EVERY = 2.0
"""Seconds between two looks at whether another machine's job is done."""


@dataclass(frozen=True)
class Job:
    """One command."""

    title: str
    """What the progress bar says."""
    command: tuple[str, ...]
    log: Path
    """Gets the command line and all output."""
    result: Path
    """What the command makes."""
    record: Path | None = None
    """Where the result alone says nothing, because it is there before the end: gets the seconds at the end."""
    needs: Path | None = None
    """What must be there before: the last file that another job makes."""

    @property
    def last(self) -> Path:
        """The file that is there when the job is done."""
        return self.record or self.result

    def done(self) -> bool:
        """Whether it need not run."""
        return self.result.exists() and self.last.exists()


@dataclass(frozen=True)
class WorkerPool:
    """The workers of this process, one of several that torchrun may have started, on one machine or on many."""

    workers: int
    """Jobs side by side in this process."""
    threads: int | None
    """Processor threads of every job; None leaves it to torch. The same for any pool, as sums depend on it."""
    index: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls, workers: int, threads: int | None) -> WorkerPool:
        """The pool that torchrun's variables describe; without them, this process alone."""
        return cls(workers, threads, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def mine(self, jobs: Sequence[T]) -> list[T]:
        """This process's share: jobs are dealt in turns."""
        return list(jobs[self.index :: self.count])


def tool(name: str) -> list[str]:
    """The command from this environment, whether or not the environment is activated."""
    return [str(Path(sys.executable).with_name(name))]


def run_jobs(jobs: Sequence[Job], pool: WorkerPool, console: Console) -> None:
    """Runs this process's share of the jobs.

    Raises:
        RunError: a command failed; the others are stopped, and the message names its log.
    """
    with stages(console, [job.title for job in pool.mine(jobs)]) as report:
        stopped = threading.Event()

        def do(job: Job) -> None:
            if job.needs is not None:
                wait_for([job.needs], stopped)
            if not job.done():
                report(job.title, 0.0)
                start = time.perf_counter()
                run_command(
                    job.command,
                    job.log,
                    threads=pool.threads,
                    on_progress=partial(report, job.title),
                )
                if not job.result.exists():
                    raise RunError(f"{job.title} ended without an error and did not write {job.result}; see {job.log}")
                if job.record is not None:
                    seconds = time.perf_counter() - start
                    write_texts({job.record: json.dumps({"seconds": seconds})}, overwrite=True)
            report(job.title, 100.0)

        with ThreadPoolExecutor(max(1, pool.workers)) as executor:
            try:
                for done in as_completed([executor.submit(do, job) for job in pool.mine(jobs)]):
                    done.result()
            except BaseException:  # a job that failed, or Ctrl-C: the report will not come, so stop the others
                stopped.set()
                executor.shutdown(wait=False, cancel_futures=True)
                for process in list(_RUNNING):
                    process.terminate()
                raise


def wait_for(files: Sequence[Path], stopped: threading.Event | None = None) -> None:
    """Returns when all files are there; other processes, on other machines too, may be making them.

    Raises:
        RunError: `stopped` was set meanwhile.
    """
    while not all(file.exists() for file in files):
        if stopped is not None and stopped.wait(_LOOK_EVERY):
            raise RunError(f"{files[0]} will not come: another step failed")
        if stopped is None:
            time.sleep(_LOOK_EVERY)


def run_command(
    command: Sequence[str],
    log: Path,
    *,
    threads: int | None = None,
    on_progress: Callable[[float, str], None] = lambda percent, words: None,
) -> None:
    """Runs one command to its end.

    Raises:
        RunError: it failed; the message has its last line and names its log.
    """
    environment = {**os.environ, "COLUMNS": "160"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        environment.pop(name, None)  # a command is a process of its own, not one of torchrun's
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    process = subprocess.Popen(
        supervised(command, log.with_suffix(".lock"), log), stderr=subprocess.PIPE, text=True, env=environment
    )
    _RUNNING.add(process)
    try:
        with repeated(_READ_EVERY, partial(_report_progress, log, on_progress)):
            _, message = process.communicate()
    except BaseException:  # Ctrl-C: leave no process behind
        process.terminate()
        raise
    finally:
        _RUNNING.discard(process)
    code = process.returncode
    if code == LOCKED:
        raise RunError(f"{Path(command[0]).name}: {message.strip()}")
    if code != 0:
        lines = [line for line in log.read_text(encoding="utf8", errors="replace").splitlines() if line.strip()]
        raise RunError(f"{Path(command[0]).name} failed: {lines[-1].strip()[:300]} (all of its output: {log})")


def _report_progress(log: Path, on_progress: Callable[[float, str], None]) -> None:
    """Reports the last percentage in a growing log, or else its last line on a step."""
    text = log.read_text(encoding="utf8", errors="replace")[-4000:] if log.exists() else ""
    percents, steps = _PERCENT.findall(text), _STEP.findall(text)
    if percents:
        on_progress(float(percents[-1]), "")
    elif steps:
        on_progress(0.0, steps[-1])
