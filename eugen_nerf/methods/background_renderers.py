"""Renderers whose background is a buffer: on the device, and in the checkpoint where it is the data's colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.utils.colors import COLORS_DICT
from torch import Tensor

from eugen_nerf.data.image_background import BACKGROUND_KEY

Background = Literal["data", "random", "last_sample", "black", "white"]
"""Choices of a model's background colour; data is the data set's own."""


class StoredBackgroundRenderer(RGBRenderer):
    """nerfstudio's renderer on a colour that is a buffer, `background_color`.

    Args:
        colour: RGB in [0, 1], `[3]`.
        saved: whether it is part of the checkpoint, so that evaluation renders on the background of training.
    """

    def __init__(self, colour: Tensor, *, saved: bool = True) -> None:
        super().__init__("white")
        del self.background_color
        self.register_buffer("background_color", colour.detach().clone().float(), persistent=saved)


def rgb_renderer(background: Background, metadata: Mapping[str, Any] | None) -> RGBRenderer:
    """The renderer of a choice.

    Args:
        background: the choice.
        metadata: the training data set's, as nerfstudio's pipeline hands it to a model. Without an entry for
            it, the data's background is white until a checkpoint is loaded.
    """
    if background in ("white", "black"):  # nerfstudio keeps it on the CPU: every copy would make the host wait
        return StoredBackgroundRenderer(COLORS_DICT[background], saved=False)
    if background != "data":
        return RGBRenderer(background_color=background)
    colour = (metadata or {}).get(BACKGROUND_KEY)
    return StoredBackgroundRenderer(torch.ones(3) if colour is None else colour)
