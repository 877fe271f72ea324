"""Renders RGBA images of a described scene of objects and a light, by ray casting.

open3d's ray caster (Embree, float32) finds the hits; everything after that is numpy float64, so an image depends only
on the description, the camera and the supersampling. open3d is imported when a `Tracer` is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.synthetic.meshes import Mesh
from eugen_nerf.data.synthetic.pinhole_cameras import Camera
from eugen_nerf.data.synthetic.textures import Color, Material, to_srgb

Array = NDArray[np.float64]

RAYS_PER_CHUNK = 200_000
SHADOW_OFFSET = 2e-3


@dataclass(frozen=True)
class SceneObject:
    """A mesh in object coordinates, the affine object-to-world matrix [4, 4] float64, and its material.

    `rest` [V, 3] are the vertices before a deformation: they have the texture coordinates. None without a deformation.
    """

    mesh: Mesh
    material: Material
    transform: Array = field(default_factory=lambda: np.eye(4))
    rest: Array | None = None


@dataclass(frozen=True)
class Light:
    """A directional light and a hemispheric ambient term.

    Arguments:
        direction: unit vector [3] towards the light.
        color: linear RGB radiance of the directional light; a white Lambert surface facing it reflects `color`.
        sky, ground: linear RGB ambient light on surfaces that face up (+z) and down.
    """

    direction: Color
    color: Color = (0.85, 0.82, 0.75)
    sky: Color = (0.26, 0.30, 0.38)
    ground: Color = (0.10, 0.08, 0.07)


@dataclass(frozen=True)
class Scene:
    """Objects in world coordinates (z up) and the light on them."""

    objects: tuple[SceneObject, ...]
    light: Light


@dataclass(frozen=True)
class Hits:
    """First intersections of N rays, M of which hit something.

    Arguments:
        mask: [N] bool, which rays hit.
        distance: [M] float64, along the unit direction, world units.
        object_index: [M] int64, index into `Scene.objects`.
        position: [M, 3] float64, world coordinates.
        local: [M, 3] float64, coordinates of the object hit, before it was deformed.
        normal: [M, 3] float64, unit, interpolated over the face, turned towards the ray's origin.
    """

    mask: NDArray[np.bool_]
    distance: Array
    object_index: NDArray[np.int64]
    position: Array
    local: Array
    normal: Array


class Tracer:
    """A scene prepared for ray casting: all meshes in one acceleration structure."""

    def __init__(self, scene: Scene) -> None:
        """Builds the acceleration structure; `scene` needs at least one object.

        Raises `DataError` if open3d does not load: it needs system libraries that a bare machine lacks.
        """
        try:
            import open3d  # slow to import, and needed here only
        except (ImportError, OSError) as error:
            raise DataError(
                f"rendering needs open3d, which does not load here ({error}): install it and its system libraries, "
                "on Debian or Ubuntu with: apt-get install libusb-1.0-0 libgl1 libgomp1"
            ) from error

        self.scene = scene
        world, normals, local, faces, owners = [], [], [], [], []
        start = 0
        for index, item in enumerate(scene.objects):
            linear = item.transform[:3, :3]
            turned = item.mesh.normals @ np.linalg.inv(linear)
            world.append(item.mesh.vertices @ linear.T + item.transform[:3, 3])
            normals.append(turned / np.maximum(np.linalg.norm(turned, axis=-1, keepdims=True), 1e-30))
            local.append(item.mesh.vertices if item.rest is None else item.rest)
            faces.append(item.mesh.faces + start)
            owners.append(np.full(len(item.mesh.faces), index))
            start += len(item.mesh.vertices)
        self.vertices, self.normals, self.local = (np.concatenate(parts) for parts in (world, normals, local))
        self.faces, self.owners = np.concatenate(faces), np.concatenate(owners)
        self._tensor = cast(Any, open3d.core.Tensor)
        self._caster: Any = open3d.t.geometry.RaycastingScene()
        self._caster.add_triangles(
            self._tensor(np.ascontiguousarray(self.vertices, dtype=np.float32)),
            self._tensor(np.ascontiguousarray(self.faces, dtype=np.uint32)),
        )

    def cast(self, origins: Array, directions: Array) -> Hits:
        """First hits of rays with origins [N, 3] and unit directions [N, 3] (world coordinates)."""
        result = self._caster.cast_rays(self._rays(origins, directions))
        reach = result["t_hit"].numpy()
        mask = np.isfinite(reach)
        face = result["primitive_ids"].numpy()[mask].astype(np.int64)
        uv = result["primitive_uvs"].numpy()[mask].astype(np.float64)
        weights = np.column_stack([1.0 - uv.sum(-1), uv])[..., None]
        corners = self.faces[face]
        position, local, normal = (
            (weights * values[corners]).sum(axis=1) for values in (self.vertices, self.local, self.normals)
        )
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-30)
        # The face decides which side is visible: at a silhouette the interpolated normal may already point away.
        flat = result["primitive_normals"].numpy()[mask].astype(np.float64)
        facing = np.einsum("nd,nd->n", flat, directions[mask]) * np.einsum("nd,nd->n", flat, normal)
        normal = np.where((facing > 0.0)[:, None], -normal, normal)
        return Hits(mask, reach[mask].astype(np.float64), self.owners[face], position, local, normal)

    def occluded(self, origins: Array, directions: Array) -> NDArray[np.bool_]:
        """Whether each ray [N, 3] hits anything, [N] bool: the shadow test."""
        return self._caster.test_occlusions(self._rays(origins, directions)).numpy()

    def shade(self, hits: Hits, directions: Array) -> Array:
        """Linear RGB [M, 3] leaving the hit points towards the viewer.

        Albedo times (hemispheric ambient + shadowed Lambert), plus a shadowed Blinn-Phong lobe (J. Blinn, 1977).

        Arguments:
            hits: M hit points.
            directions: unit directions [M, 3] of the rays that hit.
        """
        light = self.scene.light
        toward = np.asarray(light.direction, dtype=np.float64)
        albedo = np.zeros_like(hits.position)
        specular, shininess = np.zeros(len(albedo)), np.ones(len(albedo))
        for index, item in enumerate(self.scene.objects):
            chosen = hits.object_index == index
            if chosen.any():
                albedo[chosen] = item.material.texture(hits.local[chosen])
                specular[chosen], shininess[chosen] = item.material.specular, item.material.shininess
        lambert = np.maximum(hits.normal @ toward, 0.0)
        lit = np.flatnonzero(lambert > 0.0)
        start = hits.position[lit] + SHADOW_OFFSET * hits.normal[lit]
        lambert[lit] *= ~self.occluded(start, np.broadcast_to(toward, start.shape))
        upward = 0.5 + 0.5 * hits.normal[:, 2:]
        ambient = upward * np.asarray(light.sky) + (1.0 - upward) * np.asarray(light.ground)
        halfway = toward - directions
        halfway = halfway / np.linalg.norm(halfway, axis=-1, keepdims=True)
        alignment = np.maximum(np.einsum("nd,nd->n", hits.normal, halfway), 0.0)
        lobe = np.where(lambert > 0.0, specular * alignment**shininess, 0.0)
        return albedo * (ambient + lambert[:, None] * np.asarray(light.color)) + lobe[:, None] * np.asarray(light.color)

    def _rays(self, origins: Array, directions: Array) -> Any:
        """open3d's ray tensor: [N, 6] float32."""
        return self._tensor(np.ascontiguousarray(np.concatenate([origins, directions], axis=-1), dtype=np.float32))


