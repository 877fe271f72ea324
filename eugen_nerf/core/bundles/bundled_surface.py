"""A surface renderer as a bundle holds it, with the grid of distances that leads its rays where there is one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_grid import MAX_CELLS, MAX_POSITION, MAX_SIDE
from eugen_nerf.core.rendering.distance_grid import DistanceGrid
from eugen_nerf.core.rendering.surface_renderer import TRACING, SurfaceRenderer


class BundledSurface(nn.Module):
    """A `SurfaceRenderer` whose grid moves with the module that holds it; `renderer` unpacks it.

    Args:
        renderer: distances of its grid are rounded to float16.
    """

    kind = "surface"
    low: Tensor
    """Corner of the grid's box, float32 `[3]`; only where there is a grid, and so is `distance`."""
    distance: Tensor
    """float16 `[x, y, z]`."""

    def __init__(self, renderer: SurfaceRenderer) -> None:
        super().__init__()
        self.settings = replace(renderer, grid=None)
        self.cell: float | None = None
        if renderer.grid is not None:
            self.cell = renderer.grid.cell
            self.register_buffer("low", renderer.grid.low.detach().clone())
            self.register_buffer("distance", renderer.grid.distance.detach().half())
        self._unpacked: SurfaceRenderer | None = None

    @property
    def renderer(self) -> SurfaceRenderer:
        """What renders, on the tensors' device."""
        if self.cell is None:
            return self.settings
        grid = None if self._unpacked is None else self._unpacked.grid
        if grid is None or grid.low.device != self.low.device:
            grid = DistanceGrid(self.low, self.cell, self.distance.float())
            self._unpacked = replace(self.settings, grid=grid)
        assert self._unpacked is not None
        return self._unpacked

    def tracing(self) -> dict[str, Any]:
        """Kind and settings, without the grid."""
        return {"kind": self.kind, **{key: getattr(self.settings, key) for key in TRACING}}

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`; without entries of a grid where there is none, as earlier versions read it."""
        grid = {} if self.cell is None else {"cell": self.cell, "sides": [side - 1 for side in self.distance.shape]}
        return {**self.tracing(), **grid}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str) -> BundledSurface:
        """The renderer that `spec` describes; raises `BundleError` where it describes none."""
        renderer = SurfaceRenderer(
            spec.number("step_scale", 0.1, 2.0),
            spec.number("min_step", 1e-6, 1e3),
            spec.integer("max_steps", 1, 4096),
            spec.integer("refinements", 0, 64),
        )
        if spec.holds("cell"):
            sides = spec.integers("sides", 1, MAX_SIDE, 3)
            shape = tuple(side + 1 for side in sides)
            if len(sides) != 3 or math.prod(shape) > MAX_CELLS:
                raise BundleError(f"{spec.where} has {sides} cells: three sides, and at most {MAX_CELLS}; {ADVICE}")
            cell = spec.number("cell", 1e-6, MAX_POSITION)
            low = tensors.take(f"{prefix}low", (3,))
            if low.dtype != torch.float32 or not bool((low.abs() <= MAX_POSITION).all()):
                raise BundleError(f"tensor '{prefix}low' must hold float32 of at most {MAX_POSITION:g}; {ADVICE}")
            distance = tensors.take(f"{prefix}distance", shape)
            if distance.dtype != torch.float16:
                raise BundleError(f"tensor '{prefix}distance' must hold float16, got {distance.dtype}; {ADVICE}")
            renderer = replace(renderer, grid=DistanceGrid(low, cell, distance.float()))
        spec.close()
        return cls(renderer)
