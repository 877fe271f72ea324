"""Convex solids with exact signed distances: negative inside, in the unit of the coordinates, float64.

For each solid |d| is the distance to the nearest point of its surface, inside and outside alike. `Room` is a hollow
box with solids in it, and the minimum of their distances is exact in free space. Inside solids and walls its magnitude
is a lower bound: it is too small where solids overlap each other or a wall, because the faces between them are not part
of the surface of the whole.

Formulas of the distances: Inigo Quilez, "distance functions" (iquilezles.org); the gradients are their derivatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Vector = tuple[float, float, float]


class Solid(ABC):
    """A convex solid."""

    @abstractmethod
    def distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        """Signed distance [N] and its gradient [N, 3] of unit length at points [N, 3].

        If the nearest surface point is not unique (on the axes of a box, at a centre) the gradient is one of the
        choices.
        """

    @abstractmethod
    def crossings(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Intersections of lines with the solid: entry and exit [N] in multiples of `directions` [N, 3], entry <= exit.

        A line that misses has entry inf and exit -inf.
        """

    @property
    @abstractmethod
    def area(self) -> float:
        """Area of the surface."""

    @abstractmethod
    def surface_points(self, rng: np.random.Generator, count: int) -> Array:
        """Points [count, 3] uniform on the surface."""

    def distance(self, points: Array) -> Array:
        """Signed distance [N] at points [N, 3]."""
        return self.distance_and_gradient(points)[0]


@dataclass(frozen=True)
class Sphere(Solid):
    """A ball."""

    center: Vector
    radius: float

    def distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        """As in `Solid`."""
        local = points - np.array(self.center)
        length = np.linalg.norm(local, axis=-1)
        return length - self.radius, local / np.maximum(length, 1e-300)[:, None]

    def crossings(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """As in `Solid`."""
        return _quadratic(origins - np.array(self.center), directions, self.radius)

    @property
    def area(self) -> float:
        """As in `Solid`."""
        return 4.0 * np.pi * self.radius**2

    def surface_points(self, rng: np.random.Generator, count: int) -> Array:
        """As in `Solid`."""
        normals = rng.normal(size=(count, 3))
        return np.array(self.center) + self.radius * normals / np.linalg.norm(normals, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Box(Solid):
    """A box of half extents `half`, rotated around the vertical axis by `yaw` radians."""

    center: Vector
    half: Vector
    yaw: float = 0.0

    def distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        """As in `Solid`."""
        turn = self._turn()
        local = (points - np.array(self.center)) @ turn
        distance, along = _corner_distance(np.abs(local) - np.array(self.half))
        return distance, (along * np.where(local < 0.0, -1.0, 1.0)) @ turn.T

    def crossings(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """As in `Solid`."""
        turn = self._turn()
        local = (origins - np.array(self.center)) @ turn
        return _slabs(local, directions @ turn, np.array(self.half))

    @property
    def area(self) -> float:
        """As in `Solid`."""
        x, y, z = self.half
        return 8.0 * (x * y + y * z + z * x)

    def surface_points(self, rng: np.random.Generator, count: int) -> Array:
        """As in `Solid`."""
        half = np.array(self.half)
        faces = half.prod() / half
        axis = rng.choice(3, size=count, p=faces / faces.sum())
        local = rng.uniform(-1.0, 1.0, size=(count, 3)) * half
        local[np.arange(count), axis] = half[axis] * rng.choice([-1.0, 1.0], size=count)
        return np.array(self.center) + local @ self._turn().T

    def _turn(self) -> Array:
        """Rotation [3, 3] from the box's axes to the world's."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Cylinder(Solid):
    """An upright cylinder with flat ends."""

    center: Vector
    radius: float
    half_height: float

    def distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        """As in `Solid`."""
        local = points - np.array(self.center)
        ring = np.linalg.norm(local[:, :2], axis=-1)
        q = np.stack([ring - self.radius, np.abs(local[:, 2]) - self.half_height], axis=-1)
        distance, along = _corner_distance(q)
        gradient = np.empty_like(local)
        gradient[:, :2] = along[:, :1] * local[:, :2] / np.maximum(ring, 1e-300)[:, None]
        gradient[:, 2] = along[:, 1] * np.where(local[:, 2] < 0.0, -1.0, 1.0)
        return distance, gradient

    def crossings(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """As in `Solid`."""
        local = origins - np.array(self.center)
        side_in, side_out = _quadratic(local[:, :2], directions[:, :2], self.radius)
        cap_in, cap_out = _slabs(local[:, 2:], directions[:, 2:], np.array([self.half_height]))
        return _overlap(np.maximum(side_in, cap_in), np.minimum(side_out, cap_out))

    @property
    def area(self) -> float:
        """As in `Solid`."""
        return 2.0 * np.pi * self.radius * (self.radius + 2.0 * self.half_height)

    def surface_points(self, rng: np.random.Generator, count: int) -> Array:
        """As in `Solid`."""
        angle = rng.uniform(0.0, 2.0 * np.pi, size=count)
        on_side = rng.uniform(size=count) * (self.radius + 2.0 * self.half_height) < 2.0 * self.half_height
        ring = self.radius * np.where(on_side, 1.0, np.sqrt(rng.uniform(size=count)))
        ends = rng.choice([-1.0, 1.0], size=count)
        height = self.half_height * np.where(on_side, rng.uniform(-1.0, 1.0, size=count), ends)
        return np.array(self.center) + np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=-1)


def _corner_distance(q: Array) -> tuple[Array, Array]:
    """Distance [N] and its gradient [N, k] to the corner region q <= 0, for the heights q [N, k] over its k faces."""
    beyond = np.maximum(q, 0.0)
    outside = np.linalg.norm(beyond, axis=-1)
    nearest = q.argmax(axis=-1)
    inside = np.minimum(q[np.arange(len(q)), nearest], 0.0)
    along = np.where(
        (outside > 0.0)[:, None], beyond / np.maximum(outside, 1e-300)[:, None], np.eye(q.shape[1])[nearest]
    )
    return outside + inside, along


def _slabs(origins: Array, directions: Array, half: Array) -> tuple[Array, Array]:
    """Crossings of lines with |x_i| <= half_i for all i, `origins` and `directions` [N, k]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (-half - origins) / directions, (half - origins) / directions
    flat = directions == 0.0
    within = np.abs(origins) <= half
    enter = np.where(flat, np.where(within, -np.inf, np.inf), np.minimum(first, second)).max(axis=-1)
    leave = np.where(flat, np.where(within, np.inf, -np.inf), np.maximum(first, second)).min(axis=-1)
    return _overlap(enter, leave)


def _quadratic(origins: Array, directions: Array, radius: float) -> tuple[Array, Array]:
    """Crossings of lines with |x| <= radius, `origins` and `directions` [N, k]."""
    a = (directions * directions).sum(-1)
    b = (origins * directions).sum(-1)
    c = (origins * origins).sum(-1) - radius**2
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(b * b - a * c)  # NaN where the line misses
        enter, leave = (-b - root) / a, (-b + root) / a
    parallel, misses = a == 0.0, ~np.isfinite(root)
    enter = np.where(parallel, np.where(c <= 0.0, -np.inf, np.inf), np.where(misses, np.inf, enter))
    leave = np.where(parallel, np.where(c <= 0.0, np.inf, -np.inf), np.where(misses, -np.inf, leave))
    return enter, leave


def _overlap(enter: Array, leave: Array) -> tuple[Array, Array]:
    """The pair where it is in order, a miss elsewhere."""
    hit = enter <= leave
    return np.where(hit, enter, np.inf), np.where(hit, leave, -np.inf)
