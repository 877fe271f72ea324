"""Slices through a signed distance as images: colours are metres, black lines are surfaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.surfaces.volume import Distance, check_box

AXES = "xyz"
MAX_PIXELS = 1 << 24
MAX_COLUMNS = 3


@dataclass(frozen=True)
class Slice:
    """Signed distances on a plane across an axis.

    Attributes:
        values: [rows, columns] metres; columns and rows increase with the two other axes, in the order x, y, z: the
            first one to the right, the second one upwards.
        axis: 0, 1 or 2: the axis perpendicular to the plane.
        at: position on the axis, metres.
        extent: left, right, bottom, top of the image, metres.
    """

    values: NDArray[np.float32]
    axis: int
    at: float
    extent: tuple[float, float, float, float]


def slice_points(
    bounds: NDArray[Any], axis: int, at: float, spacing: float
) -> tuple[NDArray[np.float64], tuple[float, float, float, float]]:
    """Centres [rows, columns, 3] of cells of `spacing` metres on a plane in a box [2, 3], and the extent of the plane.

    Raises:
        ConfigError: the box is empty, the plane is outside it, or the cells are too many or too few.
    """
    low, high = check_box(bounds)
    if not low[axis] <= at <= high[axis]:
        raise ConfigError(
            f"a slice at {AXES[axis]} = {at:g} m is outside the box, which extends from {low[axis]:.3g} to "
            f"{high[axis]:.3g} m: choose --at in between"
        )
    across, up = (i for i in range(3) if i != axis)
    columns, rows = (math.ceil(min((high[i] - low[i]) / spacing, 1e9)) if spacing > 0.0 else 0 for i in (across, up))
    if not (columns > 1 and rows > 1 and columns * rows <= MAX_PIXELS):
        raise ConfigError(
            f"a spacing of {spacing:g} m makes a slice of {columns}x{rows} pixels: choose another --voxel "
            f"(at least 2 pixels a side, at most {MAX_PIXELS} in all)"
        )
    points = np.empty((rows, columns, 3))
    points[..., axis] = at
    points[..., across] = low[across] + spacing * (np.arange(columns) + 0.5)
    points[..., up] = (low[up] + spacing * (np.arange(rows) + 0.5))[:, None]
    extent = (low[across], low[across] + spacing * columns, low[up], low[up] + spacing * rows)
    return points, tuple(map(float, extent))  # type: ignore[return-value]


def sample_slice(distance: Distance, bounds: NDArray[Any], axis: int, at: float, spacing: float) -> Slice:
    """Signed distances on a plane inside a box; arguments and errors as in `slice_points`."""
    points, extent = slice_points(bounds, axis, at, spacing)
    values = distance(points.reshape(-1, 3).astype(np.float32)).reshape(points.shape[:2])
    return Slice(np.asarray(values, dtype=np.float32), axis, at, extent)


def draw_slices(slices: Mapping[str, Slice], path: Path, *, limit: float = 1.0) -> None:
    """Draws slices side by side under their names into an image file (png, svg or pdf, by its suffix).

    Args:
        slices: by name.
        path: file to write.
        limit: range of the colours in metres: red is free space, blue is inside.

    Raises OSError if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(MAX_COLUMNS, len(slices))
    rows = math.ceil(len(slices) / columns)
    left, right, bottom, top = next(iter(slices.values())).extent
    panel = 4.0, 4.0 * (top - bottom) / (right - left) + 0.6
    figure = Figure(figsize=(columns * panel[0] + 1.2, rows * panel[1] + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(slices) :]:
        axes.set_visible(False)
    for axes, (name, piece) in zip(grid.flat, slices.items(), strict=False):
        across, up = (AXES[i] for i in range(3) if i != piece.axis)
        image = axes.imshow(
            piece.values, origin="lower", extent=piece.extent, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="equal"
        )
        if piece.values.min() < 0.0 < piece.values.max():
            axes.contour(piece.values, [0.0], colors="black", linewidths=1.2, extent=piece.extent, origin="lower")
        axes.set_title(f"{name}, {AXES[piece.axis]} = {piece.at:g} m", fontsize=9)
        axes.set_xlabel(f"{across} [m]", fontsize=8)
        axes.set_ylabel(f"{up} [m]", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.colorbar(image, ax=grid, label="signed distance [m], negative inside", shrink=0.8)
    figure.savefig(path, dpi=110, metadata={"Software": None} if path.suffix == ".png" else None)
