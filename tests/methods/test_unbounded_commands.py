"""The real commands on a run of each method in contracted space, on a set in nerfstudio's format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import command, needs_numpy_scalars, optimizer_steps, train_words, viewer_page
from PIL import Image
from tiny_runs import render

from eugen_nerf.methods.runs.checkpoints import read_latest_checkpoint
from eugen_nerf.methods.runs.loading import load_run

SHRINK: dict[str, object] = {
    "network.trunk-width": 16,
    "network.bottleneck-width": 12,
    "network.head-width": 16,
    "network.num-features": 6,
    "proposal.trunk-width": 16,
    "num-proposal-samples": (6, 5),
    "num-samples": 4,
}
OWN: dict[str, dict[str, object]] = {
    "eugen-mipnerf360-small": {"network.position-frequencies": 4, "proposal.position-frequencies": 3},
    "eugen-zipnerf-small": {
        "network.max-resolution": 64,
        "network.log2-table-size": 9,
        "proposal.log2-table-size": 9,
        "proposal-resolutions": (32, 64),
    },
}


def words_of(method: str, output: Path, timestamp: str) -> list[object]:
    return train_words(method, output, timestamp, {**SHRINK, **OWN[method]})


@pytest.fixture(scope="module", params=OWN)
def shell_run(
    request: pytest.FixtureRequest,
    tiny_nerfstudio: Path,
    tmp_path_factory: pytest.TempPathFactory,
    offline: dict[str, str],
) -> Path:
    """The config.yml of a run that ``ns-train`` made from the command line."""
    output, method = tmp_path_factory.mktemp("shell"), request.param
    command(offline, *words_of(method, output, "first"), "nerfstudio-data", "--data", tiny_nerfstudio)
    path = output / "shell" / method / "first" / "config.yml"
    assert path.is_file()
    assert not list(Path(offline["TORCH_HOME"]).iterdir()), "something was downloaded"
    return path


def test_ns_train_resumes(shell_run: Path, tiny_nerfstudio: Path, offline: dict[str, str]) -> None:
    method, output = shell_run.parts[-3], shell_run.parents[3]
    before = shell_run.parent / "nerfstudio_models"
    assert needs_numpy_scalars(next(before.iterdir())), "resuming would not prove that the plugin allows them"
    words = [*words_of(method, output, "second"), "--load-dir", before]
    command(offline, *words, "nerfstudio-data", "--data", tiny_nerfstudio)
    after = shell_run.parents[1] / "second" / "nerfstudio_models"
    assert [file.name for file in after.iterdir()] == ["step-000000003.ckpt"]
    first, second = (read_latest_checkpoint(folder)[1] for folder in (before, after))
    for group in ("fields", "proposal_networks"):
        assert [max(optimizer_steps(state, group)) for state in (first, second)] == [2, 4]
    keys = ["field.network.layers.density.weight"]
    keys += ["field.network.layers.trunk_1.weight"] if "mip" in method else ["field.encoder.grid.table"]
    for key in keys:
        change = (first["pipeline"][f"_model.{key}"] - second["pipeline"][f"_model.{key}"]).abs().max()
        assert 0 < change < 0.02, "two steps on from the old weights, not from random ones"


def test_ns_eval(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    command(offline, "ns-eval", "--load-config", shell_run, "--output-path", tmp_path / "eval.json")
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    run = load_run(shell_run, device="cpu")
    scores = []
    for view in range(3):
        truth = run.pipeline.datamanager.eval_dataset[view]["image"].double().numpy()
        images = (render(run.model, run.pipeline, view)["rgb"].double().numpy(), truth)
        a, b = (np.floor(image * 255 + 0.5) / 255 for image in images)
        scores.append(-10 * np.log10(((a - b) ** 2).mean()))
    assert results["psnr"] == pytest.approx(np.mean(scores), abs=1e-2)
    assert 0 < results["ssim"] < 1
    assert "lpips" not in results


def test_ns_render(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    words = ["ns-render", "interpolate", "--load-config", shell_run, "--output-path", tmp_path / "frames"]
    words += ["--output-format", "images", "--image-format", "png", "--interpolation-steps", 2]
    command(offline, *words, "--pose-source", "eval", "--rendered-output-names", "rgb", "depth", "prop_depth_1")
    images = sorted((tmp_path / "frames").glob("*.png"))
    assert len(images) == 4, "two frames between each of three views"
    for image in images:
        pixels = np.asarray(Image.open(image))
        assert pixels.shape == (11, 3 * 17, 3), "nerfstudio's paths put the principal point (8.5, 5.5) in the middle"
        assert pixels.std() > 0


def test_ns_viewer_answers(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    assert b"<html" in viewer_page(shell_run, offline, tmp_path).lower(), (tmp_path / "errors").read_text()[-3000:]
