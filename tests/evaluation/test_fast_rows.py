"""Runs by their fast renderers beside themselves: the same run, other pictures, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_reduced import QUICK

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.compare import evaluate
from eugen_nerf.evaluation.costs import fast_rows
from eugen_nerf.evaluation.costs.fast_rows import check_fast
from eugen_nerf.methods.runs.fast_rendering import RendererChoice, use_fast_renderer
from eugen_nerf.methods.runs.loading import Run


@pytest.fixture
def config(tiny_eugen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of its own to write beside, with grids of few cells."""
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.SURVEY", 8)
    monkeypatch.setattr("eugen_nerf.methods.rendering.grid_rendering.CELLS", 12)
    shutil.copytree(tiny_eugen_run.parent, tmp_path / "run")
    return tmp_path / "run" / "config.yml"


def test_a_run_has_a_row_more(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_rows, "use_fast_renderer", lambda run: use_fast_renderer(run, quality=30.0))
    found = evaluate([config], names=["a"], timing=QUICK, device="cpu", fast=("a",))
    exact, fast = found.rows[:2]
    assert (exact["variant"], fast["variant"]) == ("a", "a fast")
    assert exact["predictions_sha256"] != fast["predictions_sha256"]
    assert {row["checkpoint"] for row in (exact, fast)} == {exact["checkpoint"]}
    assert (exact["image_speed_ratio"], fast["image_speed_ratio"] is not None) == (1.0, True)
    assert any(note.startswith("a fast: rendered by a grid: ") for note in found.notes)


def test_a_renderer_that_loses_too_much_is_no_row(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exact(run: Run) -> RendererChoice:
        return RendererChoice(0.0, 1.5, 30.0, 0.0)

    monkeypatch.setattr(fast_rows, "use_fast_renderer", exact)
    found = evaluate([config], names=["a"], timing=QUICK, device="cpu", fast=("a",))
    assert [row["variant"] for row in found.rows] == ["a", "mean-image", "white"]
    assert any("would lose 1.50 dB" in note for note in found.notes)


def test_runs_without_one_are_refused(tiny_stock_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.methods.runs.stock_runs.graph_copy", lambda model: None)
    with pytest.raises(ConfigError, match="--fast takes runs with a fast renderer"):
        evaluate([tiny_stock_run], names=["stock"], timing=QUICK, device="cpu", fast=("stock",))


@pytest.mark.parametrize("chosen", [["c"], ["a", "a"], ["a fast"]])
def test_names_of_no_run_are_refused(chosen: list[str]) -> None:
    with pytest.raises(ConfigError, match="runs are a, b"):
        check_fast(chosen, ["a", "b"])
