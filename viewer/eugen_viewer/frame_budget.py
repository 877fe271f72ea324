"""Chooses image sizes that can be rendered within a time budget, and how many features a moving image has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

SMALLEST = 24
"""Pixels along the shorter side below which nothing is recognisable."""
_FINER = 1.3
"""Factor of the side lengths from one refinement to the next at least."""
_MEMORY = 0.6
"""Weight of former measurements of a speed against a new one, apart from the numbers of rays."""
_MOST = 2.0
"""Factor by which the rays of a moving image change from one to the next at most."""
_CAUTION = 0.7
"""Exponent of that factor: part of an image's time does not depend on its rays."""
_UNKNOWN = 5e-4
"""Seconds a ray that are guessed for a model before it has rendered."""

_COARSE = 1 / 16
"""Of all pixels: a moving image with fewer is rendered narrower."""
_SETTLED = 6
"""Moving images after which their number of pixels fits a width."""


@dataclass
class MovingWidth:
    """The width of moving images, which follows from how many rays they can have.

    Attributes:
        steps: widths below the chosen ones.
    """

    steps: int = 0
    _images: int = 0

    def fit(self, rays: float, full: float, costs: Sequence[float]) -> float:
        """Chooses the width of the next moving images; to be called after each.

        Args:
            rays: that the next image can have at the present width.
            full: of the finest image.
            costs: of a ray with the chosen width, and with each width below it; in any unit.

        Returns:
            How many times as many rays the next image can have by the change.
        """
        self._images += 1
        if self._images < _SETTLED:
            return 1.0
        now = min(self.steps, len(costs) - 1)
        # back only with room to spare, so that the width does not swing
        least = [2 * _COARSE if i < now else _COARSE for i in range(len(costs))]
        fitting = (i for i, cost in enumerate(costs) if rays * costs[now] / cost >= least[i] * full)
        self.steps = next(fitting, len(costs) - 1)
        if self.steps != now:
            self._images = 0
        return costs[now] / costs[self.steps]


@dataclass
class FrameBudget:
    """Measured speeds of the models, and the image sizes that follow from them.

    Attributes:
        moving_seconds: seconds for an image while the camera moves, from its camera to its sending: at least 10 a
            second.
        first_seconds: seconds for the first image at rest.
        patient_seconds: seconds of the largest image within which no size between is rendered first.
        max_size: pixels along the longer side of the image at full resolution.
    """

    moving_seconds: float = 0.08
    first_seconds: float = 0.25
    patient_seconds: float = 1.0
    max_size: int = 512
    _spent: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Seconds, and rays rendered in them, by model; the longer ago, the less they count."""
    _moving_rays: dict[tuple[str, ...], float] = field(default_factory=dict)
    """Rays of the next moving image, by its models."""
    _widths: dict[tuple[str, ...], MovingWidth] = field(default_factory=dict)

    def record_speed(self, name: str, rays: int, seconds: float) -> None:
        """Records that a model rendered a number of rays in a time."""
        if rays <= 0 or seconds <= 0:
            return
        old_seconds, old_rays = self._spent.get(name, (0.0, 0.0))
        self._spent[name] = (_MEMORY * old_seconds + seconds, _MEMORY * old_rays + rays)

    def record_moving(
        self, names: list[str], rays: int, seconds: float, *, full: float = math.inf, costs: Sequence[float] = (1.0,)
    ) -> None:
        """Records that an image of several models took a time while the camera moved, encoding and sending included.

        Args:
            names: of the models.
            rays: of the image.
            seconds: that it took.
            full: rays of the finest image.
            costs: as `MovingWidth.fit` takes them.
        """
        change = (self.moving_seconds / max(seconds, 1e-6)) ** _CAUTION
        following = rays * min(max(change, 1 / _MOST), _MOST)
        width = self._widths.setdefault(tuple(names), MovingWidth())
        self._moving_rays[tuple(names)] = following * width.fit(following, full, costs)

    def narrower(self, names: list[str]) -> int:
        """Widths below the chosen ones with which several models render the next image while the camera moves."""
        width = self._widths.get(tuple(names))
        return 0 if width is None else width.steps

    def is_measured(self, name: str) -> bool:
        """Whether a model has been measured."""
        return name in self._spent

    def seconds_per_ray(self, names: list[str]) -> float:
        """Seconds for one ray through each of several models; a cautious guess for unmeasured ones."""
        spent = [self._spent.get(name, (_UNKNOWN, 1.0)) for name in names]
        return sum(seconds / rays for seconds, rays in spent)

    def size(self, names: list[str], aspect: float, seconds: float, max_size: int | None = None) -> tuple[int, int]:
        """Height and width of an image that several models can render within a time.

        Args:
            names: of the models; each renders the whole image.
            aspect: width over height.
            seconds: for the image.
            max_size: pixels along its longer side; None uses the viewer's limit.
        """
        return self._size_of(seconds / max(self.seconds_per_ray(names), 1e-9), aspect, max_size)

    def moving_size(
        self, names: list[str], aspect: float, share: float = 1.0, max_size: int | None = None
    ) -> tuple[int, int]:
        """Height and width of the next image while the camera moves, from how long the last one took.

        Args:
            names: of the models.
            aspect: width over height.
            share: of the image that each of them renders.
            max_size: as in `size`.
        """
        first = share * self.seconds_per_ray(names)
        rays = self._moving_rays.get(tuple(names), self.moving_seconds / max(first, 1e-9))
        return self._size_of(rays, aspect, max_size)

    def full_size(self, aspect: float, max_size: int | None = None) -> tuple[int, int]:
        """Height and width of the finest image."""
        return self._size_of(math.inf, aspect, max_size)

    def next_size(
        self, names: list[str], aspect: float, shown_height: int = 0, max_size: int | None = None
    ) -> tuple[int, int]:
        """Height and width of the next image at rest, finer than the one shown: half the finest's sides, a quarter, ...

        So all images before the finest take a third of its time together.

        Args:
            names: of the models.
            aspect: width over height.
            shown_height: of the image shown; 0 for none.
            max_size: as in `size`.
        """
        last = self.full_size(aspect, max_size)
        if self.seconds_per_ray(names) * last[0] * last[1] <= self.patient_seconds:
            return last
        least = max(self.size(names, aspect, self.first_seconds, max_size)[0], _FINER * shown_height)
        height = float(last[0])
        while height / 2 >= least:
            height /= 2
        return last if height == last[0] else fit_size(height, aspect, max_size or self.max_size)

    def _size_of(self, rays: float, aspect: float, max_size: int | None) -> tuple[int, int]:
        return fit_size(math.sqrt(rays / aspect), aspect, max_size or self.max_size)


def fit_size(height: float, aspect: float, max_size: int) -> tuple[int, int]:
    """Height and width for an aspect: the given height, limited so that sides are between `SMALLEST` and `max_size`."""
    if not 0 < aspect < math.inf:
        aspect = 1.0
    aspect = min(max(aspect, 0.05), 20.0)
    height = min(height, max_size, max_size / aspect)
    least = min(SMALLEST, max_size) / min(aspect, 1.0)
    height = min(max(height, least), max_size, max(max_size / aspect, 1.0))
    return max(1, round(height)), max(1, round(height * aspect))
