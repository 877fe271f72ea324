"""Stock runs by the fast renderer: a copy takes the model's place, renders equally, and goes again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from nerfstudio.models.vanilla_nerf import NeRFModel as StockModel
from tiny_runs import render

from eugen_nerf.conversion.teachers.graph_runs import graph_model
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.nerf import EugenNerfModel
from eugen_nerf.methods.rendering import grid_rendering
from eugen_nerf.methods.rendering.planning import plans_of
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.fast_rendering import RendererChoice, use_fast_renderer
from eugen_nerf.methods.runs.loading import load_run
from eugen_nerf.methods.runs.stock_runs import model_of_graphs, restore_stock

LOOSE = 30.0
"""dB that any renderer keeps within."""


@pytest.fixture
def config(tiny_stock_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stock run to write beside, with grids of few cells."""
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.SURVEY", 8)
    monkeypatch.setattr(grid_rendering, "CELLS", 16)
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    shutil.copytree(tiny_stock_run.parent, tmp_path / "run")
    return tmp_path / "run" / "config.yml"


def test_a_copy_renders_as_the_stock_model_does(config: Path) -> None:
    run = load_run(config, device="cpu")
    stock, expected = run.model, render(run.model, run.pipeline)
    copied = model_of_graphs(run)
    assert isinstance(copied, EugenNerfModel)
    assert run.model is copied
    assert run.stock is run.trained_model is stock
    assert model_of_graphs(run) is copied, "there is one copy"
    found = render(run.model, run.pipeline)
    for key in ("rgb", "accumulation", "depth"):
        torch.testing.assert_close(found[key], expected[f"{key}_fine"], rtol=1e-5, atol=1e-5)
    restore_stock(run)
    assert run.model is stock
    assert run.stock is None


def test_a_stock_run_is_rendered_fast_and_its_renderer_kept(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(config, device="cpu")
    exact = render(run.model, run.pipeline)["rgb_fine"]
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert choice.rate
    assert isinstance(run.model, GraphModel)
    assert run.model.grid_renderer is not None
    assert set(plans_of(run.model)) == {"coarse", "fine"}
    fast = render(run.model, run.pipeline)["rgb"]
    assert float((fast - exact).square().mean()) < 1e-3, "30 dB"
    monkeypatch.setattr(fast_rendering, "choose_renderer", None)  # what is kept is taken, without a choice
    again = load_run(config, device="cpu")
    assert use_fast_renderer(again, quality=LOOSE) == choice
    torch.testing.assert_close(render(again.model, again.pipeline)["rgb"], fast, rtol=0, atol=1e-2)


def test_a_renderer_of_other_weights_is_chosen_anew(config: Path) -> None:
    use_fast_renderer(load_run(config, device="cpu"), quality=LOOSE)
    kept = config.with_name("renderer.safetensors")
    before = kept.stat().st_mtime_ns
    checkpoint = next(config.parent.glob("nerfstudio_models/*.ckpt"))
    checkpoint.touch()
    use_fast_renderer(load_run(config, device="cpu"), quality=LOOSE)
    assert kept.stat().st_mtime_ns != before


def test_where_too_much_would_be_lost_the_stock_model_renders(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run(config, device="cpu")
    stock = run.model
    renderer = fast_rendering.choose_renderer

    def losing(*arguments: object) -> tuple[object, RendererChoice]:
        return renderer(*arguments)[0], RendererChoice(0.0, 1.5, 30.0, 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(fast_rendering, "choose_renderer", losing)
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert not choice.rate
    assert run.model is stock


def test_a_run_that_renders_fast_is_still_converted_as_what_it_was_trained_as(config: Path) -> None:
    run = load_run(config, device="cpu")
    use_fast_renderer(run, quality=LOOSE)
    trainer, teacher = graph_model(run)
    assert isinstance(run.trained_model, StockModel)
    assert teacher is not run.model, "a copy of its own"
    assert trainer.method_name == "eugen-nerf"
    assert run.config.method_name == "vanilla-nerf"


def test_methods_without_a_copy_are_left_alone(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.methods.stock.graph_copies.is_stock_nerf", lambda model: False)
    run = load_run(config, device="cpu")
    stock = run.model
    assert use_fast_renderer(run) is None
    assert run.model is stock
    assert not config.with_name("renderer.safetensors").exists()
