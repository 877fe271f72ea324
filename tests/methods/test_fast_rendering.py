"""The renderer of a run: chosen on its photographs, kept beside its checkpoints, not used where none is wanted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_runs import render

from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering import grid_rendering, stored_renderer
from eugen_nerf.methods.rendering.grid_rendering import rays_of
from eugen_nerf.methods.rendering.planning import plans_of
from eugen_nerf.methods.rendering.stored_renderer import load_renderer, save_renderer
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.fast_rendering import RendererChoice, use_fast_renderer
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.training_rays import Photographs

LOOSE = 30.0
"""dB that any renderer keeps within."""


@pytest.fixture
def config(tiny_eugen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of its own to write beside, with grids of few cells."""
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.SURVEY", 8)
    monkeypatch.setattr(grid_rendering, "CELLS", 12)
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    folder = tmp_path / "run"
    # other tests may have rendered the shared run before
    shutil.copytree(tiny_eugen_run.parent, folder, ignore=shutil.ignore_patterns("renderer.safetensors"))
    return folder / "config.yml"


def model_of(run: Run) -> GraphModel:
    assert isinstance(run.model, GraphModel)
    return run.model


def image(run: Run) -> torch.Tensor:
    return render(run.model, run.pipeline)["rgb"]


def test_a_run_renders_by_its_own_samplers_until_it_is_told(config: Path) -> None:
    run = load_run(config, device="cpu")
    assert model_of(run).grid_renderer is None
    exact = render(run.model, run.pipeline)
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert model_of(run).grid_renderer is not None
    fast = render(run.model, run.pipeline)
    assert set(fast) == {"rgb", "depth", "accumulation"}
    assert {key: value.shape for key, value in fast.items()} == {key: exact[key].shape for key in fast}
    assert not torch.equal(fast["rgb"], exact["rgb"])


def test_training_and_gradients_go_by_the_samplers_of_training(config: Path) -> None:
    run = load_run(config, device="cpu")
    use_fast_renderer(run, quality=LOOSE)
    model = model_of(run)
    model.render_by(None)
    camera = run.pipeline.datamanager.eval_dataset.cameras[:1]
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True)[:2, :2].flatten()
    without = model.eval()(bundle)["rgb"]
    use_fast_renderer(run, quality=LOOSE)
    differentiable = model(bundle)["rgb"]
    assert differentiable.requires_grad
    assert torch.allclose(without, differentiable)
    with torch.no_grad():
        assert "rgb_coarse" in model.train()(bundle)


def test_what_is_stored_is_used_again_and_gives_the_same_picture(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_run(config, device="cpu")
    choice = use_fast_renderer(first, quality=LOOSE)
    picture = image(first)

    def never(*_: object, **__: object) -> Any:
        raise AssertionError("the renderer was built although it is stored")

    monkeypatch.setattr(fast_rendering, "choose_renderer", never)
    second = load_run(config, device="cpu")
    assert use_fast_renderer(second, quality=LOOSE) == choice
    assert torch.allclose(image(second), picture, atol=2e-3)  # densities are kept as float16
    with pytest.raises(AssertionError, match="was built"):
        use_fast_renderer(second, quality=LOOSE / 2)
    os.utime(first.checkpoint, ns=(1, 1))  # as a checkpoint that was written later
    with pytest.raises(AssertionError, match="was built"):
        use_fast_renderer(second, quality=LOOSE)


def plan_dtypes(run: Run) -> set[str]:
    return {plan.dtype for plan in plans_of(model_of(run)).values()}


def test_networks_run_by_the_plans_of_the_machine(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored on another kind of machine is not taken for this one's."""
    first = load_run(config, device="cpu")
    choice = use_fast_renderer(first, quality=LOOSE)
    assert choice is not None
    assert (choice.backend, choice.dtype, choice.device) == ("eager", "float32", "cpu")
    assert plan_dtypes(first) == {"float32"}
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "bfloat16"))
    second = load_run(config, device="cpu")
    other = use_fast_renderer(second, quality=LOOSE)
    assert other is not None
    assert other.dtype == "bfloat16"
    assert plan_dtypes(second) == {"bfloat16"}
    rounded, exact = image(second), image(first)
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, atol=0.05)
    third = load_run(config, device="cpu")
    assert use_fast_renderer(third, quality=LOOSE) == other
    assert torch.allclose(image(third), rounded, atol=0.05)


