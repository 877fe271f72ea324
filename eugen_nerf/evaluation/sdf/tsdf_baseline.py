"""What classical fusion makes of the same depth images: a truncated signed distance (TSDF) by open3d, and its mesh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.depth_views import DepthViews
from eugen_nerf.data.rgbd.rgbd_types import OPENCV_TO_NERFSTUDIO
from eugen_nerf.surfaces.mesh import TriangleMesh, to_open3d
from eugen_nerf.surfaces.volume import Progress


def fuse(
    views: Iterable[DepthViews], *, voxel: float, count: int = 1, progress: Progress = lambda share: None
) -> TriangleMesh:
    """Fuses depth images into a truncated signed distance and meshes it (Curless and Levoy 1996, as open3d has it).

    Args:
        views: all images, in parts: one part is in memory at a time.
        voxel: edge of a cell in metres; the distance is truncated at 4 of them.
        count: number of images in all, for the share done.
        progress: called with that share.

    Raises:
        DataError: nothing was measured.
    """
    import open3d

    integration = open3d.pipelines.integration
    volume = integration.ScalableTSDFVolume(voxel, 4.0 * voxel, integration.TSDFVolumeColorType.NoColor)
    images = (image for part in views for image in zip(part.poses, part.lenses, part.depth, strict=True))
    for index, (pose, (fx, fy, cx, cy), depth) in enumerate(images):
        height, width = depth.shape
        blank = open3d.geometry.Image(np.zeros((height, width, 3), dtype=np.uint8))
        # open3d counts pixels from the first one's centre
        camera = open3d.camera.PinholeCameraIntrinsic(width, height, fx, fy, cx - 0.5, cy - 0.5)
        image = open3d.geometry.Image(np.ascontiguousarray(np.nan_to_num(depth, nan=0.0)))
        pair = open3d.geometry.RGBDImage.create_from_color_and_depth(
            blank, image, depth_scale=1.0, depth_trunc=1e4, convert_rgb_to_intensity=False
        )
        to_world = np.concatenate([pose, [[0.0, 0.0, 0.0, 1.0]]]) @ OPENCV_TO_NERFSTUDIO
        volume.integrate(pair, camera, np.linalg.inv(to_world))
        progress((index + 1) / count)
    mesh = volume.extract_triangle_mesh()
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.triangles, dtype=np.int64)
    if not len(faces):
        raise DataError("fusing the depth images gives no surface: check the depth unit and the poses")
    return TriangleMesh(vertices, faces)


def distances_to_mesh(points: NDArray[Any], mesh: TriangleMesh) -> NDArray[np.float32]:
    """Distance [N] of points [N, 3] to the nearest point of a mesh's triangles, in the unit of both."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.t.geometry.TriangleMesh.from_legacy(to_open3d(mesh)))
    parts = [
        scene.compute_distance(open3d.core.Tensor(chunk)).numpy() for chunk in _chunks(np.asarray(points, np.float32))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _chunks(points: NDArray[np.float32], size: int = 1 << 18) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(points), size):
        yield np.ascontiguousarray(points[start : start + size])
