"""ns-render and ns-viewer by the fast renderer; no other command of nerfstudio, nor where exact images are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils.eval_utils import eval_setup
from tiny_runs import render

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering import grid_rendering
from eugen_nerf.methods.runs import fast_rendering, nerfstudio_commands
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.loading import load_run, read_config
from eugen_nerf.methods.runs.nerfstudio_commands import EXACT, FastPipeline

RENDER, VIEW = ["/usr/bin/ns-render", "interpolate"], ["ns-viewer"]
LOOSE = partial(use_fast_renderer, quality=30.0)
"""Any renderer keeps within this."""


@pytest.fixture
def run_in_place(tiny_eugen_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """nerfstudio finds a run only where it was trained, so the renderer is written there, and removed."""
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.SURVEY", 8)
    monkeypatch.setattr(grid_rendering, "CELLS", 12)
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    monkeypatch.setattr(nerfstudio_commands, "use_fast_renderer", LOOSE)
    yield tiny_eugen_run
    tiny_eugen_run.with_name("renderer.safetensors").unlink(missing_ok=True)


def test_views_are_those_of_the_renderer_beside_the_run(run_in_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", RENDER)
    _, pipeline, checkpoint, _ = eval_setup(run_in_place, test_mode="inference")
    assert isinstance(pipeline, FastPipeline)
    assert isinstance(pipeline.model, GraphModel)
    assert pipeline.model.grid_renderer is not None
    assert run_in_place.with_name("renderer.safetensors").is_file()
    monkeypatch.setattr("sys.argv", ["eugen-view"])
    own = load_run(run_in_place, device="cpu")
    monkeypatch.setattr(fast_rendering, "choose_renderer", lambda *_: pytest.fail("it is stored already"))
    LOOSE(own)
    assert own.checkpoint.resolve() == checkpoint.resolve()
    camera = own.pipeline.datamanager.eval_dataset.cameras[:1]
    shown, expected = pipeline.model.get_outputs_for_camera(camera), render(own.model, own.pipeline)
    assert shown.keys() == expected.keys() == {"rgb", "depth", "accumulation"}
    for key, value in expected.items():
        assert torch.allclose(shown[key], value, atol=2e-3), key  # densities are kept as float16


@pytest.mark.parametrize(
    ("words", "fast"),
    [
        (RENDER, True),
        (VIEW, True),
        (["C:/Scripts/ns-render.exe"], True),
        ([*RENDER, "--rendered-output-names", "rgb", "raw-depth", "gt-rgb", "--output-path", "x"], True),
        ([*RENDER, "--rendered_output_names", "rgb", "rgb_coarse"], False),
        (["ns-eval"], False),
        (["ns-train"], False),
        (["ns-export"], False),
        (["eugen-view"], False),
    ],
)
def test_commands_that_train_or_score_stay_exact(
    words: list[str], fast: bool, tiny_eugen_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", words)
    config = read_config(tiny_eugen_run)
    config.get_checkpoint_dir()
    assert (config.pipeline._target is not VanillaPipeline) == fast
    exact = read_config(tiny_eugen_run)
    monkeypatch.setenv(EXACT, "1")
    exact.get_checkpoint_dir()
    assert exact.pipeline._target is VanillaPipeline


def test_a_run_without_a_fast_renderer_is_rendered_exactly_and_the_reason_is_printed(
    run_in_place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RunError("no training views here")

    monkeypatch.setattr("sys.argv", VIEW)
    monkeypatch.setattr(nerfstudio_commands, "use_fast_renderer", refuse)
    _, pipeline, _, _ = eval_setup(run_in_place, test_mode="inference")
    assert isinstance(pipeline.model, GraphModel)
    assert pipeline.model.grid_renderer is None
    assert "exact rendering: no training views here" in capsys.readouterr().out