def test_a_dtype_that_loses_too_much_is_not_used(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is measured with the plans in force: of the two, float32 is left."""
    measured = Photographs.squared_error
    dtypes = list[set[str]]()

    def worse_in_bfloat16(self: Photographs, model: GraphModel) -> float:
        dtypes.append({plan.dtype for plan in plans_of(model).values()})
        return measured(self, model) * (1e4 if dtypes[-1] == {"bfloat16"} else 1)

    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "bfloat16"))
    monkeypatch.setattr(Photographs, "squared_error", worse_in_bfloat16)
    run = load_run(config, device="cpu")
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert dtypes == [set(), *[{"bfloat16"}] * len(grid_rendering.RATES), {"float32"}]
    assert choice.dtype == "float32"
    assert plan_dtypes(run) == {"float32"}


def test_a_renderer_of_a_former_version_is_built_again(config: Path) -> None:
    """Its file says nothing of plans: neither their dtype nor what they lose."""
    run = load_run(config, device="cpu")
    use_fast_renderer(run, quality=LOOSE)
    renderer, path = model_of(run).grid_renderer, config.parent / "renderer.safetensors"
    assert renderer is not None
    former = {"rate": 6.0, "lost": 0.0, "exact_psnr": 9.0, "queries": 9.0, "seconds": 1.0}
    source = fast_rendering._identity(run.checkpoint)
    save_renderer(path, renderer, {"source": source, "quality": LOOSE, "choice": former})
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert choice.rate == grid_rendering.RATES[0]
    stored = load_renderer(path, "cpu")
    assert stored is not None
    assert stored[1]["plan"] == ["eager", "float32"]


@pytest.mark.parametrize("choice", [None, [], {"rate": "x"}, {"rate": 1.0, "code": 2.0}, {"dtype": "int8"}])
def test_a_stored_choice_that_is_none_is_made_again(config: Path, choice: object) -> None:
    run = load_run(config, device="cpu")
    made = use_fast_renderer(run, quality=LOOSE)
    renderer = model_of(run).grid_renderer
    assert made is not None
    assert renderer is not None
    path, source = config.parent / "renderer.safetensors", fast_rendering._identity(run.checkpoint)
    if isinstance(choice, dict) and "dtype" in choice:
        choice = {**asdict(made), **choice}
    save_renderer(path, renderer, {"source": source, "quality": LOOSE, "plan": ["eager", "float32"], "choice": choice})
    again = use_fast_renderer(run, quality=LOOSE)
    assert again is not None
    assert (again.rate, again.lost, again.dtype) == (made.rate, pytest.approx(made.lost), "float32")


def test_what_loses_too_much_is_not_used(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that has nothing in it: all is lost, the exact picture stays, and that is remembered."""
    empty = DensityGrid(torch.zeros(3), 0.1, torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.bool))
    monkeypatch.setattr(grid_rendering, "grid_along_rays", lambda *_, **__: empty)
    run = load_run(config, device="cpu")
    exact = image(run)
    choice = use_fast_renderer(run, quality=1e-3)
    assert choice is not None
    assert choice.rate == 0
    assert choice.lost > 1e-3
    assert "exact rendering: the renderer by a grid would lose" in str(choice)
    assert torch.equal(image(run), exact)
    assert plan_dtypes(run) == set()
    again = load_run(config, device="cpu")
    assert use_fast_renderer(again, quality=1e-3) == choice
    assert model_of(again).grid_renderer is None


