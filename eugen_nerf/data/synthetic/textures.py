"""Procedural textures and materials: linear RGB as a function of the position in object coordinates.

Every texture is a frozen dataclass called with points [N, 3] (float64, object coordinates, world-unit lengths) and
returns linear RGB [N, 3] in [0, 1]. The same points give the same colours.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Texture = Callable[[Array], Array]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class PlainColour:
    """One colour everywhere."""

    color: Color

    def __call__(self, points: Array) -> Array:
        """Linear RGB [N, 3] at points [N, 3]."""
        return np.broadcast_to(np.asarray(self.color), points.shape).copy()


@dataclass(frozen=True)
class Checker:
    """Two colours on a lattice of cubes with edge `size` (world units), shifted by `offset` [3]."""

    first: Color
    second: Color
    size: float
    offset: Color = (0.0, 0.0, 0.0)

    def __call__(self, points: Array) -> Array:
        """Linear RGB [N, 3] at points [N, 3]."""
        cells = np.floor((points + np.asarray(self.offset)) / self.size).astype(np.int64).sum(-1)
        return np.where((cells % 2 == 0)[:, None], np.asarray(self.first), np.asarray(self.second))


@dataclass(frozen=True)
class Stripes:
    """Two colours in bands across `direction` [3] with the given period (world units), their edges softened.

    The weight of the second colour is a logistic function of `sharpness` * sin(2 pi <p, direction> / period).
    """

    first: Color
    second: Color
    direction: Color
    period: float
    sharpness: float = 6.0

    def __call__(self, points: Array) -> Array:
        """Linear RGB [N, 3] at points [N, 3]."""
        axis = np.asarray(self.direction) / np.linalg.norm(self.direction)
        wave = self.sharpness * np.sin(2.0 * np.pi * (points @ axis) / self.period)
        return _mixed(self.first, self.second, _logistic(wave))


@dataclass(frozen=True)
class Noise:
    """Two colours mixed by smooth band-limited noise: a sum of plane waves with the given wave vectors [K, 3].

    The weight of the second colour is a logistic function of `contrast` * sqrt(2 / K) * sum_k sin(<w_k, p> + phase_k).
    """

    first: Color
    second: Color
    waves: tuple[Color, ...]
    phases: tuple[float, ...]
    contrast: float = 2.0

    def __call__(self, points: Array) -> Array:
        """Linear RGB [N, 3] at points [N, 3]."""
        angle = points @ np.asarray(self.waves).T + np.asarray(self.phases)
        total = np.sin(angle).sum(-1) * np.sqrt(2.0 / len(self.phases))
        return _mixed(self.first, self.second, _logistic(self.contrast * total))


@dataclass(frozen=True)
class Product:
    """The product of two textures: one modulates the other."""

    first: Texture
    second: Texture

    def __call__(self, points: Array) -> Array:
        """Linear RGB [N, 3] at points [N, 3]."""
        return self.first(points) * self.second(points)


@dataclass(frozen=True)
class Material:
    """Reflectance of a surface: a texture as albedo, and a Blinn-Phong lobe if `specular` > 0.

    `specular` is the lobe's peak in linear radiance under a unit light, `shininess` its exponent.
    """

    texture: Texture = field(default_factory=lambda: PlainColour((0.5, 0.5, 0.5)))
    specular: float = 0.0
    shininess: float = 32.0


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Linear RGB of a colour given as sRGB hue (turns, wraps), saturation and value in [0, 1]."""
    red, green, blue = from_srgb(np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)))
    return (float(red), float(green), float(blue))


def random_noise(
    rng: np.random.Generator, first: Color, second: Color, *, wavelength: float, waves: int = 8, contrast: float = 2.0
) -> Noise:
    """`Noise` with isotropic wave vectors whose wavelengths lie within a factor 0.7 to 1.6 of `wavelength`."""
    axes = rng.normal(size=(waves, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    lengths = 2.0 * np.pi / (wavelength * rng.uniform(0.7, 1.6, size=(waves, 1)))
    vectors = tuple((float(x), float(y), float(z)) for x, y, z in axes * lengths)
    phases = tuple(float(phase) for phase in rng.uniform(0.0, 2.0 * np.pi, size=waves))
    return Noise(first, second, vectors, phases, contrast)


def to_srgb(linear: Array) -> Array:
    """IEC 61966-2-1 encoding of linear values in [0, 1]; values outside are clipped."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-12) ** (1.0 / 2.4) - 0.055)


def from_srgb(encoded: Array) -> Array:
    """Inverse of `to_srgb` on [0, 1]."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _logistic(value: Array) -> Array:
    """1 / (1 + exp(-value)) without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * value)


def _mixed(first: Color, second: Color, weight: Array) -> Array:
    """(1 - weight) first + weight second for weight [N]."""
    return np.asarray(first) + weight[:, None] * (np.asarray(second) - np.asarray(first))
