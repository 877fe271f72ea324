"""Chooses image sizes that can be rendered within a time budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SMALLEST = 24
"""Pixels along the shorter side below which nothing is recognisable."""
_STEP = 2.0
"""Factor of the side lengths from one refinement to the next."""
_MEMORY = 0.6
"""Weight of the previous speed against a new measurement."""


@dataclass
class FrameBudget:
    """Measured speeds of the models, and the image sizes that follow from them.

    Attributes:
        moving_seconds: seconds for an image while the camera moves.
        first_seconds: seconds for the first image at rest.
        max_size: pixels along the longer side of the image at full resolution.
    """

    moving_seconds: float = 0.15
    first_seconds: float = 0.4
    max_size: int = 512
    _seconds: dict[str, float] = field(default_factory=dict)
    """Per ray, by model."""

    def record_speed(self, name: str, rays: int, seconds: float) -> None:
        """Records that a model rendered a number of rays in a time."""
        if rays <= 0 or seconds <= 0:
            return
        new = seconds / rays
        old = self._seconds.get(name)
        self._seconds[name] = new if old is None else _MEMORY * old + (1 - _MEMORY) * new

    def is_measured(self, name: str) -> bool:
        """Whether a model has been measured."""
        return name in self._seconds

    def seconds_per_ray(self, names: list[str]) -> float:
        """Seconds for one ray through each of several models; a cautious guess for unmeasured ones."""
        return sum(self._seconds.get(name, 5e-4) for name in names)

    def size(self, names: list[str], aspect: float, seconds: float, max_size: int | None = None) -> tuple[int, int]:
        """Height and width of an image that several models can render within a time.

        Args:
            names: of the models; each renders the whole image.
            aspect: width over height.
            seconds: for the image.
            max_size: pixels along its longer side; None uses the viewer's limit.
        """
        rays = seconds / max(self.seconds_per_ray(names), 1e-9)
        return fit_size(math.sqrt(rays / aspect), aspect, self.max_size if max_size is None else max_size)

    def stages(self, names: list[str], aspect: float, max_size: int | None = None) -> list[tuple[int, int]]:
        """Sizes of an image at rest, coarse to fine: each has four times the pixels of the previous one."""
        limit = self.max_size if max_size is None else max_size
        last = fit_size(math.inf, aspect, limit)
        height, width = self.size(names, aspect, self.first_seconds, limit)
        sizes = []
        while height < last[0] / 1.3:
            sizes.append((height, width))
            height, width = fit_size(height * _STEP, aspect, limit)
        return [*sizes, last]


def fit_size(height: float, aspect: float, max_size: int) -> tuple[int, int]:
    """Height and width for an aspect: the given height, limited so that sides are between `SMALLEST` and `max_size`."""
    if not 0 < aspect < math.inf:
        aspect = 1.0
    aspect = min(max(aspect, 0.05), 20.0)
    height = min(height, max_size, max_size / aspect)
    least = min(SMALLEST, max_size) / min(aspect, 1.0)
    height = min(max(height, least), max_size, max(max_size / aspect, 1.0))
    return max(1, round(height)), max(1, round(height * aspect))