def test_a_run_that_cannot_be_written_beside_is_rendered_all_the_same(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:  # safetensors has no OSError for a full disk
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(stored_renderer, "save_file", full)
    run, said = load_run(config, device="cpu"), list[str]()
    assert use_fast_renderer(run, quality=LOOSE, progress=said.append) is not None
    assert model_of(run).grid_renderer is not None
    assert any("could not be stored" in line for line in said)
    assert not [*run.path.parent.glob("*renderer*")]


def some_renderer() -> GridRenderer:
    occupied = torch.rand(2, 3, 4, 5) < 0.5
    return GridRenderer(DensityGrid(torch.tensor([1.0, 2.0, 3.0]), 0.25, torch.rand(2, 3, 4, 5), occupied), rate=1.5)


def test_a_stored_renderer_is_read_as_it_was(tmp_path: Path) -> None:
    renderer = some_renderer()
    save_renderer(tmp_path / "r.safetensors", renderer, {"a": [1, "b"]})
    read = load_renderer(tmp_path / "r.safetensors", "cpu")
    assert read is not None
    assert read[1] == {"a": [1, "b"]}
    assert isinstance(read[0], GridRenderer)
    assert (read[0].rate, read[0].early_stop, read[0].min_weight) == (1.5, renderer.early_stop, renderer.min_weight)
    assert torch.equal(read[0].grid.low, renderer.grid.low)
    assert torch.equal(read[0].grid.occupied, renderer.grid.occupied)
    assert torch.allclose(read[0].grid.density, renderer.grid.density, atol=1e-3)
    assert read[0].grid.cell == 0.25


@pytest.mark.parametrize(
    "damage",
    [
        {"low": torch.zeros(2)},
        {"low": torch.full((3,), float("nan"))},
        {"density": torch.zeros(2, 3, 4)},
        {"density": torch.full((2, 3, 4, 5), -1.0)},
        {"density": torch.full((2, 3, 4, 5), float("nan"))},
        {"density": torch.full((2, 3, 4, 5), float("inf"))},
        {"occupied": torch.zeros(2, 3, 4, 6)},
    ],
)
def test_a_stored_renderer_that_makes_no_sense_is_built_again(tmp_path: Path, damage: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "r.safetensors"
    save_renderer(path, some_renderer(), {})
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), **damage}, path, metadata=metadata)
    assert load_renderer(path, "cpu") is None


@pytest.mark.parametrize("change", [("rate", "-1"), ("rate", "NaN"), ("cell", "0"), ("cell", "[]"), ("format", None)])
def test_settings_that_make_no_sense_are_built_again(tmp_path: Path, change: tuple[str, str | None]) -> None:
    import json

    path = tmp_path / "r.safetensors"
    save_renderer(path, some_renderer(), {})
    key, value = change
    settings = {"cell": 0.25, "rate": 2.0, "early_stop": 1e-4, "min_weight": 1e-3}
    written = json.dumps(settings)
    if value is not None:
        written = written.replace(json.dumps({key: settings[key]})[1:-1], f'"{key}": {value}')
    form = "eugen renderer 1" if key != "format" else "eugen renderer 0"
    save_file(load_file(path), path, metadata={"format": form, "settings": written, "measured": "{}"})
    assert load_renderer(path, "cpu") is None
    path.write_bytes(path.read_bytes()[:100])
    assert load_renderer(path, "cpu") is None
    assert load_renderer(tmp_path / "absent", "cpu") is None


def test_lines_say_what_was_chosen() -> None:
    assert str(RendererChoice(2.0, 0.031, 30.0, 8.42, 1.0, "bfloat16", "eager", "cpu")) == (
        "rendered by a grid: 8.4 queries a ray, eager plans in bfloat16 on cpu, loses 0.03 dB on training photographs"
    )
    assert "loses nothing" in str(RendererChoice(2.0, -0.2, 30.0, 8.42))


def test_moving_runs_are_rendered_at_their_times(
    train_tiny_dnerf: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture depends on the time, and each sample is displaced once."""
    for name, value in {"MOVING_CELLS": 8, "MOVING_SLICES": 3}.items():
        monkeypatch.setattr(grid_rendering, name, value)
    monkeypatch.setattr("eugen_nerf.core.marching.density_grid.MOVING_SURVEY", 6)
    run = load_run(train_tiny_dnerf()[0], device="cpu")
    model, calls = model_of(run), []
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert model.grid_renderer is not None
    assert model.grid_renderer.grid.density.shape[0] == 3
    offsets = model.graph_fields()["deformation"].offsets  # type: ignore[attr-defined]

    def counted(samples: Any, mode: Any) -> torch.Tensor:
        calls.append(len(samples))
        return offsets(samples, mode)

    monkeypatch.setattr(model.graph_fields()["deformation"], "offsets", counted)
    camera = run.pipeline.datamanager.eval_dataset.cameras[:1]
    pictures = []
    for time in (0.0, 1.0):
        camera.times = torch.full_like(camera.times, time)
        calls.clear()
        pictures.append(model.eval().get_outputs_for_camera(camera)["rgb"])
        bundle = model.collider(camera.generate_rays(camera_indices=0, keep_shape=True).flatten())
        assert sum(calls) == len(model.grid_renderer.place(rays_of(bundle)))
    assert not torch.equal(*pictures)
