"""What is seen in the window: outputs of one or two models made into one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.runs.image_metrics import Image8

Mode = Literal["split", "first", "second", "difference"]
MODES: tuple[Mode, ...] = get_args(Mode)
LINE = (255, 255, 255)
"""Colour of the line between the two halves."""
DIFFERENCE_COLOURS = "inferno"
VALUE_COLOURS = "turbo"

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Look:
    """How pictures are put together.

    Attributes:
        mode: both sides of a split, one of the two, or where they differ.
        output: the models' output that is shown.
        split: share of the width that the first run has.
        full_scale: difference at which the colours end, in units of the output (colours are in [0, 1]).
    """

    mode: Mode = "split"
    output: str = "rgb"
    split: float = 0.5
    full_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"pictures are shown as {', '.join(MODES)}, not as {self.mode!r}")
        if not 0 <= self.split <= 1:
            raise ConfigError(f"the split lies between 0 and 1, not at {self.split:g}")
        if not self.full_scale > 0:
            raise ConfigError(f"the scale of a difference is above 0, not {self.full_scale:g}")

    def needs(self) -> tuple[bool, bool]:
        """Whether the first and the second run have to be rendered."""
        return self.mode != "second", self.mode != "first"

    def columns(self, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Columns of the first and of the second run that are seen."""
        if self.mode != "split":
            return (0, width), (0, width)
        edge = split_column(self.split, width)
        return (0, max(edge, 1)), (min(edge, width - 1), width)


def split_column(share: float, width: int) -> int:
    """The first column of the second run."""
    return min(max(round(share * width), 0), width)


def compose(look: Look, first: Outputs | None, second: Outputs | None) -> Image8:
    """The picture in the window.

    Args:
        look: how.
        first: outputs `[height, width, channels]` of the first run; None where `look` needs none.
        second: likewise.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        ConfigError: an output that a run does not have, or two sizes.
    """
    a, b = (None if each is None else _output(each, look.output) for each in (first, second))
    if look.mode == "first":
        return _coloured(a)[0]
    if look.mode == "second":
        return _coloured(b)[0]
    if a is None or b is None or a.shape != b.shape:
        raise ConfigError("a split or a difference needs pictures of both runs, in one size")
    if look.mode == "difference":
        return difference_image(a, b, look.full_scale)
    left, right = _coloured(a, b)
    edge = split_column(look.split, a.shape[1])
    picture = np.concatenate([left[:, :edge], right[:, edge:]], axis=1)
    if 0 < edge < a.shape[1]:
        picture[:, edge] = LINE
    return picture


def difference_image(a: NDArray[np.float32], b: NDArray[np.float32], full_scale: float) -> Image8:
    """Mean absolute difference over channels as colours, uint8 `[height, width, 3]`, brightest at `full_scale`."""
    distance = np.abs(np.clip(np.nan_to_num(a), -1e6, 1e6) - np.clip(np.nan_to_num(b), -1e6, 1e6)).mean(axis=-1)
    return map_colours(distance / full_scale, DIFFERENCE_COLOURS)


def map_colours(values: NDArray[np.floating], name: str) -> Image8:
    """Values in [0, 1] (clipped) as colours, uint8 `[..., 3]`."""
    colours = colormaps[name](np.clip(np.nan_to_num(values), 0, 1))[..., :3]
    return np.floor(255 * colours + 0.5).astype(np.uint8)


def _output(outputs: Outputs, name: str) -> NDArray[np.float32]:
    if name not in outputs:
        raise ConfigError(f"the run has no output {name!r}; it has {', '.join(outputs)}")
    return outputs[name]


def _coloured(*pictures: NDArray[np.float32] | None) -> list[Image8]:
    """Colours as they are; single values in colours from the least to the largest of all pictures together."""
    given = [p for p in pictures if p is not None]
    if given[0].shape[-1] == 3:
        return [np.floor(np.clip(np.nan_to_num(p), 0, 1) * 255.0 + 0.5).astype(np.uint8) for p in given]
    finite = np.concatenate([p[np.isfinite(p) & (p != 0)] for p in given])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return [map_colours((p[..., 0] - low) / max(high - low, 1e-6), VALUE_COLOURS) for p in given]


def padded(picture: NDArray[Any], aspect: float, colour: int = 24) -> NDArray[Any]:
    """A picture `[height, width, ...]` in the middle of one of another aspect, width over height."""
    height, width = picture.shape[:2]
    across = max(0, round(aspect * height) - width)
    down = max(0, round(width / max(aspect, 1e-6)) - height) if across == 0 else 0
    pad = [(down // 2, down - down // 2), (across // 2, across - across // 2), *[(0, 0)] * (picture.ndim - 2)]
    return np.pad(picture, pad, constant_values=colour) if across or down else picture
