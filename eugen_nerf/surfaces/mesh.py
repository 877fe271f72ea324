"""The zero level of a signed distance as a triangle mesh in metres: marching cubes, slab by slab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import RunError
from eugen_nerf.surfaces.files import new_file
from eugen_nerf.surfaces.volume import Distance, Progress, make_grid, slabs


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles in metres, counter-clockwise from free space (where the distance is positive).

    Attributes:
        vertices: [V, 3] float32.
        faces: [F, 3] int64 indices of vertices.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]

    def cropped(self, keep: NDArray[np.bool_]) -> TriangleMesh:
        """The faces whose vertices are all kept (`keep` [V]), without unused vertices."""
        faces = self.faces[keep[self.faces].all(axis=-1)]
        used = np.zeros(len(self.vertices), dtype=bool)
        used[faces] = True
        return TriangleMesh(self.vertices[used], (np.cumsum(used) - 1)[faces])

    def sample(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Points [count, 3] uniform on the surface; raises `RunError` for an empty mesh."""
        if not len(self.faces):
            raise RunError("the mesh has no faces: nothing can be sampled from it")
        a, b, c = self.vertices[self.faces].astype(np.float64).transpose(1, 0, 2)
        areas = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
        face = rng.choice(len(areas), size=count, p=areas / areas.sum())
        u, v = rng.uniform(size=(2, count, 1))
        flip = u + v > 1.0
        u, v = np.where(flip, 1.0 - u, u), np.where(flip, 1.0 - v, v)
        return a[face] + u * (b - a)[face] + v * (c - a)[face]


def extract_mesh(
    distance: Distance, bounds: NDArray[Any], voxel: float, progress: Progress = lambda share: None
) -> TriangleMesh:
    """The surface inside a box by marching cubes.

    Memory grows with the surface and with two layers of the grid, not with the volume.

    Args:
        distance: function of points, in metres, negative inside.
        bounds: corners [2, 3] of the box, metres.
        voxel: edge of a grid cell, metres.
        progress: called with the completed share.

    Raises:
        ConfigError: an empty box or an impossible cell.
        RunError: the distance has one sign everywhere in the box, or is not finite.
    """
    from skimage.measure import marching_cubes

    grid = make_grid(bounds, voxel)
    vertices: list[NDArray[np.float32]] = []
    faces: list[NDArray[np.int64]] = []
    count = 0
    for start, values in slabs(distance, grid, progress):
        if not np.isfinite(values).all():
            raise RunError("the signed distance is not finite in the box: the run has diverged; train it again")
        # a vertex on a grid point would give faces without area
        least = np.float32(1e-3 * grid.spacing)
        values = np.where(np.abs(values) < least, least, values)
        if len(values) < 2 or not values.min() < 0.0 < values.max():
            continue
        corners, triangles, _, _ = marching_cubes(values, level=0.0, gradient_direction="descent")
        vertices.append(corners.astype(np.float32) + np.array([start, 0, 0], dtype=np.float32))
        faces.append(triangles.astype(np.int64) + count)
        count += len(corners)
    if not count:
        raise RunError(
            "there is no surface in the box: the signed distance has one sign everywhere; train longer, or correct "
            "--bounds"
        )
    # vertices on the layer shared by two slabs exist twice, with equal coordinates
    unique, inverse = np.unique(np.concatenate(vertices), axis=0, return_inverse=True)
    merged = inverse.reshape(-1)[np.concatenate(faces)]
    points = grid.origin + grid.spacing * unique.astype(np.float64)
    return TriangleMesh(points.astype(np.float32), merged)


def write_mesh(
    mesh: TriangleMesh, path: Path, *, normals: NDArray[np.float32] | None = None, overwrite: bool = False
) -> None:
    """Writes a mesh as binary PLY in metres, with optional normals [V, 3]. Raises `RunError`."""
    import open3d

    geometry = to_open3d(mesh)
    if normals is not None:
        geometry.vertex_normals = open3d.utility.Vector3dVector(normals.astype(np.float64))
    with new_file(path, overwrite=overwrite) as partial:
        written = open3d.io.write_triangle_mesh(str(partial), geometry)
        # it returns True on a full disk too, so the file is read back
        if not written or not _holds(partial, mesh):
            raise RunError(f"open3d cannot write {path}: its name must end in .ply, and the disk must have space")


def _holds(path: Path, mesh: TriangleMesh) -> bool:
    """Whether a file has all vertices and faces of a mesh."""
    import open3d

    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        found = open3d.io.read_triangle_mesh(str(path))
    same = np.asarray(found.vertices).shape == mesh.vertices.shape and np.array_equal(found.triangles, mesh.faces)
    return same and np.array_equal(np.asarray(found.vertices, dtype=np.float32), mesh.vertices)


def to_open3d(mesh: TriangleMesh) -> Any:
    """The mesh as an `open3d.geometry.TriangleMesh`."""
    import open3d

    return open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)),
        open3d.utility.Vector3iVector(mesh.faces.astype(np.int32)),
    )
