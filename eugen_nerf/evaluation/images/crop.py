"""Where renders differ most: the crop of a view that a page shows enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from eugen_nerf.methods.runs.image_metrics import Image8

Crop: TypeAlias = tuple[slice, slice]


def most_different_crop(truth: Image8, images: Sequence[Image8], *, share: float = 0.25) -> Crop:
    """The crop in which squared errors differ most from render to render; of one render, where they are largest.

    It is chosen by all renders together, so that each shows the same pixels.

    Args:
        truth: the photograph, uint8 [H, W, 3].
        images: renders of it, at least one, each uint8 [H, W, 3].
        share: of the view's height and of its width.

    Returns:
        Rows and columns.
    """
    errors = np.stack([((image.astype(np.float64) - truth) ** 2).sum(-1) for image in images])  # [runs, H, W]
    contrast = errors.std(0) if len(images) > 1 else errors[0]
    height, width = (max(1, round(size * share)) for size in contrast.shape)
    sums = np.pad(contrast.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    row, column = np.unravel_index(windows.argmax(), windows.shape)
    return slice(int(row), int(row) + height), slice(int(column), int(column) + width)
