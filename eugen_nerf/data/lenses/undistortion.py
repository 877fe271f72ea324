"""Lenses of photographs and depth images, and their undistortion with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Model = Literal["perspective", "fisheye"]
RATIO_TOLERANCE, MIN_RESCALING = 0.03, 0.3
"""Tolerance of the ratio of both axes, and the smallest change of size that is distinguished from an off-centre
lens."""


@dataclass(frozen=True)
class Lens:
    """A lens; pixels count from the image's upper left corner: the first pixel's centre is (0.5, 0.5).

    Attributes:
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels.
        size: (width, height) of the images to which these pixels refer; None if unknown.
        model: perspective, or fisheye (equidistant).
        radial: coefficients of r^2, r^4, r^6, r^8 (fisheye: of powers of the angle to the optical axis).
        tangential: p1, p2.
        divisor: coefficients of r^2, r^4, r^6 in the radial term's divisor (OpenCV's k4, k5, k6).
    """

    fx: float
    fy: float
    cx: float
    cy: float
    size: Size | None = None
    model: Model = "perspective"
    radial: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    divisor: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of_nerfstudio(
        cls, numbers: Sequence[float], size: Size | None, model: Model, distortion: Sequence[float]
    ) -> Lens:
        """Of fx, fy, cx, cy and nerfstudio's distortion parameters k1, k2, k3, k4, p1, p2 (or none)."""
        fx, fy, cx, cy = numbers
        k1, k2, k3, k4, p1, p2 = distortion or (0.0,) * 6
        return cls(fx, fy, cx, cy, size, model, (k1, k2, k3, k4), (p1, p2))

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy: also of the undistorted images."""
        return self.fx, self.fy, self.cx, self.cy

    def with_pinhole(self, numbers: Sequence[float], size: Size | None) -> Lens:
        """The same distortion with other fx, fy, cx, cy, in pixels of images of a size."""
        fx, fy, cx, cy = numbers
        return replace(self, fx=fx, fy=fy, cx=cx, cy=cy, size=size)

    @property
    def distorted(self) -> bool:
        """Whether straight lines are distorted."""
        return self.model == "fisheye" or any((*self.radial, *self.tangential, *self.divisor))

    def scaled_to(self, size: Size) -> Lens:
        """The lens of the same images, resized; its own size must be known."""
        assert self.size is not None
        x, y = size[0] / self.size[0], size[1] / self.size[1]
        return replace(self, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y, size=size)

    def project(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Projects rays to pixels: `x, y` are right and down for a unit step forward."""
        distances = np.hypot(x, y)
        inside = distances < self._max_valid_radius(float(distances.max()))
        if self.model == "fisheye":  # the same formula, with the angle to the axis for its tangent
            angle = np.where(distances > 0, np.arctan(distances) / np.maximum(distances, 1e-12), 1.0)
            x, y = x * angle, y * angle
        s, (p1, p2) = np.square(x) + np.square(y), self.tangential
        factor = _polynomial(self.radial, s) / _polynomial(self.divisor, s)
        image_x = x * factor + 2 * p1 * x * y + p2 * (s + 2 * x * x)
        image_y = y * factor + 2 * p2 * x * y + p1 * (s + 2 * y * y)
        return tuple(  # type: ignore[return-value]
            np.where(inside, f * v + c, -np.inf)
            for f, v, c in ((self.fx, image_x, self.cx), (self.fy, image_y, self.cy))
        )

    def _max_valid_radius(self, largest: float) -> float:
        """Radius, up to `largest`, at which the radial term first decreases: it is invalid beyond."""
        r = np.linspace(0.0, max(largest, 1e-6), 4096, dtype=np.float64)
        t = np.arctan(r) if self.model == "fisheye" else r
        distortion = t * _polynomial(self.radial, np.square(t)) / _polynomial(self.divisor, np.square(t))
        turns = np.flatnonzero(~(np.diff(distortion) > 0))
        return float(r[turns[0]]) if len(turns) else np.inf


@lru_cache(maxsize=8)
def undistortion_maps(lens: Lens) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row `[h, w]` in the distorted image, in OpenCV's convention, of each pixel of the pinhole image.

    The pinhole image has the same size, focal lengths and principal point. A pixel that the lens does not cover has
    coordinates outside the image.
    """
    assert lens.size is not None
    width, height = lens.size
    x, y = np.meshgrid((np.arange(width) + 0.5 - lens.cx) / lens.fx, (np.arange(height) + 0.5 - lens.cy) / lens.fy)
    columns, rows = (np.clip(v - 0.5, -1e4, 1e6).astype(np.float32) for v in lens.project(x, y))
    return columns, rows


def undistorted(image: NDArray[Any], lens: Lens, *, nearest: bool, unknown: float = 0.0) -> NDArray[Any]:
    """The pinhole image `[h, w]` or `[h, w, channels]` of an image taken through a lens, of the same size and type.

    Arguments:
        image: of the size of the lens.
        lens: with a known size.
        nearest: use the nearest pixel (depth, masks) instead of interpolation.
        unknown: value of pixels that the lens does not cover.
    """
    columns, rows = undistortion_maps(lens)
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    border = (unknown,) * 4
    return cv2.remap(image, columns, rows, method, borderMode=cv2.BORDER_CONSTANT, borderValue=border)


def undistorted_mask(mask: NDArray[np.bool_], lens: Lens, *, unknown: bool) -> NDArray[np.bool_]:
    """The pinhole image `[h, w]` of a mask: set where any of the four nearest pixels is set."""
    found = undistorted(mask.astype(np.float32), lens, nearest=False, unknown=float(unknown))
    return found > 0


def rescaling_factor(centre: tuple[float, float], size: Size) -> float | None:
    """Ratio to `size` of the images whose middle is a principal point; None if it fits `size`.

    Intrinsics that were not scaled with their images miss the middle by the same share along both sides.
    """
    x, y = 2 * centre[0] / size[0], 2 * centre[1] / size[1]
    ratio = 0.5 * (x + y)
    return ratio if abs(x - y) <= RATIO_TOLERANCE * ratio and abs(ratio - 1) > MIN_RESCALING else None


def visible_share(lens: Lens) -> float:
    """Share of the pinhole image's pixels that the lens covers."""
    assert lens.size is not None
    columns, rows = undistortion_maps(lens)
    shown = (columns > -0.5) & (columns < lens.size[0] - 0.5) & (rows > -0.5) & (rows < lens.size[1] - 0.5)
    return float(shown.mean())


def _polynomial(factors: Sequence[float], s: NDArray[np.float64]) -> NDArray[np.float64]:
    """`1 + factors[0] s + factors[1] s^2 + ...`."""
    return np.polynomial.polynomial.polyval(s, (1.0, *factors))
