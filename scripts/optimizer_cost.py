#!/usr/bin/env python
"""What Adam and Muon take of a training step of `eugen-nerf-small`, dense and EUGen, in turns in one process: processor
time of one thread, which other programs beside it disturb least.

python scripts/optimizer_cost.py --output docs/results/data/optimizer_cost_cpu.json
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig
from torch.optim import Optimizer

from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.data.synthetic.static_scene import SceneConfig, generate_scene
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.methods.presets.static import eugen_nerf_small

VARIANTS = {"dense": ("dense", False), "EUGen, merged": ("eugen", True), "EUGen, two factors": ("eugen", False)}
ALGORITHMS = ("adam", "muon")


def step_of(data: Path, variant: str, merged: bool) -> tuple[Any, dict[str, Optimizer]]:
    """Forward and backward pass of the preset on a data set, and an optimizer of every kind of the same parameters."""
    config = deepcopy(eugen_nerf_small.config)
    assert isinstance(config, TrainerConfig)
    config.pipeline.datamanager.data = data
    config.pipeline.model.variant = variant
    config.pipeline.model.network.train_merged = merged
    pipeline = config.pipeline.setup(device="cpu")
    pipeline.train()
    attributes = TrainingCallbackAttributes(optimizers=None, grad_scaler=None, pipeline=pipeline, trainer=None)
    for callback in pipeline.get_training_callbacks(attributes):
        callback.run_callback_at_location(0, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    parameters = pipeline.get_param_groups()["fields"]
    settings = config.optimizers["fields"]["optimizer"]
    optimizers = {}
    for algorithm in ALGORITHMS:
        settings.algorithm = algorithm
        optimizers[algorithm] = settings.setup(params=parameters)

    def passes() -> None:
        for parameter in parameters:
            parameter.grad = None
        _, losses, _ = pipeline.get_train_loss_dict(0)
        sum(losses.values()).backward()

    return passes, optimizers


def main() -> None:
    """Times the parts, prints and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        data = generate_scene(Path(folder) / "scene", SceneConfig(resolution=64, num_train=60, num_val=1, num_test=1))
        steps = {name: step_of(data, *variant) for name, variant in VARIANTS.items()}
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(arguments.rounds + 2):
            for name, (passes, optimizers) in steps.items():
                parts = {"passes": passes, **{kind: optimizer.step for kind, optimizer in optimizers.items()}}
                for part, do in parts.items():
                    start = time.process_time()
                    do()
                    seconds.setdefault((name, part), []).append(time.process_time() - start)
    rows = []
    for name in VARIANTS:
        passes_ms = 1e3 * median(seconds[name, "passes"][2:])
        row: dict[str, Any] = {"network": name, "passes_ms": passes_ms}
        for kind in ALGORITHMS:
            own = 1e3 * median(seconds[name, kind][2:])
            row |= {f"{kind}_ms": own, f"{kind}_share": own / (passes_ms + own)}
        rows.append(row)
        print(", ".join(f"{key} {value:.3f}" if isinstance(value, float) else str(value) for key, value in row.items()))
    bfloat16 = has_fast_bfloat16(torch.device("cpu"))
    content = {"environment": environment("cpu", ["float32"]), "bfloat16_products": bfloat16, "rows": rows}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
