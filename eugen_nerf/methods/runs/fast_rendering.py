"""The renderer of a run, chosen once on its training photographs so that no more quality is lost than allowed."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from eugen_nerf.core.choices import PLAN_DTYPES, PlanDtype
from eugen_nerf.core.errors import RunError
from eugen_nerf.core.inference.plan_backends import machine_plan
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
from eugen_nerf.methods.graph_model import FastRenderer, GraphModel
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples
from eugen_nerf.methods.rendering.planning import plan_model, unplan_model
from eugen_nerf.methods.rendering.stored_renderer import load_renderer, save_renderer
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.stock_runs import model_of_graphs, restore_stock
from eugen_nerf.methods.runs.training_rays import MeasuredDepths, Photographs, draw_pixels, ray_bundle, training_views

WAYS: dict[type, str] = {
    GridRenderer: "a grid",
    FewerSamples: "fewer samples",
    SurfaceRenderer: "a grid of distances",
}
"""What renderers are called."""
CHECK_RAYS = 4096
"""Rays of training views on which the loss is measured."""
BOX_RAYS = 8192
"""Rays of training views along which renderers are made."""
PLAN_RAYS = 64
"""Rays of training views along which plans are checked."""


@dataclass(frozen=True)
class RendererChoice:
    """What was chosen, and what it was measured to lose on training photographs."""

    rate: float
    """Of `GridRenderer`, the part of training's samples a ray, or 1; 0 where rendering stays exact."""
    lost: float
    """dB of PSNR below the exact picture, against photographs; negative where it is above."""
    exact_psnr: float
    """The exact picture's PSNR, dB."""
    queries: float
    """Of the final field, a ray, on average."""
    seconds: float = 0.0
    """For building and choosing."""
    dtype: str = ""
    """Of the networks' plans; empty where there are none."""
    backend: str = ""
    """Of the plans, likewise."""
    device: str = ""
    """Type of the device on which it was chosen."""
    way: str = "a grid"
    """What renders."""
    measured_on: str = "training photographs"
    """What the loss is against: for a signed distance it is of depth, and `exact_psnr` that for a range of a metre."""

    def __str__(self) -> str:
        """One line to print."""
        if not self.rate:
            return f"exact rendering: the renderer by {self.way} would lose {self.lost:.2f} dB"
        change = f"loses {self.lost:.2f} dB" if self.lost >= 0.005 else "loses nothing"
        plans = f"{self.backend} plans in {self.dtype} on {self.device}"
        return f"rendered by {self.way}: {self.queries:.1f} queries a ray, {plans}, {change} on {self.measured_on}"


def use_fast_renderer(
    run: Run, *, quality: float = QUALITY, progress: Callable[[str], None] = lambda what: None
) -> RendererChoice | None:
    """Gives a run's model its fast renderer, from the file beside its checkpoints or chosen and stored there.

    The model's networks get plans too, of the backend and dtype that suit the machine. A stock run's model makes place
    for its copy (`model_of_graphs`) where that renders fast.

    Args:
        run: with its training views; its model then renders fast in inference mode.
        quality: dB of PSNR that renderer and plans together may lose against the training photographs.
        progress: called with what is being done.

    Returns:
        What was chosen; None where the method has no such renderer.
    """
    kept = kept_renderer(run, quality=quality, progress=progress)
    if kept is None:
        return None
    renderer, choice = kept
    model = run.model
    assert isinstance(model, GraphModel)
    model.render_by(None)
    unplan_model(model)
    if choice.rate:
        plan_run(run, choice.dtype)  # type: ignore[arg-type]
        model.render_by(renderer)
    else:
        restore_stock(run)
    return choice


def kept_renderer(
    run: Run, *, quality: float = QUALITY, progress: Callable[[str], None] = lambda what: None
) -> tuple[FastRenderer, RendererChoice] | None:
    """The fast renderer of a run, from the file beside its checkpoints or chosen and stored there.

    Args:
        run: with its training views; a copy takes the place of a stock model (`model_of_graphs`).
        quality: dB of PSNR that renderer and plans together may lose against the training photographs.
        progress: called with what is being done.

    Returns:
        The renderer, of the most samples where the choice is to render exactly, and what it was measured to lose; None
        where the method has no such renderer.

    Raises:
        RunError: as `choose_renderer`.
    """
    model = model_of_graphs(run)
    if model is None or not model.renders_fast:
        return None
    path = run.path.parent / "renderer.safetensors"
    conditions = {"source": _identity(run.checkpoint), "quality": quality, "plan": [*machine_plan(model.device)]}
    stored = load_renderer(path, model.device)
    # a file of a stranger's run can hold what is for another method
    fits = stored is not None and isinstance(stored[0], model.renderer_kind)
    if stored is not None and fits and {key: stored[1].get(key) for key in conditions} == conditions:
        choice = _stored_choice(stored[1].get("choice"))
        if choice is not None:
            return stored[0], choice
    progress("preparing fast rendering")
    renderer, choice = choose_renderer(run, quality)
    try:
        save_renderer(path, renderer, {**conditions, "choice": asdict(choice)})
    except OSError:
        progress("the renderer could not be stored beside the run: it is built again next time")
    return renderer, choice


