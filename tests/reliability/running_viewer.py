"""eugen-view in a process of its own, on a small run, and what it takes of the machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eugen_viewer.server.address import choose_port

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
START_PATIENCE = 600.0
"""Seconds for a viewer to start, on a machine with other work."""
END_PATIENCE = 60.0
"""Seconds for a viewer to end."""


def copy_run(folder: Path) -> Path:
    """Copies a small run, which a viewer may write beside, with its data; returns its configuration.

    Args:
        folder: has to be the working directory of whatever opens the run.
    """
    for part in ("data/scene", "runs/nerf-dense"):
        shutil.copytree(GOLDEN / part, folder / part)
    (config,) = folder.glob("runs/nerf-dense/**/config.yml")
    return config


@dataclass(frozen=True)
class RunningViewer:
    """A viewer that serves."""

    port: int
    pid: int
    log: Path

    def said(self) -> str:
        """All that it has written to the terminal."""
        return self.log.read_text(encoding="utf8", errors="replace")

    def threads(self) -> int:
        """Number of its threads."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir())

    def megabytes(self) -> int:
        """Its memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf8")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


@contextlib.contextmanager
def running_viewer(folder: Path) -> Iterator[RunningViewer]:
    """Starts a viewer of images of 32 pixels, and ends it."""
    config, log = copy_run(folder), folder / "log"
    port, _ = choose_port("127.0.0.1", None)
    words = ["--load-config", str(config), "--port", str(port), "--max-size", "32", "--output", str(folder / "out")]
    with log.open("w") as file:
        command = [sys.executable, "-m", "eugen_nerf.cli.view", *words, "--device", "cpu"]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    viewer = RunningViewer(port, process.pid, log)
    end = time.monotonic() + START_PATIENCE
    try:
        while "Ctrl-C" not in viewer.said():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the viewer did not start: {viewer.said()[-2000:]}")
            time.sleep(0.3)
        yield viewer
    finally:
        process.terminate()
        try:
            process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            print(f"the viewer did not end within {END_PATIENCE:g} s of SIGTERM", flush=True)
