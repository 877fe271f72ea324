"""Pinhole cameras in the Blender / OpenGL convention (x right, y up, looking along -z) and where to place them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
HEIGHT_BAND = (0.12, 0.94)
"""Lowest and highest camera of a scene, as shares of the radius."""
JITTER = 0.5
"""Random displacement of a camera, as a share of its cell on the sphere."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and a centred principal point.

    Arguments:
        pose: camera-to-world matrix [4, 4] float64, rigid.
        width, height: image size in pixels.
        angle_x: horizontal field of view in radians, between 0 and pi.
    """

    pose: Array
    width: int
    height: int
    angle_x: float

    @property
    def focal(self) -> float:
        """Focal length in pixels: 0.5 width / tan(0.5 angle_x)."""
        return 0.5 * self.width / float(np.tan(0.5 * self.angle_x))

    def rays(self, columns: Array, rows: Array) -> tuple[Array, Array]:
        """World rays through image positions.

        Arguments:
            columns, rows: positions [N] in pixels, from the image's upper left corner: pixel (i, j) covers
                [i, i + 1) x [j, j + 1).

        Returns origins [N, 3] and unit directions [N, 3], float64.
        """
        local = np.stack(
            [(columns - 0.5 * self.width) / self.focal, -(rows - 0.5 * self.height) / self.focal, -np.ones_like(rows)],
            axis=-1,
        )
        directions = local @ self.pose[:3, :3].T
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        return np.broadcast_to(self.pose[:3, 3], directions.shape), directions


def look_at(position: Array, target: Array) -> Array:
    """Camera-to-world matrix [4, 4] at `position` [3] looking at `target` [3] with the world's z upwards.

    The line of sight must not be vertical.
    """
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    norm = np.linalg.norm(right)
    assert norm > 1e-6, "a vertical line of sight leaves the image's up direction open"
    right = right / norm
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=-1)
    pose[:3, 3] = position
    return pose


def hemisphere_positions(rng: np.random.Generator, count: int, radius: float) -> Array:
    """Positions [count, 3] spread over the upper part of a sphere around the origin.

    A Fibonacci lattice of equal areas in `HEIGHT_BAND`, its azimuth in steps of the golden angle, is turned by a random
    angle. Then each point is moved at random within its cell.
    """
    low, high = HEIGHT_BAND
    index = np.arange(count) + 0.5 + JITTER * rng.uniform(-0.5, 0.5, size=count)
    z = low + (high - low) * index / count
    golden = np.pi * (3.0 - np.sqrt(5.0))
    azimuth = rng.uniform(0.0, 2.0 * np.pi) + golden * np.arange(count)
    azimuth = azimuth + JITTER * rng.uniform(-0.5, 0.5, size=count) * np.sqrt(2.0 * np.pi / count)
    across = np.sqrt(1.0 - z**2)
    return radius * np.stack([across * np.cos(azimuth), across * np.sin(azimuth), z], axis=-1)