def render_rgba(tracer: Tracer, camera: Camera, *, supersample: int = 3) -> NDArray[np.uint8]:
    """The image of one camera with straight (not premultiplied) alpha, as Blender writes it.

    Each pixel averages the premultiplied linear colour and the coverage of supersample^2 rays on a regular grid; the
    colour is then divided by the coverage, encoded as sRGB and rounded to 8 bits. Pixels without a hit are 0.

    Returns [height, width, 4] uint8.
    """
    width, height = camera.width, camera.height
    rgba = np.zeros((height, width, 4), dtype=np.uint8)
    rows_at_once = max(1, RAYS_PER_CHUNK // (width * supersample**2))
    inside = (np.arange(supersample) + 0.5) / supersample
    for first in range(0, height, rows_at_once):
        rows = np.arange(first, min(first + rows_at_once, height))
        row, column, sub_row, sub_column = np.meshgrid(rows, np.arange(width), inside, inside, indexing="ij")
        origins, directions = camera.rays((column + sub_column).ravel(), (row + sub_row).ravel())
        hits = tracer.cast(origins, directions)
        color = np.zeros_like(directions)
        # Clipped before the average, so that a highlight's edge is as smooth as any other edge.
        color[hits.mask] = np.clip(tracer.shade(hits, directions[hits.mask]), 0.0, 1.0)
        color = color.reshape(len(rows), width, supersample**2, 3).mean(axis=2)
        coverage = hits.mask.reshape(len(rows), width, supersample**2).mean(axis=-1)[..., None]
        straight = np.where(coverage > 0.0, color / np.maximum(coverage, 1e-12), 0.0)
        rgba[rows] = np.round(255.0 * np.concatenate([to_srgb(straight), coverage], axis=-1)).astype(np.uint8)
    return rgba
