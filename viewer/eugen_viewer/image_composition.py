"""Composes the displayed image from outputs of one or two models."""

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
class DisplaySettings:
    """How images are composed.

    Attributes:
        mode: a split of both runs, one of them, or their difference.
        output: name of the displayed output.
        split: share of the width for the first run.
        full_scale: difference at the end of the colour scale, in units of the output (colours are in [0, 1]).
    """

    mode: Mode = "split"
    output: str = "rgb"
    split: float = 0.5
    full_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"images are shown as {', '.join(MODES)}, not as {self.mode!r}")
        if not 0 <= self.split <= 1:
            raise ConfigError(f"the split must be between 0 and 1, not {self.split:g}")
        if not self.full_scale > 0:
            raise ConfigError(f"the scale of a difference is above 0, not {self.full_scale:g}")

    def needs(self) -> tuple[bool, bool]:
        """Whether the first and the second run have to be rendered."""
        return self.mode != "second", self.mode != "first"

    def columns(self, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Visible columns of the first and of the second run."""
        if self.mode != "split":
            return (0, width), (0, width)
        edge = split_column(self.split, width)
        return (0, max(edge, 1)), (min(edge, width - 1), width)


def split_column(share: float, width: int) -> int:
    """The first column of the second run."""
    return min(max(round(share * width), 0), width)


def compose(settings: DisplaySettings, first: Outputs | None, second: Outputs | None, *, line: bool = True) -> Image8:
    """Composes the displayed image.

    Args:
        settings: how to compose.
        first: outputs `[height, width, channels]` of the first run; None if `settings` needs none.
        second: likewise for the second run.
        line: whether the halves of a split have a line between them.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        ConfigError: a run lacks the output, or the sizes differ.
    """
    a, b = (None if each is None else _output(each, settings.output) for each in (first, second))
    if settings.mode == "first":
        return _coloured(a)[0]
    if settings.mode == "second":
        return _coloured(b)[0]
    if a is None or b is None or a.shape != b.shape:
        raise ConfigError("a split or a difference needs images of both runs, in one size")
    if settings.mode == "difference":
        return difference_image(a, b, settings.full_scale)
    left, right = _coloured(a, b)
    edge = split_column(settings.split, a.shape[1])
    image = np.concatenate([left[:, :edge], right[:, edge:]], axis=1)
    if line and 0 < edge < a.shape[1]:
        image[:, edge] = LINE
    return image


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


def _coloured(*images: NDArray[np.float32] | None) -> list[Image8]:
    """Colours unchanged; single channels mapped to colours, over the common range of all images."""
    given = [p for p in images if p is not None]
    if given[0].shape[-1] == 3:
        return [np.floor(np.clip(np.nan_to_num(p), 0, 1) * 255.0 + 0.5).astype(np.uint8) for p in given]
    finite = np.concatenate([p[np.isfinite(p) & (p != 0)] for p in given])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return [map_colours((p[..., 0] - low) / max(high - low, 1e-6), VALUE_COLOURS) for p in given]


def pad_to_aspect(image: NDArray[Any], aspect: float, colour: int = 24) -> NDArray[Any]:
    """An image `[height, width, ...]` padded to another aspect, width over height."""
    height, width = image.shape[:2]
    across = max(0, round(aspect * height) - width)
    down = max(0, round(width / max(aspect, 1e-6)) - height) if across == 0 else 0
    pad = [(down // 2, down - down // 2), (across // 2, across - across // 2), *[(0, 0)] * (image.ndim - 2)]
    return np.pad(image, pad, constant_values=colour) if across or down else image