@torch.no_grad()
def choose_renderer(run: Run, quality: float) -> tuple[FastRenderer, RendererChoice]:
    """Tries a run's renderers and takes the first that loses no more than `quality` dB; measures on training rays.

    Networks run by plans of the machine's fastest dtype; where no renderer is good enough with it, of float32.

    Args:
        run: of a model that `renders_fast`, with its training views; its networks lose the plans that they have.
        quality: dB.

    Returns:
        The renderer, and the choice: of rate 0 where even the last one loses more.

    Raises:
        RunError: a run without training views.
    """
    start = time.perf_counter()
    model = run.model
    assert isinstance(model, GraphModel)
    cameras = training_views(run.pipeline.datamanager).cameras
    bundle = ray_bundle(cameras.to(model.device), draw_pixels(cameras, BOX_RAYS, 0).to(model.device))
    if model.collider is None:
        raise RunError(f"{type(model).__name__} has no near and far plane, so no box of what its rays meet")
    bundle = model.collider(bundle)
    pixels = draw_pixels(cameras, CHECK_RAYS, 1)
    check = Photographs(run, pixels) if model.renders_colours else MeasuredDepths(run, pixels)
    model.render_by(None)
    unplan_model(model)
    try:
        way = WAYS[model.renderer_kind]
        exact = check.squared_error(model)
        choice = RendererChoice(0.0, math.inf, decibel(exact), 0.0, device=model.device.type, way=way)
        if not model.renders_colours:
            choice = replace(choice, measured_on="depths of training views")
        dtypes: list[PlanDtype] = [machine_plan(model.device)[1], "float32"]
        planned: PlanDtype | None = None
        if issubclass(model.renderer_kind, GridRenderer):  # millions of densities, which only say where samples belong
            backend, planned = plan_run(run, dtypes[0]), dtypes[0]
        candidates = model.fast_renderers(bundle)
        for dtype, renderer in itertools.product(dict.fromkeys(dtypes), candidates):
            if dtype != planned:
                backend, planned = plan_run(run, dtype), dtype
            model.render_by(renderer)
            choice = replace(choice, lost=decibel(exact) - decibel(check.squared_error(model)))
            if choice.lost <= quality:
                rate = 1.0 if isinstance(renderer, SurfaceRenderer) else renderer.rate
                queries = model.queries_a_ray(bundle)
                choice = replace(choice, rate=rate, queries=queries, dtype=dtype, backend=backend)
                break
    finally:
        model.render_by(None)
        unplan_model(model)
    return renderer, replace(choice, seconds=time.perf_counter() - start)


def plan_run(run: Run, dtype: PlanDtype) -> str:
    """Gives a run's networks plans of a dtype; returns the backend of the one that makes the colours."""
    model = run.model
    assert isinstance(model, GraphModel)
    assert model.collider is not None
    cameras = training_views(run.pipeline.datamanager).cameras
    bundle = ray_bundle(cameras.to(model.device), draw_pixels(cameras, PLAN_RAYS, 2).to(model.device))
    plans = plan_model(model, model.collider(bundle), backend=machine_plan(model.device)[0], dtype=dtype)
    return list(plans.values())[-1].backend


def decibel(squared_error: float) -> float:
    """PSNR of colours in [0, 1] by their mean squared error, dB; 120 at most."""
    return 10 * math.log10(1 / max(squared_error, 1e-12))


def _stored_choice(values: object) -> RendererChoice | None:
    """A choice as it was written; None where the file holds something else."""
    kinds: dict[str, type] = {field.name: str if field.type == "str" else float for field in fields(RendererChoice)}
    try:
        choice = RendererChoice(**{key: kinds[key](value) for key, value in values.items()})  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return choice if choice.dtype in PLAN_DTYPES or not choice.rate else None


def _identity(checkpoint: Path) -> list[object]:
    """What tells a checkpoint from one that was written after it."""
    state = checkpoint.stat()
    return [checkpoint.name, state.st_size, state.st_mtime_ns]
