"""How large a picture may be, so that it is there in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SMALLEST = 24
"""Pixels along the shorter side below which nothing can be recognised."""
_STEP = 2.0
"""How much longer the sides get from one refinement to the next."""
_MEMORY = 0.6
"""Weight of what was known of the speed before, against a new measurement."""


@dataclass
class Pace:
    """Speeds of the models on show, and the sizes that follow from them.

    Attributes:
        moving: seconds that a picture may take while the camera moves.
        first: seconds for the first picture after it has come to rest.
        largest: pixels along the longer side of the finest picture.
    """

    moving: float = 0.15
    first: float = 0.4
    largest: int = 512
    _seconds: dict[str, float] = field(default_factory=dict)
    """For a ray, by model."""

    def learn(self, name: str, rays: int, seconds: float) -> None:
        """Takes in that a model rendered so many rays in so many seconds."""
        if rays <= 0 or seconds <= 0:
            return
        new = seconds / rays
        old = self._seconds.get(name)
        self._seconds[name] = new if old is None else _MEMORY * old + (1 - _MEMORY) * new

    def known(self, name: str) -> bool:
        """Whether a model has been measured."""
        return name in self._seconds

    def ray_seconds(self, names: list[str]) -> float:
        """Seconds for one ray through each of several models; a careful guess for those not yet measured."""
        return sum(self._seconds.get(name, 5e-4) for name in names)

    def size(self, names: list[str], aspect: float, seconds: float, largest: int | None = None) -> tuple[int, int]:
        """Height and width of a picture that several models render within a time.

        Args:
            names: of the models; each renders the whole picture.
            aspect: width over height.
            seconds: for the picture.
            largest: pixels along its longer side; the viewer's limit where None.
        """
        rays = seconds / max(self.ray_seconds(names), 1e-9)
        return fitted(math.sqrt(rays / aspect), aspect, self.largest if largest is None else largest)

    def stages(self, names: list[str], aspect: float, largest: int | None = None) -> list[tuple[int, int]]:
        """Sizes of a resting picture, coarse to fine: each four times the pixels of the one before, the last whole."""
        limit = self.largest if largest is None else largest
        last = fitted(math.inf, aspect, limit)
        height, width = self.size(names, aspect, self.first, limit)
        sizes = []
        while height < last[0] / 1.3:
            sizes.append((height, width))
            height, width = fitted(height * _STEP, aspect, limit)
        return [*sizes, last]


def fitted(height: float, aspect: float, largest: int) -> tuple[int, int]:
    """Height and width of an aspect: the height asked for, but no side above `largest`, nor below `SMALLEST`."""
    if not 0 < aspect < math.inf:
        aspect = 1.0
    aspect = min(max(aspect, 0.05), 20.0)
    height = min(height, largest, largest / aspect)
    least = min(SMALLEST, largest) / min(aspect, 1.0)
    height = min(max(height, least), largest, max(largest / aspect, 1.0))
    return max(1, round(height)), max(1, round(height * aspect))
