"""Grids of a bundle: their sizes as plain numbers, their features as a tensor."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import Spec, StoredTensors
from eugen_nerf.core.encodings.hash_grid import HashGrid, _level_size


def copy_grid(grid: HashGrid) -> HashGrid:
    """A plain `HashGrid` with a copy of the table, whatever the class of the one given."""
    sizes = (grid.resolutions, grid.features, _log2(grid), grid.init_range)
    return _make_grid(*sizes, grid.shift, grid.table.detach().clone())


def describe_grid(grid: HashGrid) -> dict[str, Any]:
    """Its sizes as JSON values."""
    return {
        "resolutions": list(grid.resolutions),
        "features": grid.features,
        "log2_table_size": _log2(grid),
        "init_range": grid.init_range,
    }


def _log2(grid: HashGrid) -> int:
    """The smallest table size, as an exponent of 2, that gives the grid's levels."""
    return max(3, (max(grid.sizes) - 1).bit_length())


def build_grid(spec: Spec, tensors: StoredTensors, prefix: str, shift: float = 0.5) -> HashGrid:
    """The grid that `spec` describes; raises `BundleError` where it describes none.

    Args:
        spec: its sizes.
        tensors: of the bundle.
        prefix: of the table's name.
        shift: of the grid, which the encoding's kind says.
    """
    resolutions = spec.integers("resolutions", 2, 1 << 20, 32)
    features, log2 = spec.integer("features", 1, 64), spec.integer("log2_table_size", 3, 26)
    start = spec.number("init_range", 0.0, 1.0)
    rows = sum(_level_size(n, 1 << log2) for n in resolutions)
    # the table is as large as the file, so nothing is allocated that the file does not hold
    return _make_grid(resolutions, features, log2, start, shift, tensors.take(f"{prefix}table", (rows, features)))


def _make_grid(
    resolutions: tuple[int, ...], features: int, log2: int, start: float, shift: float, table: Tensor
) -> HashGrid:
    grid = HashGrid(resolutions, features, log2, start, shift=shift)
    assert grid.table.shape == table.shape
    grid.table = nn.Parameter(table, requires_grad=False)
    return grid
