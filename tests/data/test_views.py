"""Depth views: pixels of known points, what was measured, what was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.depth_views import DepthViews, depth_views, stream_views
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig
from eugen_nerf.data.synthetic.room import ROOM_NAME, read_room
from eugen_nerf.data.synthetic.scan import RoomConfig, generate_room


def wall_view() -> DepthViews:
    """One camera at (1, 2, 3), axes as the world's, looking along -z at a wall 4 m away; one pixel unknown."""
    pose = np.concatenate([np.eye(3), [[1.0], [2.0], [3.0]]], axis=1)
    depth = np.full((10, 20), 4.0, dtype=np.float32)
    depth[0, 19] = np.nan
    return DepthViews(pose[None], np.array([[10.0, 10.0, 10.0, 5.0]]), depth[None], (Path("a.png"),))


def test_the_pixel_of_a_known_point_says_whether_it_was_seen() -> None:
    views = wall_view()
    points = {
        (1.0, 2.0, 0.0): True,  # on the axis, 3 m away
        (1.0, 2.0, -0.99): True,
        (1.0, 2.0, -1.01): False,  # behind the wall
        (1.0, 2.0, 3.5): False,  # behind the camera
        (1.0 + 2.98, 2.0, 0.0): True,  # 3 m away the image is 6 m wide: column 19
        (1.0 + 3.02, 2.0, 0.0): False,
        (1.0 - 2.98, 2.0, 0.0): True,
        (1.0, 2.0 + 1.48, 0.0): True,  # and 3 m high
        (1.0, 2.0 + 1.52, 0.0): False,
        (1.0 + 2.98, 2.0 + 1.48, 0.0): False,  # its pixel measured nothing: the upper right one
        (1.0 + 2.98, 2.0 - 1.48, 0.0): True,
    }
    np.testing.assert_array_equal(views.observed(np.array(list(points))), list(points.values()))
    assert views.observed(np.array([[1.0, 2.0, -1.05]]), margin=0.1).all()
    assert not views.observed(np.zeros((0, 3))).size


def test_measured_rays_end_where_depth_says() -> None:
    views = wall_view()
    origins, directions, depth = views.measured(np.random.default_rng(0), 500)
    points = origins + depth[:, None] * directions
    np.testing.assert_allclose(points[:, 2], -1.0, atol=1e-6)
    np.testing.assert_allclose(directions[:, 2], -1.0)
    # pixel centres of a 10 pixel focal length, never the unknown one
    cells = (points[:, :2] - (1.0, 2.0)) / 0.4
    np.testing.assert_allclose(cells % 1.0, 0.5, atol=1e-5)
    assert len({tuple(c) for c in np.floor(cells).astype(int)}) > 150
    assert not ((cells[:, 0] > 9) & (cells[:, 1] > 4)).any()
    blind = DepthViews(views.poses, views.lenses, np.full_like(views.depth, np.nan), views.files)
    with pytest.raises(DataError, match="no pixel of these depth images is valid"):
        blind.measured(np.random.default_rng(0), 5)


def test_a_scan_sees_free_space_and_surfaces_of_its_room(tmp_path: Path) -> None:
    """From the files, with and without thinning: rays, seen points and the exact room agree."""
    path = generate_room(tmp_path / "room", RoomConfig(num_frames=4, resolution=(32, 24), seed=1))
    room = read_room(path / ROOM_NAME)
    outputs = EugenRGBDDataParserConfig(data=path, eval_interval=0).setup().get_dataparser_outputs("train")
    for stride in (1, 2):
        views = depth_views(outputs, stride=stride)
        parts = list(stream_views(outputs, stride=stride))
        for key in ("poses", "lenses", "depth"):
            np.testing.assert_array_equal(np.concatenate([getattr(p, key) for p in parts]), getattr(views, key))
        assert tuple(file for part in parts for file in part.files) == views.files
        assert views.depth.shape == (4, 24 // stride, 32 // stride)
        origins, directions, depth = views.measured(np.random.default_rng(0), 2000)
        assert (room.distance(origins) > 0.3).all()
        assert views.observed(origins + 0.9 * depth[:, None] * directions).all()
        # a thinned pixel's middle is half a pixel off: a surface seen at a slant is then off in depth
        ends = np.abs(room.distance(origins + depth[:, None] * directions))
        assert np.median(ends) < (2e-3 if stride == 1 else 4e-2)
    box = outputs.scene_box.aabb.numpy()
    assert (box[0] > np.array([-2.7, -2.2, -0.2])).all()
    assert (box[1] < np.array([2.7, 2.2, 2.8])).all()
