"""A suite of real trainings: its table is the same with two workers, and after a kill half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from eugen_nerf.cli.support.runner import tool

pytestmark = pytest.mark.long

SCORES = ("variant", "psnr", "ssim", "predictions_sha256", "parameters", "macs_per_query", "step")


def write(folder: Path, data: Path) -> Path:
    """A suite of two trainings of two steps, in a folder of its own."""
    folder.mkdir()
    suite = {
        "name": "tiny",
        "output": str(folder / "out"),
        "method": "eugen-nerf-small",
        "data": str(data),
        "train": [
            "--machine.device-type=cpu",
            "--max-num-iterations=2",
            "--pipeline.datamanager.train-num-rays-per-batch=16",
            "--pipeline.model.num-coarse-samples=4",
            "--pipeline.model.num-importance-samples=4",
            "--pipeline.model.network.trunk-width=16",
            "--pipeline.model.network.head-width=16",
        ],
        "runs": {"dense": ["--pipeline.model.variant=dense"], "eugen": ["--pipeline.model.network.num-features=8"]},
        "evaluate": ["--device", "cpu", "--views", "1", "--repeats", "1", "--no-save-images", "--queries", "64"],
    }
    path = folder / "suite.yml"
    path.write_text(yaml.safe_dump(suite))
    return path


def scores(suite: Path) -> tuple[list[dict[str, Any]], str]:
    report = json.loads((suite.parent / "out/report/report.json").read_text())
    rows = [{key: row.get(key) for key in SCORES} for row in report["rows"]]
    return rows, report["protocol"]["ground_truth_sha256"]


def test_two_workers_and_a_kill_change_nothing(tiny_blender: Path, tmp_path: Path) -> None:
    together, killed = write(tmp_path / "together", tiny_blender), write(tmp_path / "killed", tiny_blender)
    done = subprocess.run([*tool("eugen-bench"), str(together), "--workers", "2"], check=True, capture_output=True)
    last = done.stdout.decode().strip().splitlines()[-1]
    assert last.startswith("look at the result: "), last
    command, *words = last.removeprefix("look at the result:").split()
    assert Path(command).name == "eugen-view"
    assert words[0] == "--load-config"
    assert all(Path(path).exists() for path in words[1:3])
    assert words[3:] == ["--names", "dense", "eugen"]

    again = [*tool("eugen-bench"), str(killed), "--workers", "1"]
    first = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    one = killed.parent / "out/runs/dense/eugen-nerf-small/run/training.json"
    while first.poll() is None and not one.exists():
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert one.exists()
    assert not (killed.parent / "out/report").exists()
    finished = one.stat().st_mtime_ns
    subprocess.run(again, check=True, capture_output=True)
    assert one.stat().st_mtime_ns == finished, "what was finished is not done again"
    assert scores(killed) == scores(together)
    assert len({row["predictions_sha256"] for row in scores(killed)[0]}) == len(scores(killed)[0])
