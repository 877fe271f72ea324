"""A plot of camera positions and directions, and of the triangulated points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
VISIBLE_PERCENT = 98.0
"""Percentage of the points, along each axis, inside the plot: a few are always far off."""


def draw_cameras(poses: Array, points: Array, colours: NDArray[np.uint8], path: Path) -> None:
    """Writes a PNG of the scene from above and from the side.

    Args:
        poses: camera to world [n, 4, 4]; x right, y up, looking along -z.
        points: [m, 3].
        colours: [m, 3], 0 to 255.
        path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = _level_axes(poses)
    centres, ahead, placed = poses[:, :3, 3] @ axes.T, -poses[:, :3, 2] @ axes.T, points @ axes.T
    reach = 0.15 * np.linalg.norm(np.ptp(centres, axis=0))
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    for plot, down, title in zip(figure.subplots(1, 2), (1, 2), ("from above", "from the side"), strict=True):
        plot.scatter(placed[:, 0], placed[:, down], s=2, c=colours / 255.0, linewidths=0)
        plot.quiver(*centres[:, [0, down]].T, *(reach * ahead[:, [0, down]]).T, angles="xy", scale_units="xy", scale=1)
        plot.scatter(*centres[:, [0, down]].T, s=12, c="tab:red")
        margin = (100 - VISIBLE_PERCENT) / 2
        low, high = np.percentile(placed, [margin, 100 - margin], axis=0) if len(placed) else (centres[0], centres[0])
        low, high = np.minimum(low, centres.min(axis=0)) - reach, np.maximum(high, centres.max(axis=0)) + reach
        plot.set(xlim=(low[0], high[0]), ylim=(low[down], high[down]), title=title, aspect="equal")
    figure.suptitle(f"{len(poses)} cameras (red, arrows where they look) and {len(points):,} points; no unit")
    figure.savefig(path, dpi=110)


def _level_axes(poses: Array) -> Array:
    """Rows: right, forward and up of a plot whose up is the cameras' mean up."""
    up = poses[:, :3, 1].mean(axis=0)
    up /= np.linalg.norm(up)
    right = np.linalg.svd(np.outer(up, up) - np.eye(3))[0][:, 0]
    return np.stack([right, np.cross(up, right), up])
