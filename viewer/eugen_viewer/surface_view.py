"""Display of a signed distance: mesh, slice as an image in space, and measurement along a ray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
import viser.transforms as vtf
from matplotlib import colormaps
from numpy.typing import NDArray

from eugen_nerf.core.rendering.sphere_tracing import first_crossing
from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_nerf.surfaces.mesh import TriangleMesh
from eugen_nerf.surfaces.slices import Slice, sample_slice

COLOURS = "RdBu_r"
"""Red is free space, blue is inside, as in the images of eugen-sdf."""
SLICE_CELLS = 96
"""Pixels of a slice along the box's longest side."""
MESH_CELLS = 64
"""Cells of the first mesh along the same side."""


@dataclass(frozen=True)
class SlicePlane:
    """A slice as an image in space.

    Attributes:
        image: uint8 `[height, width, 3]`, viewed along the slice axis.
        width: metres.
        height: metres.
        centre: `[3]`, metres.
        wxyz: rotation of the image's axes (right, down, away) to the scene's.
    """

    image: Image8
    width: float
    height: float
    centre: NDArray[np.float64]
    wxyz: NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """Measurement at a point.

    Attributes:
        point: `[3]`, metres.
        distance: metres, negative inside.
        gradient: `[3]`.
        where: "surface" or "slice".
    """

    point: NDArray[np.float64]
    distance: float
    gradient: NDArray[np.float64]
    where: str

    def markdown(self) -> str:
        """The measurement as Markdown."""
        x, y, z = self.point
        gx, gy, gz = self.gradient
        length = float(np.linalg.norm(self.gradient))
        return (
            f"on the {self.where}, at ({x:.3f}, {y:.3f}, {z:.3f}) m\n\n**distance {self.distance:+.4f} m**, gradient "
            f"({gx:+.3f}, {gy:+.3f}, {gz:+.3f}), {length:.3f} long"
        )


def coloured_mesh(mesh: TriangleMesh) -> bytes:
    """A mesh as glTF, coloured by its normals. Back faces are not drawn, so rooms can be viewed from outside."""
    normals = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).vertex_normals
    colours = np.floor(255 * (0.62 + 0.33 * np.nan_to_num(normals)) + 0.5).astype(np.uint8)
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=normals, vertex_colors=colours, process=False)
    # without normals the browser would draw flat facets
    made_bytes = made.export(file_type="glb", include_normals=True)
    assert isinstance(made_bytes, bytes)
    return made_bytes


def make_slice_plane(sdf: SignedDistance, axis: int, at: float, limit: float) -> SlicePlane:
    """A slice through the whole box.

    Args:
        sdf: of the run.
        axis: 0, 1 or 2.
        at: position on the axis in metres, clamped to the box.
        limit: range of the colours in metres.

    Raises:
        ConfigError: an empty box.
    """
    low, high = sdf.bounds.astype(np.float64)
    at = float(np.clip(at, low[axis], high[axis]))
    cut = sample_slice(sdf.distance, sdf.bounds, axis, at, float((high - low).max()) / SLICE_CELLS)
    left, right, bottom, top = cut.extent
    across, up = (i for i in range(3) if i != axis)
    centre = np.empty(3)
    centre[axis], centre[across], centre[up] = at, (left + right) / 2, (bottom + top) / 2
    right_axis, down_axis = np.eye(3)[across], -np.eye(3)[up]
    rotation = np.stack([right_axis, down_axis, np.cross(right_axis, down_axis)], axis=1)
    wxyz = vtf.SO3.from_matrix(rotation).wxyz
    return SlicePlane(slice_image(cut, limit), right - left, top - bottom, centre, wxyz)


def slice_image(cut: Slice, limit: float) -> Image8:
    """A slice in colours, its surface black, uint8 `[rows, columns, 3]`, upright."""
    values = np.nan_to_num(cut.values, nan=limit)
    colours = colormaps[COLOURS](np.clip(0.5 + 0.5 * values / limit, 0, 1))[..., :3]
    inside = values < 0
    edge = np.zeros_like(inside)
    edge[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    edge[1:] |= inside[1:] != inside[:-1]
    colours[edge] = 0.0
    return np.floor(255 * colours[::-1] + 0.5).astype(np.uint8)


def probe_ray(
    sdf: SignedDistance, origin: NDArray[np.float64], direction: NDArray[np.float64], plane: tuple[int, float] | None
) -> Probe | None:
    """Measures where a ray first hits the slice or the surface; None if it hits neither.

    Args:
        sdf: of the run.
        origin: `[3]`, metres.
        direction: `[3]`.
        plane: axis and position of the displayed slice; None without.
    """
    direction = direction / np.linalg.norm(direction)
    low, high = sdf.bounds.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = np.sort(np.stack([(low - origin) / direction, (high - origin) / direction]), axis=0)
    near, far = max(0.0, float(np.nanmax(hits[0]))), float(np.nanmin(hits[1]))
    if not near < far:
        return None
    a, b = (torch.tensor(v, dtype=torch.float32)[None] for v in (origin, direction))
    t, hit = first_crossing(sdf.distance, a, b, torch.tensor([near]).float(), torch.tensor([far]).float())
    along, where = (float(t[0]), "surface") if bool(hit[0]) else (np.inf, "")
    if plane is not None and direction[plane[0]] != 0:
        at = (plane[1] - origin[plane[0]]) / direction[plane[0]]
        if near <= at <= min(far, along):
            along, where = float(at), "slice"
    if not where:
        return None
    point = origin + along * direction
    distance, gradient = sdf.distance_and_gradient(point[None].astype(np.float32))
    return Probe(point, float(distance[0]), gradient[0].astype(np.float64), where)
