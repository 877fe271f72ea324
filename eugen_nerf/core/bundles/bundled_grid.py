"""A grid renderer as a bundle holds it: one bit for each cell, and the densities of occupied cells alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.marching.density_grid import DensityGrid
from eugen_nerf.core.rendering.grid_renderer import GridRenderer

MAX_SIDE = 1024
"""Cells along a side of a bundled grid, at most."""
MAX_SLICES = 256
"""Slices of time, at most."""
MAX_CELLS = 1 << 26
"""Cells of all slices, at most."""
MAX_POSITION = 1e6
"""Largest coordinate of the grid's corner, and largest cell."""


class BundledGrid(nn.Module):
    """A `GridRenderer` whose tensors move with the module that holds it; `renderer` unpacks it.

    Args:
        settings: side of a cell, rate, early stop and least weight, see `GridRenderer`.
        shape: slices of time, and cells along x, y and z.
        low: corner of the box, float32 `[3]`.
        bits: occupied cells as `pack_bits` makes them, uint8 `[ceil(n / 8)]`.
        density: of occupied cells alone, in their order, float16 `[k]`.
    """

    kind = "grid"
    low: Tensor
    bits: Tensor
    density: Tensor

    def __init__(
        self,
        settings: tuple[float, float, float, float],
        shape: tuple[int, ...],
        low: Tensor,
        bits: Tensor,
        density: Tensor,
    ) -> None:
        super().__init__()
        self.cell, self.rate, self.early_stop, self.min_weight = settings
        self.shape = shape
        for name, tensor in (("low", low), ("bits", bits), ("density", density)):
            self.register_buffer(name, tensor.detach().clone())
        self._unpacked: GridRenderer | None = None

    @classmethod
    def of(cls, renderer: GridRenderer) -> BundledGrid:
        """A copy of a renderer; densities are rounded to float16, and those of cells that are not occupied go."""
        grid = renderer.grid
        occupied = grid.occupied.flatten()
        density = grid.density.flatten()[occupied].clamp_max(torch.finfo(torch.float16).max).half()
        settings = (grid.cell, renderer.rate, renderer.early_stop, renderer.min_weight)
        return cls(settings, tuple(grid.density.shape), grid.low, pack_bits(occupied), density)

    @property
    def renderer(self) -> GridRenderer:
        """What renders, on the tensors' device."""
        if self._unpacked is None or self._unpacked.grid.low.device != self.low.device:
            occupied = unpack_bits(self.bits, math.prod(self.shape))
            density = torch.zeros(len(occupied), device=self.low.device)
            density[occupied] = self.density.float()
            grid = DensityGrid(self.low, self.cell, density.view(self.shape), occupied.view(self.shape))
            self._unpacked = GridRenderer(grid, self.rate, self.early_stop, self.min_weight)
        return self._unpacked

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`."""
        times, *sides = self.shape
        numbers = {"cell": self.cell, "rate": self.rate, "early_stop": self.early_stop, "min_weight": self.min_weight}
        return {"kind": self.kind, "sides": sides, "times": times, **numbers}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str) -> BundledGrid:
        """The renderer that `spec` describes; raises `BundleError` where it describes none."""
        sides = spec.integers("sides", 1, MAX_SIDE, 3)
        shape = (spec.integer("times", 1, MAX_SLICES), *sides)
        if len(shape) != 4 or math.prod(shape) > MAX_CELLS:
            raise BundleError(f"{spec.where} has {shape[1:]} cells: three sides, and at most {MAX_CELLS}; {ADVICE}")
        settings = (
            spec.number("cell", 1e-6, MAX_POSITION),
            spec.number("rate", 1e-3, 64.0),
            spec.number("early_stop", 0.0, 0.999),
            spec.number("min_weight", 1e-9, 0.999),
        )
        spec.close()
        low = tensors.take(f"{prefix}low", (3,))
        bits = tensors.take(f"{prefix}bits", (-(-math.prod(shape) // 8),), integer=True)
        density = tensors.take(f"{prefix}density", (int(unpack_bits(bits, math.prod(shape)).sum()),))
        if density.dtype != torch.float16 or not bool((density >= 0).all()):
            raise BundleError(f"tensor '{prefix}density' must hold float16 that are not negative; {ADVICE}")
        if low.dtype != torch.float32 or not bool((low.abs() <= MAX_POSITION).all()):
            raise BundleError(f"tensor '{prefix}low' must hold float32 of at most {MAX_POSITION:g}; {ADVICE}")
        return cls(settings, shape, low, bits, density)


def pack_bits(values: Tensor) -> Tensor:
    """Bits as bytes, the first in a byte's lowest bit.

    Args:
        values: bool `[n]`.

    Returns:
        uint8 `[ceil(n / 8)]`; what is left over of the last byte is 0.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core.bundles.bundled_grid import pack_bits, unpack_bits
        >>> pack_bits(torch.tensor([1, 0, 1, 0, 0, 0, 0, 0, 1], dtype=torch.bool)).tolist()
        [5, 1]
        >>> unpack_bits(torch.tensor([5], dtype=torch.uint8), 3).tolist()
        [True, False, True]
    """
    padded = values.new_zeros(-(-len(values) // 8) * 8)
    padded[: len(values)] = values
    places = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8, device=values.device)
    return (padded.view(-1, 8) * places).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The first `count` bits of what `pack_bits` made, bool."""
    places = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] & places) != 0).flatten()[:count]
