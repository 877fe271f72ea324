"""The renderer of a run, chosen once on its training photographs so that no more quality is lost than allowed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from eugen_nerf.core.errors import RunError
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering.grid_rendering import grid_along_rays, rays_of
from eugen_nerf.methods.rendering.stored_renderer import load_renderer, save_renderer
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import Photographs, draw_pixels, ray_bundle, training_views

RATES = (1.5, 2.0, 3.0, 4.0, 6.0)
"""Rates that are tried, from few samples to many."""
CELLS = 128
"""Cells along the longest side of a scene that stands still."""
MOVING_CELLS, MOVING_SLICES = 80, 24
"""Likewise of one that moves, and its slices of time."""
CHECK_RAYS = 4096
"""Rays of training views on which the loss is measured."""
BOX_RAYS = 8192
"""Rays of training views around which the box is put."""


@dataclass(frozen=True)
class RendererChoice:
    """What was chosen, and what it was measured to lose on training photographs."""

    rate: float
    """Of `GridRenderer`; 0 where the method's own samplers stay."""
    lost: float
    """dB of PSNR below the exact picture, against photographs; negative where it is above."""
    exact_psnr: float
    """The exact picture's PSNR, dB."""
    queries: float
    """Of the final field, a ray, on average."""
    seconds: float = 0.0
    """For building and choosing."""

    def __str__(self) -> str:
        """One line to print."""
        if not self.rate:
            return f"exact rendering: the renderer by a grid would lose {self.lost:.2f} dB"
        change = f"loses {self.lost:.2f} dB" if self.lost >= 0.005 else "loses nothing"
        return f"rendered by a grid: {self.queries:.1f} queries a ray, {change} on training photographs"


def use_fast_renderer(
    run: Run, *, quality: float = QUALITY, progress: Callable[[str], None] = lambda what: None
) -> RendererChoice | None:
    """Gives a run's model the renderer by a grid, from the file beside its checkpoints or built and stored there.

    Args:
        run: with its training views; its model then renders by the grid in inference mode.
        quality: dB of PSNR that may be lost against the training photographs.
        progress: called with what is being done.

    Returns:
        What was chosen; None where the method has no such renderer.
    """
    model = run.model
    if not isinstance(model, GraphModel) or not model.renders_by_grid:
        return None
    path = run.path.parent / "renderer.safetensors"
    source = _identity(run.checkpoint)
    stored = load_renderer(path, model.device)
    if stored is not None and stored[1].get("source") == source and stored[1].get("quality") == quality:
        kept = _stored_choice(stored[1].get("choice"))
        if kept is not None:
            model.grid_renderer = stored[0] if kept.rate else None
            return kept
    progress("preparing fast rendering")
    renderer, choice = choose_renderer(run, quality)
    model.grid_renderer = renderer if choice.rate else None
    try:
        save_renderer(path, renderer, {"source": source, "quality": quality, "choice": asdict(choice)})
    except OSError:
        progress("the renderer could not be stored beside the run: it is built again next time")
    return choice


@torch.no_grad()
def choose_renderer(run: Run, quality: float) -> tuple[GridRenderer, RendererChoice]:
    """Builds the grid and takes the least rate that loses no more than `quality` dB; measures on training rays.

    Args:
        run: of a model that `renders_by_grid`, with its training views; unchanged.
        quality: dB.

    Returns:
        The renderer, and the choice: of rate 0 where even the highest rate loses more.

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
    moving = cameras.times is not None
    cells, times = (MOVING_CELLS, MOVING_SLICES) if moving else (CELLS, 1)
    grid = grid_along_rays(model.trained_density, model.collider(bundle), cells=cells, times=times)
    check = Photographs(run, draw_pixels(cameras, CHECK_RAYS, 1))
    before, model.grid_renderer = model.grid_renderer, None
    try:
        exact = check.squared_error(model)
        choice = RendererChoice(0.0, math.inf, _decibel(exact), 0.0)
        for rate in RATES:
            renderer = model.grid_renderer = GridRenderer(grid, rate=rate)
            lost = _decibel(exact) - _decibel(check.squared_error(model))
            choice = replace(choice, lost=lost)
            if lost <= quality:
                queries = _queries(renderer, model, check)
                choice = replace(choice, rate=rate, queries=queries)
                break
    finally:
        model.grid_renderer = before
    return renderer, replace(choice, seconds=time.perf_counter() - start)


def _queries(renderer: GridRenderer, model: GraphModel, check: Photographs) -> float:
    """A ray, on average over the check rays."""
    bundle = ray_bundle(check.cameras.to(model.device), check.rays.to(model.device))
    return len(renderer.place(rays_of(model.collider(bundle)))) / len(check.rays)  # type: ignore[misc]


def _decibel(squared_error: float) -> float:
    return 10 * math.log10(1 / max(squared_error, 1e-12))


def _stored_choice(values: object) -> RendererChoice | None:
    """A choice as it was written; None where the file holds something else."""
    try:
        return RendererChoice(**{key: float(value) for key, value in values.items()})  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return None


def _identity(checkpoint: Path) -> list[object]:
    """What tells a checkpoint from one that was written after it."""
    state = checkpoint.stat()
    return [checkpoint.name, state.st_size, state.st_mtime_ns]
