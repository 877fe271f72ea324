"""The colour behind the object of a data set: what alpha is composited on, or the plain colour round the images."""

from __future__ import annotations

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

KEY = "background_color"
"""Where `InputDataset.metadata` holds the colour."""
NUM_IMAGES = 8
PLAIN_SHARE = 0.75
"""Share of border pixels that must have one colour; an object may touch the border."""
TOLERANCE = 4
"""Largest difference from that colour, in 8-bit steps: JPEG and scaling change a plain colour a little."""


def data_background(dataset: InputDataset) -> Tensor | None:
    """The background's colour `[3]` in [0, 1]; None where it cannot be told.

    With an alpha channel it is what the data parser composites on. Without one it is the median of the border pixels
    of up to 8 images spread over the set, if three quarters of those pixels have that colour.
    """
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_IMAGES, len(dataset))).round().astype(int)
    images = [dataset.get_numpy_image(int(i)) for i in dict.fromkeys(chosen.tolist())]
    if any(image.ndim != 3 or image.shape[-1] == 4 for image in images):
        alpha_color = dataset._dataparser_outputs.alpha_color
        return None if alpha_color is None else torch.as_tensor(alpha_color, dtype=torch.float32).clone()
    borders = [np.concatenate([i[0], i[-1], i[1:-1, 0], i[1:-1, -1]]) for i in images]
    pixels = np.concatenate(borders).astype(np.float64)
    colour = np.median(pixels, axis=0)
    plain = (np.abs(pixels - colour) <= TOLERANCE).all(axis=-1).mean()
    return torch.from_numpy(colour / 255).float() if plain >= PLAIN_SHARE else None
