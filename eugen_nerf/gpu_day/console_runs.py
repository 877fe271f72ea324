"""Part "commands": nerfstudio's own commands as a user types them, and this project's on what they trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from eugen_nerf.gpu_day.day import ROOT, Day
from eugen_nerf.gpu_day.rows import RowLog
from eugen_nerf.gpu_day.sessions import plugin_variables

PRESET = "eugen-nerf-small"
STEPS = 1000
"""Iterations of training."""
TINY = {
    "pipeline.datamanager.train-num-rays-per-batch": "16",
    "pipeline.model.num-coarse-samples": "6",
    "pipeline.model.num-importance-samples": "6",
    "pipeline.model.network.trunk-width": "16",
    "pipeline.model.network.num-features": "6",
}
"""Settings of a dry run."""


def run_commands(day: Day, log: RowLog) -> None:
    """Training of a small preset on lego, evaluation by nerfstudio and by this project."""
    output = day.work / "commands"
    config = output / "day" / PRESET / "day" / "config.yml"
    train = ["nerfstudio.scripts.train", PRESET, "--vis", "tensorboard", "--output-dir", str(output)]
    train += ["--experiment-name", "day", "--timestamp", "day", "--machine.device-type", day.device]
    train += ["--max-num-iterations", "2" if day.tiny else str(STEPS)]
    for name, value in TINY.items() if day.tiny else ():
        train += [f"--{name}", value]
    train += ["blender-data", "--data", str(day.data / "lego")]
    log.measure("ns-train", partial(_run, day, log, train))
    scores = output / "ns-eval.json"
    words = ["nerfstudio.scripts.eval", "--load-config", str(config), "--output-path", str(scores)]
    log.measure("ns-eval", lambda: _run(day, log, words) | {"results": json.loads(scores.read_text())["results"]})
    report = output / "eugen-eval"
    words = ["eugen_nerf.cli.eval", "--load-config", str(config), "--output", str(report), "--device", day.device]
    log.measure("eugen-eval", lambda: _run(day, log, words))


def _run(day: Day, log: RowLog, words: list[str]) -> dict[str, Any]:
    """Seconds of a module run as a command.

    Raises:
        RuntimeError: it failed; with the last lines that it printed.
    """
    environment = {**os.environ, **plugin_variables(), "COLUMNS": "200"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=max(1.0, log.left),
        check=False,
    )
    (day.work / "logs").mkdir(parents=True, exist_ok=True)
    (day.work / "logs" / f"{Path(words[0]).name}.txt").write_text(done.stdout + done.stderr, encoding="utf8")
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise RuntimeError("\n".join([f"status {done.returncode}: {' '.join(words)}", *lines[-4:]]))
    return {"seconds": time.monotonic() - began}
