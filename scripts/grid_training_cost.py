#!/usr/bin/env python
"""Training steps with hash grids by PyTorch's operations and by compiled loops, in turns in one process.

python scripts/grid_training_cost.py --runs RUN/config.yml ... --names Zip-NeRF ... \
    --output docs/results/data/grid_training_cpu.json

Steps are those of the runs' own configurations from their start, on their data; one thread, processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from eugen_nerf.core.encodings import frustum_points, hash_grid
from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.core.timing import speed_ratios
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.methods.runs.loading import read_config

WARMUP = 4
"""Steps of each kind before those that count."""


@contextmanager
def by_pytorch() -> Iterator[None]:
    """Within it grids are interpolated, and multisamples placed, by PyTorch's operations."""
    with (
        mock.patch.object(hash_grid, "can_pool", return_value=False),
        mock.patch.object(frustum_points, "can_place", return_value=False),
    ):
        yield


def measure(path: Path, name: str, rounds: int) -> dict[str, Any]:
    """A row of the table."""
    config = read_config(path)
    config.load_dir, config.vis, config.machine.device_type = None, "tensorboard", "cpu"
    with TemporaryDirectory() as folder:
        config.output_dir = Path(folder)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        trainer.pipeline.train()
        seconds: dict[str, list[float]] = {"PyTorch": [], "compiled": []}
        for step in range(rounds + WARMUP):
            for kind, taken in seconds.items():
                start = time.process_time()
                if kind == "compiled":
                    trainer.train_iteration(step)
                else:
                    with by_pytorch():
                        trainer.train_iteration(step)
                taken.append(time.process_time() - start)
    counted = {kind: taken[WARMUP:] for kind, taken in seconds.items()}
    ratio = speed_ratios(counted, "PyTorch")["compiled"]
    return {
        "run": name,
        "ms a step, grids by PyTorch": f"{1e3 * median(counted['PyTorch']):.0f}",
        "compiled": f"{1e3 * median(counted['compiled']):.0f}",
        "x": f"{ratio.median:.2f} ({ratio.lower_quartile:.2f} to {ratio.upper_quartile:.2f})",
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(path, name, arguments.rounds) for path, name in zip(arguments.runs, arguments.names, strict=True)]
    for row in rows:
        print(" | ".join(row.values()))
    bfloat16 = has_fast_bfloat16(torch.device("cpu"))
    content = {"steps": {"rows": rows}, "environment": environment("cpu", ["float32"]), "bfloat16_products": bfloat16}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
