"""Commands in processes forked from this one, which has imported what they need: a try takes as long as its work."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

LONGEST = 120.0
"""Seconds that a command may take before it is ended."""


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    status: int
    """Its exit status; negative: the signal that ended it."""
    output: str
    errors: str

    @property
    def clear(self) -> bool:
        """Whether it was refused in one line, or in the box of the parser of command lines."""
        lines = self.errors.strip().splitlines()
        return (self.status == 1 and len(lines) >= 1 and lines[-1].startswith("error: ")) or self.status == 2

    @property
    def traceback(self) -> bool:
        """Whether a stack trace was printed, or a signal ended it."""
        return "Traceback (most recent call last)" in self.output + self.errors or self.status < 0


@cache
def warm() -> None:
    """Imports what commands import when they run."""
    import torch

    torch.set_num_threads(1)
    for name in ("eugen_nerf", "eugen_viewer"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if "fused" not in module.name and "gpu_day" not in module.name:  # triton's
                importlib.import_module(module.name)
    for name in ("nerfstudio.configs.method_configs", "nerfstudio.scripts.train", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)


def run(words: Sequence[object], folder: Path, *, warmed: bool = True) -> Ended:
    """Runs a command in a folder to its end.

    Args:
        words: as they are typed.
        folder: where it runs; its output is written beside it.
        warmed: whether this process imports what commands need, once; for a few commands it does not pay.
    """
    if warmed:
        warm()
    paths = [folder.with_name(f"{folder.name}.{what}") for what in ("output", "errors")]
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _become([str(word) for word in words], folder, paths)
    end = time.monotonic() + LONGEST
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    return Ended(os.waitstatus_to_exitcode(done[1]), *(path.read_text(errors="replace") for path in paths))


def _become(words: list[str], folder: Path, paths: Sequence[Path]) -> None:
    """In the child: the command, as a console script runs it; returns never."""
    status: object = 1
    try:
        os.setsid()
        for path, flags, target in (
            (Path(os.devnull), os.O_RDONLY, 0),
            (paths[0], os.O_WRONLY, 1),
            (paths[1], os.O_WRONLY, 2),
        ):
            os.dup2(os.open(path, flags | os.O_CREAT | os.O_TRUNC), target)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ["COLUMNS"] = "200"
        os.chdir(folder)
        (program,) = entry_points(group="console_scripts", name=words[0])
        sys.argv = words
        status = program.load()() or 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)
