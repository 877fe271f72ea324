"""A run's fast renderer on disk, beside its checkpoints: tensors and numbers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.rendering.distance_grid import DistanceGrid
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.rendering.surface_renderer import TRACING, SurfaceRenderer
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples

FORMAT = "eugen renderer 1"
Stored = GridRenderer | FewerSamples | SurfaceRenderer


def save_renderer(path: Path, renderer: Stored, measured: Mapping[str, object]) -> None:
    """Writes a renderer, and what it was measured to lose; a grid's numbers as float16.

    Args:
        path: of the file, which is replaced.
        renderer: to keep.
        measured: plain JSON, read back as it is.

    Raises:
        OSError: it cannot be written, as where a disk is full.
    """
    if isinstance(renderer, FewerSamples):
        settings, tensors = asdict(renderer), dict[str, Tensor]()
    elif isinstance(renderer, SurfaceRenderer):
        settings, tensors = _surface_parts(renderer)
    else:
        settings, tensors = _grid_parts(renderer)
    with atomic_path(path, replace=True) as temporary:
        metadata = {"format": FORMAT, "settings": json.dumps(settings), "measured": json.dumps(dict(measured))}
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # which is what safetensors makes of errors of the system
            raise OSError(f"{path} cannot be written: {error}") from error


def _grid_parts(renderer: GridRenderer) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Numbers and tensors that a renderer by a grid is made of."""
    grid = renderer.grid
    settings: dict[str, object] = {
        "cell": grid.cell,
        "rate": renderer.rate,
        "early_stop": renderer.early_stop,
        "min_weight": renderer.min_weight,
    }
    tensors = {
        "low": grid.low.cpu().contiguous(),
        "density": grid.density.clamp_max(torch.finfo(torch.float16).max).half().cpu().contiguous(),
        "occupied": grid.occupied.to(torch.uint8).cpu().contiguous(),
    }
    return settings, tensors


def _surface_parts(renderer: SurfaceRenderer) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Likewise of one that a grid of distances leads."""
    assert renderer.grid is not None
    settings: dict[str, object] = {key: getattr(renderer, key) for key in TRACING}
    settings["cell"] = renderer.grid.cell
    tensors = {"low": renderer.grid.low, "distance": renderer.grid.distance.half()}
    return settings, {key: value.cpu().contiguous() for key, value in tensors.items()}


def load_renderer(path: Path, device: torch.device | str) -> tuple[Stored, dict[str, object]] | None:
    """What `save_renderer` wrote; None where the file is missing, of another format, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return None
            settings, measured = json.loads(metadata["settings"]), json.loads(metadata["measured"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a file is no mapping)
        if not isinstance(settings, dict) or not isinstance(measured, dict):
            return None
        if "counts" in settings:
            counts = tuple(int(count) for count in settings["counts"])
            return FewerSamples(counts, float(settings["rate"])), measured
        if "max_steps" in settings:
            return _surface_renderer(settings, tensors, device), measured
        return _grid_renderer(settings, tensors, device), measured
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError, ConfigError):
        return None


def _grid_renderer(
    settings: Mapping[str, object], tensors: Mapping[str, Tensor], device: torch.device | str
) -> GridRenderer:
    """The renderer of some parts; raises ValueError for those that make none."""
    cell, *rates = (float(settings[key]) for key in ("cell", "rate", "early_stop", "min_weight"))  # type: ignore[arg-type]
    low, density, occupied = (tensors[key] for key in ("low", "density", "occupied"))
    whole = (
        low.shape == (3,)
        and density.ndim == 4
        and density.shape == occupied.shape
        and bool(torch.isfinite(low).all())
        and bool((density >= 0).all())
        and bool(torch.isfinite(density).all())
        and math.isfinite(cell)
        and cell > 0
    )
    if not whole:
        raise ValueError("not the parts of a renderer")
    grid = DensityGrid(low.float(), cell, density.float(), occupied.bool()).to(device)
    return GridRenderer(grid, *rates)


def _surface_renderer(
    settings: Mapping[str, object], tensors: Mapping[str, Tensor], device: torch.device | str
) -> SurfaceRenderer:
    """The same of one that a grid of distances leads."""
    scale, least, steps, refinements, cell = (float(settings[key]) for key in (*TRACING, "cell"))  # type: ignore[arg-type]
    low, distance = tensors["low"], tensors["distance"]
    whole = (
        low.shape == (3,)
        and distance.ndim == 3
        and min(distance.shape) >= 2
        and bool(torch.isfinite(low).all())
        and bool(torch.isfinite(distance).all())
        and math.isfinite(cell)
        and cell > 0
    )
    if not whole:
        raise ValueError("not the parts of a renderer")
    grid = DistanceGrid(low.float(), cell, distance.float()).to(device)
    return SurfaceRenderer(scale, least, int(steps), int(refinements), grid)
