"""Triangle meshes of simple solids, in object coordinates.

Lengths are world units, z points up, faces are counter-clockwise seen from outside. Normals are stored per vertex, so
a smooth solid shares vertices between faces and a solid with creases repeats them.

These are not trimesh's primitives: trimesh tessellates them differently and weights normals by angle. Generated scenes
would change, and every published figure with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """Vertices [V, 3] float64, their unit normals [V, 3] float64, triangles [F, 3] int64 (indices of vertices)."""

    vertices: Array
    normals: Array
    faces: NDArray[np.int64]


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh with all triangles of `meshes`, vertices in the given order."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]),
    )


def moved(mesh: Mesh, offset: Sequence[float]) -> Mesh:
    """The mesh translated by `offset` [3]."""
    return Mesh(mesh.vertices + np.asarray(offset, dtype=np.float64), mesh.normals, mesh.faces)


def smooth_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Area-weighted vertex normals [V, 3]: the normalised sum of the cross products of the faces at each vertex."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(total, faces[:, corner], cross)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-30)


def _grid_faces(rows: int, columns: int, *, close_rows: bool = False) -> NDArray[np.int64]:
    """Two triangles per cell of a [rows, columns] vertex grid whose columns wrap; rows wrap too with `close_rows`."""
    row, column = np.meshgrid(np.arange(rows if close_rows else rows - 1), np.arange(columns), indexing="ij")
    below, right = (row + 1) % rows, (column + 1) % columns
    a, b = row * columns + column, row * columns + right
    c, d = below * columns + right, below * columns + column
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def sphere(radius: float, *, rings: int = 48, segments: int = 96) -> Mesh:
    """A sphere around the origin; vertices lie on it, faces are inside by at most radius * (pi / rings)^2 / 4."""
    polar = np.linspace(np.pi, 0.0, rings + 1)[:, None]
    azimuth = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)[None]
    normals = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar) + 0.0 * azimuth], -1
    ).reshape(-1, 3)
    return Mesh(radius * normals, normals, _grid_faces(rings + 1, segments))


def box(size: Sequence[float]) -> Mesh:
    """An axis-aligned box around the origin with edge lengths `size` [3] and flat faces (24 vertices)."""
    half = 0.5 * np.asarray(size, dtype=np.float64)
    vertices: list[Array] = []
    normals: list[Array] = []
    faces: list[list[int]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            u, v = np.roll(np.eye(3), -axis, axis=0)[1:]
            if sign < 0:
                u, v = v, u
            corners = [normal - u - v, normal + u - v, normal + u + v, normal - u + v]
            start = 4 * len(normals)
            vertices += [corner * half for corner in corners]
            normals.append(np.tile(normal, (4, 1)))
            faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
    return Mesh(np.array(vertices), np.concatenate(normals), np.array(faces, dtype=np.int64))


def revolved(profile: Sequence[tuple[float, float]], *, segments: int = 64) -> Mesh:
    """A surface of revolution around z with a crease at each profile point.

    `profile` lists (radius, height) from the lowest point to the highest, the solid on its left, so that normals point
    outwards; start and end at radius 0 to close the solid.
    """
    azimuth = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    around = np.stack([np.cos(azimuth), np.sin(azimuth)], -1)
    bands = []
    for (radius0, height0), (radius1, height1) in pairwise(profile):
        slope = np.array([height1 - height0, radius0 - radius1])
        slope = slope / np.linalg.norm(slope)
        ends = [np.column_stack([radius * around, np.full(segments, height)]) for radius, height in
                ((radius0, height0), (radius1, height1))]  # fmt: skip
        normal = np.column_stack([slope[0] * around, np.full(segments, slope[1])])
        bands.append(Mesh(np.concatenate(ends), np.concatenate([normal, normal]), _grid_faces(2, segments)))
    return merge(bands)


def cylinder(radius: float, height: float, *, segments: int = 48) -> Mesh:
    """A closed cylinder standing on z = 0."""
    return revolved([(0.0, 0.0), (radius, 0.0), (radius, height), (0.0, height)], segments=segments)


def cone(radius: float, height: float, *, segments: int = 48) -> Mesh:
    """A closed cone standing on z = 0 with its tip at z = height."""
    return revolved([(0.0, 0.0), (radius, 0.0), (0.0, height)], segments=segments)


def tube(curve: Callable[[Array], Array], radius: float, *, steps: int, sides: int = 24) -> Mesh:
    """A tube of `radius` around a closed curve, a map from t [N] in [0, 2 pi) to points [N, 3]."""
    t = np.linspace(0.0, 2.0 * np.pi, steps, endpoint=False)
    step = 1e-4
    points, ahead, behind = curve(t), curve(t + step), curve(t - step)
    tangent = ahead - behind
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    # The frame is built from the position itself: continuous and closed for curves that wind around the origin.
    side = np.cross(tangent, points)
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    out = np.cross(side, tangent)
    angle = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)[None, :, None]
    normals = np.cos(angle) * out[:, None] + np.sin(angle) * side[:, None]
    vertices = points[:, None] + radius * normals
    return Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), _grid_faces(steps, sides, close_rows=True))


def torus(major: float, minor: float, *, steps: int = 96, sides: int = 32) -> Mesh:
    """A torus around the z axis: radius `major` to the middle of the tube, `minor` of the tube."""
    return tube(
        lambda t: np.stack([major * np.cos(t), major * np.sin(t), 0.0 * t], -1), minor, steps=steps, sides=sides
    )


def torus_knot(p: int, q: int, scale: float, radius: float, *, steps: int = 320, sides: int = 24) -> Mesh:
    """A (p, q) torus knot around the z axis: x, y within 1.5 scale + radius, z within 0.5 scale + radius."""

    def curve(t: Array) -> Array:
        distance = scale * (1.0 + 0.5 * np.cos(q * t))
        return np.stack(
            [distance * np.cos(p * t), distance * np.sin(p * t), 0.5 * scale * np.sin(q * t)], axis=-1
        )  # fmt: skip

    return tube(curve, radius, steps=steps, sides=sides)


def plate(
    radius: float, thickness: float, height: Callable[[Array], Array], *, rings: int = 48, segments: int = 144
) -> Mesh:
    """A round plate with a displaced top: z = height(xy [N, 2]) [N] above, z = -thickness below, closed at the rim."""
    azimuth = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    around = np.stack([np.cos(azimuth), np.sin(azimuth)], -1)
    xy = (np.linspace(radius, 0.0, rings + 1)[:, None, None] * around).reshape(-1, 2)
    vertices = np.column_stack([xy, height(xy)])
    faces = _grid_faces(rings + 1, segments)
    top = Mesh(vertices, smooth_normals(vertices, faces), faces)
    normals = np.column_stack([around, np.zeros(segments)])
    low = np.column_stack([radius * around, np.full(segments, -thickness)])
    wall = Mesh(
        np.concatenate([low, vertices[:segments]]), np.concatenate([normals, normals]), _grid_faces(2, segments)
    )
    return merge([top, wall, revolved([(0.0, -thickness), (radius, -thickness)], segments=segments)])
