"""Where an image differs from another, in the colours of a scale."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

from eugen_nerf.methods.runs.image_metrics import Image8

FULL_SCALE = 64
"""Levels of 255 that are drawn in the last colour of the scale; larger differences are too."""
_COLOURS = (colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def difference_image(render: Image8, truth: Image8) -> Image8:
    """The largest absolute difference of a pixel's channels as a colour of the scale, uint8 [H, W, 3]."""
    difference = np.abs(render.astype(np.int32) - truth).max(axis=-1)
    return _COLOURS[np.minimum(difference * 255 // FULL_SCALE, 255)]


def scale_colours() -> list[str]:
    """Six colours of the scale, evenly spaced, as `#rrggbb`: from no difference to `FULL_SCALE` levels."""
    return ["#{:02x}{:02x}{:02x}".format(*_COLOURS[i]) for i in range(0, 256, 51)]
