"""The background colour of a data set: the colour alpha is composited on, or the plain colour of the images'
borders."""

from __future__ import annotations

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

BACKGROUND_KEY = "background_color"
"""Key of the colour in `InputDataset.metadata`."""
NUM_IMAGES = 8
MIN_PLAIN_SHARE = 0.75
"""Minimum share of border pixels with the same colour; an object may touch the border."""
COLOUR_TOLERANCE = 4
"""Largest difference from that colour in 8-bit steps: JPEG and scaling change a plain colour a little."""


def data_background(dataset: InputDataset) -> Tensor | None:
    """The background colour `[3]` in [0, 1]; None where it is unknown.

    With an alpha channel it is the colour on which the data parser composites. Without one it is the median of the
    border pixels of up to 8 images spread over the data set, if three quarters of these pixels have that colour.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_IMAGES, len(dataset))).round().astype(int)
    images = [dataset.get_numpy_image(int(i)) for i in dict.fromkeys(chosen.tolist())]
    if any(image.ndim != 3 or image.shape[-1] == 4 for image in images):
        alpha_color = dataset._dataparser_outputs.alpha_color
        return None if alpha_color is None else torch.as_tensor(alpha_color, dtype=torch.float32).clone()
    borders = [np.concatenate([i[0], i[-1], i[1:-1, 0], i[1:-1, -1]]) for i in images]
    pixels = np.concatenate(borders).astype(np.float64)
    colour = np.median(pixels, axis=0)
    plain = (np.abs(pixels - colour) <= COLOUR_TOLERANCE).all(axis=-1).mean()
    return torch.from_numpy(colour / 255).float() if plain >= MIN_PLAIN_SHARE else None
