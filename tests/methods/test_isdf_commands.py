"""The real commands on a depth stream: killed in mid-sequence, resumed, evaluated; and a run converted."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from commands import Running, command
from tiny_rgbd import isdf_trainer, write_sequence

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.methods.runs.checkpoints import checkpoint_files, read_latest_checkpoint
from eugen_nerf.methods.runs.loading import load_run

ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)


def words(output: Path, timestamp: str, steps: int, *more: object) -> list[str]:
    given = ["ns-train", "eugen-isdf-small", "--vis", "tensorboard", "--machine.device-type", "cpu"]
    given += ["--output-dir", output, "--experiment-name", "shell", "--timestamp", timestamp]
    given += ["--max-num-iterations", steps, "--seconds-per-save", 0.2, "--pipeline.datamanager.frame-rate", 10]
    given += ["--pipeline.datamanager.steps-per-frame", 50, "--pipeline.datamanager.train-num-rays-per-batch", 20]
    given += ["--pipeline.model.network.trunk-width", 16, "--pipeline.model.network.num-features", 6, *more]
    return [str(word) for word in given]


def test_killed_resumed_and_evaluated(tmp_path: Path, offline: dict[str, str]) -> None:
    data = write_sequence(tmp_path / "room", ANGLES)
    killed = tmp_path / "shell" / "eugen-isdf-small" / "killed" / "nerfstudio_models"
    given = [*words(tmp_path, "killed", 100_000), "eugen-rgbd", "--data", data]
    running = Running(offline, given, tmp_path)
    deadline = time.monotonic() + 200
    while len(checkpoint_files(killed)) < 2 and not running.ended(0.05) and time.monotonic() < deadline:
        pass
    running.kill()
    running.finish()
    path, state = read_latest_checkpoint(killed)
    before = state["pipeline"]["datamanager._extra_state"]["memory"]
    assert before["keyframes"]

    more = ["--load-dir", killed, "eugen-rgbd", "--data", data]
    done = command(offline, *words(tmp_path, "resumed", 3, *more))
    assert str(path.name) in "".join(done.stdout.split())
    config = tmp_path / "shell" / "eugen-isdf-small" / "resumed" / "config.yml"
    _, after = read_latest_checkpoint(config.parent / "nerfstudio_models")
    assert after["step"] == state["step"] + 3
    resumed = after["pipeline"]["datamanager._extra_state"]["memory"]
    assert resumed["keyframes"][: len(before["keyframes"])] == before["keyframes"]

    report = tmp_path / "metrics.json"
    command(offline, "ns-eval", "--load-config", config, "--output-path", report)
    results = json.loads(report.read_text())["results"]
    assert {"depth_l1_cm", "depth_within_5cm", "depth_missed"} <= set(results)


def test_a_dense_run_is_converted(tmp_path: Path) -> None:
    """Inputs of the network near surfaces are enough for the closed form; the result is a run like any other."""

    def change(config: object) -> None:
        config.pipeline.datamanager.train_num_rays_per_batch = 40  # type: ignore[attr-defined]
        config.pipeline.model.network.trunk_width = 24  # type: ignore[attr-defined]
        config.pipeline.model.network.num_features = (20,)  # type: ignore[attr-defined]

    data = write_sequence(tmp_path / "room", ANGLES)
    trainer = isdf_trainer(data, tmp_path, iterations=60, variant="dense", change=change)
    trainer.train()
    run = load_run(trainer.config.get_base_dir() / "config.yml", device="cpu")
    config = DistillConfig(
        conversion=ConversionConfig(recipe="rows"), ray_fraction=1.0, max_rays=800, experiment_name="converted"
    )
    settings, student, reports = convert_run(run, config)
    assert [layer.name for layer in reports[0].layers] == ["trunk_1", "trunk_2"]
    path = write_run(settings, student, run.step, reports)
    loaded = load_run(path, device="cpu")
    assert loaded.config.pipeline.model.variant == "eugen"  # type: ignore[attr-defined]
    camera = loaded.pipeline.datamanager.eval_dataset.cameras[:1]
    depth = [r.model.get_outputs_for_camera(camera)["depth"] for r in (run, loaded)]
    assert (depth[0] - depth[1]).abs().median() < 0.2
