"""Plots for the panels, as images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.panels.compression import Predicted

_BACK, _INK = "#25262b", "#c1c2c5"
"""The panel's own colours."""
_DOTS = 100


def front_plot(front: Sequence[Predicted], now: Predicted) -> Image8:
    """Predicted loss against cost: the Pareto front as a line, and the current choice as a point.

    Args:
        front: cheapest first.
        now: the current choice.

    Returns:
        uint8 `[height, width, 3]`.
    """
    decibels = now.drop is not None
    figure = Figure(figsize=(4.2, 2.2), dpi=_DOTS, layout="constrained", facecolor=_BACK)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=_BACK)
    axes.plot([p.multiply_adds / 1e3 for p in front], [_height(p, decibels) for p in front], "-", color="C0")
    axes.plot(now.multiply_adds / 1e3, _height(now, decibels), "o", ms=9, color="C3")
    axes.set_xlabel("thousand multiply-adds a query", color=_INK)
    axes.set_ylabel("predicted dB lost" if decibels else "predicted error", color=_INK)
    if decibels:
        # limited, because large losses would flatten the interesting part
        axes.set_ylim(-0.05, max(3.0, 1.2 * _height(now, decibels)))
    else:
        axes.set_yscale("symlog", linthresh=1e-9)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.grid(alpha=0.25)
    for spine in axes.spines.values():
        spine.set_edgecolor(_INK)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _height(point: Predicted, decibels: bool) -> float:
    return point.drop if decibels and point.drop is not None else point.error
