"""Where a picture differs from another, in colours with a scale beside them."""

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


def scale_html() -> str:
    """The scale as an element of a page: black for no difference, and on."""
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*_COLOURS[i]) for i in range(0, 256, 51))
    return (
        '<p class="scale">0 <span role="img" aria-label="colour scale of differences" '
        f'style="background: linear-gradient(90deg, {stops})"></span> {FULL_SCALE} and more, of 255</p>'
    )
