"""Fewer bits for a page's numbers, and what that does to its images."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.bundled_scene import MeasuredQuality
from eugen_nerf.core.encodings.hash_grid import HashGrid
from eugen_nerf.web.data_blocks import round_half, round_short

LEAST_DEPTH, MOST_DEPTH = 1e-3, 10.0
"""Optical depths across a cell's side between which the densities of a grid are told apart: less has no weight in an
image, and more lets no light pass."""
CHECKED_VIEWS = 3
"""Test views on which rounding is measured, spread over all."""
CHECKED_ROWS = 40
"""Rows of pixels of each."""


class Precision(NamedTuple):
    """Bits of a page's numbers."""

    half: bool
    """Whether weights of networks are float16; else float32."""
    table_bits: int
    """Bits of a hash grid's features, 8 or 16."""
    density_levels: int
    """Levels of the densities of cells, zero apart, at most 255."""


PRECISIONS = (
    Precision(True, 8, 31),
    Precision(True, 8, 255),
    Precision(True, 16, 31),
    Precision(True, 16, 255),
    Precision(False, 16, 255),
)
"""From the smallest page to the most precise one."""


MOST_ERROR = 1e-5
"""Mean squared error of rendered colours that rounding may make: 50 dB."""
MOST_LOST = 0.05
"""dB of PSNR to photographs that it may cost."""


def rounded(field: BundledField, precision: Precision) -> BundledField:
    """A copy of a field, proposals included, whose numbers are those that a page holds."""
    field = copy.deepcopy(field)
    for module in field.modules():
        if isinstance(module, BundledGraph) and precision.half:
            for name, tensor in module.named_buffers():
                if name.endswith("_weight"):
                    tensor.copy_(round_half(tensor))
        elif isinstance(module, HashGrid):
            with torch.no_grad():
                rounding = round_short if precision.table_bits == 8 else round_half
                levels = module.table.split(module.sizes)
                module.table.copy_(torch.cat([rounding(level) for level in levels]))
    if field.scene is not None and isinstance(field.scene.renderer, BundledGrid):
        field.scene.renderer = _round_densities(field.scene.renderer, precision.density_levels)
    return field


def density_levels(grid: BundledGrid, levels: int) -> Tensor:
    """The densities of a grid's occupied cells as levels of their optical depths, uint8 `[k]`; 0 for none.

    Level i of n stands for the optical depth `least * (most / least) ** ((i - 1) / (n - 1))` across a cell's side.
    """
    depth = grid.density.double() * grid.cell
    steps = (depth.clamp_min(1e-30) / LEAST_DEPTH).log() / math.log(MOST_DEPTH / LEAST_DEPTH) * (levels - 1)
    return (steps + 1).round().clamp(0, levels).to(torch.uint8)


def _round_densities(grid: BundledGrid, levels: int) -> BundledGrid:
    numbers = density_levels(grid, levels).double()
    depth = LEAST_DEPTH * (MOST_DEPTH / LEAST_DEPTH) ** ((numbers - 1) / (levels - 1))
    density = torch.where(numbers > 0, depth / grid.cell, 0.0).clamp_max(torch.finfo(torch.float16).max).half()
    settings = (grid.cell, grid.rate, grid.early_stop, grid.min_weight)
    return BundledGrid(settings, grid.shape, grid.low, grid.bits, density)


def rounding_error(exact: BundledField, field: BundledField) -> float | None:
    """Mean squared error of a field's colours against another's, on some test views; None where there are none.

    Of a field of every width it is that of the share with the largest.
    """
    cameras = exact.cameras
    if not cameras:
        return None
    chosen = cameras[:: max(1, len(cameras) // CHECKED_VIEWS)][:CHECKED_VIEWS]
    small = [camera.resized(min(CHECKED_ROWS, camera.height)) for camera in chosen]
    pairs = [(exact.at_share(share), field.at_share(share)) for share in exact.shares] or [(exact, field)]
    return max(
        float(torch.stack([(a.render(each).colour - b.render(each).colour).square().mean() for each in small]).mean())
        for a, b in pairs
    )


def lost_decibel(error: float | None, quality: MeasuredQuality | None) -> float | None:
    """dB of PSNR to photographs that an error costs which is independent of the errors that there were before."""
    if error is None or quality is None:
        return None
    return 10 * math.log10(1 + error / 10 ** (-quality.psnr / 10))


def fits(error: float | None, quality: MeasuredQuality | None) -> bool:
    """Whether rounding loses as little as it may."""
    return error is not None and error <= MOST_ERROR and (lost_decibel(error, quality) or 0.0) <= MOST_LOST
