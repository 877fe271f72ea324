"""A run's grid renderer on disk, beside its checkpoints: tensors and numbers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.rendering.density_grid import DensityGrid
from eugen_nerf.core.rendering.grid_renderer import GridRenderer

FORMAT = "eugen renderer 1"


def save_renderer(path: Path, renderer: GridRenderer, measured: Mapping[str, object]) -> None:
    """Writes a renderer, and what it was measured to lose; densities as float16.

    Args:
        path: of the file, which is replaced.
        renderer: to keep.
        measured: plain JSON, read back as it is.
    """
    grid = renderer.grid
    settings = {
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
    with atomic_path(path, replace=True) as temporary:
        metadata = {"format": FORMAT, "settings": json.dumps(settings), "measured": json.dumps(dict(measured))}
        save_file(tensors, temporary, metadata=metadata)


def load_renderer(path: Path, device: torch.device | str) -> tuple[GridRenderer, dict[str, object]] | None:
    """What `save_renderer` wrote; None where the file is missing, of another format, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                return None
            settings, measured = json.loads(metadata["settings"]), json.loads(metadata["measured"])
            low, density, occupied = (file.get_tensor(key) for key in ("low", "density", "occupied"))
        whole = (
            low.shape == (3,)
            and density.ndim == 4
            and density.shape == occupied.shape
            and bool(torch.isfinite(low).all())
            and bool((density >= 0).all())
            and bool(torch.isfinite(density).all())
            and math.isfinite(settings["cell"])
            and settings["cell"] > 0
        )
        if not whole or not isinstance(measured, dict):
            return None
        grid = DensityGrid(low.float(), float(settings.pop("cell")), density.float(), occupied.bool()).to(device)
        return GridRenderer(grid, **{key: float(value) for key, value in settings.items()}), measured
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ConfigError):
        return None
