"""Cameras: the browser's and nerfstudio's, one run's coordinates and another's, test views in any window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import viser.transforms as vtf
from nerfstudio.cameras.cameras import Cameras

from eugen_viewer.recording import CameraPath
from eugen_viewer.viewer_cameras import (
    SCALE,
    RunCoordinates,
    Viewpoint,
    browser_camera_at,
    browser_pose,
    same_pose,
    view_camera_at,
    viewpoint_at_view,
)


def look_at(position: tuple[float, float, float], roll: float = 0.0) -> torch.Tensor:
    p = np.array(position)
    back = p / np.linalg.norm(p)
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(back, right), back], axis=1) @ vtf.SO3.from_z_radians(roll).as_matrix()
    return torch.from_numpy(np.concatenate([rotation, p[:, None]], axis=1))


def views(height: int = 30, width: int = 40) -> Cameras:
    poses = torch.stack([look_at((2.0, 1.0, 1.0)), look_at((-2.0, 1.0, 0.5))]).float()
    return Cameras(poses, 50.0, 50.0, width / 2, height / 2, width=width, height=height)


@pytest.mark.parametrize("roll", [0.0, 0.01, 0.6])
def test_a_browser_sent_to_a_pose_reports_that_pose(roll: float) -> None:
    pose = look_at((1.0, -2.0, 0.7), roll)
    target = browser_camera_at(pose, torch.zeros(3))
    # what viser makes of position, look_at and up
    forward = target.look_at - target.position
    forward /= np.linalg.norm(forward)
    down = -(target.up - (target.up @ forward) * forward)
    down /= np.linalg.norm(down)
    rotation = np.stack([np.cross(down, forward), down, forward], axis=1)
    back = browser_pose(vtf.SO3.from_matrix(rotation).wxyz, target.position)
    assert same_pose(back, pose)
    if roll != 0.01:  # a slight lean is levelled
        assert torch.allclose(back, pose, atol=1e-9)


def test_poses_that_differ_are_told_apart() -> None:
    pose = look_at((1.0, -2.0, 0.7))
    assert not same_pose(look_at((1.0, -2.0, 0.9)), pose)
    assert not same_pose(look_at((1.0, -2.0, 0.7), 0.5), pose)


def test_a_pose_carried_to_another_runs_coordinates_sees_the_same_point() -> None:
    turn = torch.from_numpy(vtf.SO3.from_rpy_radians(0.3, -0.2, 1.0).as_matrix())
    shift = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    a, b = RunCoordinates(), RunCoordinates(torch.cat([turn, shift[:, None]], 1), 0.25)
    pose = look_at((1.0, 2.0, 0.5))
    carried = a.convert_pose(pose, b)
    point = torch.tensor([0.2, 0.1, -0.3], dtype=torch.float64)  # of the data
    local = pose[:, :3].T @ (point - pose[:, 3])
    again = carried[:, :3].T @ (0.25 * (turn @ point + shift) - carried[:, 3])
    assert torch.allclose(again, 0.25 * local)
    assert torch.allclose(b.convert_pose(carried, a), pose)


@pytest.mark.parametrize("aspect", [0.5, 4 / 3, 2.5])
def test_a_test_view_fits_into_any_window(aspect: float) -> None:
    viewpoint = viewpoint_at_view(views(), 1, aspect)
    half = math.tan(viewpoint.fov / 2)
    assert half >= 30 / 100 - 1e-9
    assert half * aspect >= 40 / 100 - 1e-9
    assert min(half - 0.3, half * aspect - 0.4) == pytest.approx(0.0, abs=1e-6)
    assert viewpoint.view == 1


def test_a_test_views_camera_at_another_size_sees_the_same() -> None:
    cameras = views()
    small = view_camera_at(cameras, 0, 15)
    assert (int(small.height), int(small.width)) == (15, 20)
    assert float(small.fx) == 25.0
    assert int(cameras.height[0]) == 30  # the run's own is not changed
    own = view_camera_at(cameras, 0, 30)
    assert torch.equal(own.camera_to_worlds, cameras[:1].camera_to_worlds)


def test_the_windows_camera_has_the_windows_field_of_view() -> None:
    viewpoint = Viewpoint(look_at((1.0, 1.0, 1.0)), math.radians(60), 1.5, 0.25)
    camera = viewpoint.camera(40, 60)
    assert float(camera.fx) == pytest.approx(20 / math.tan(math.radians(30)), rel=1e-6)
    assert camera.times is not None
    assert float(camera.times) == 0.25


def test_a_path_passes_through_its_places() -> None:
    places = [(1, 0, 0.5), (0, 1, 0.5), (-1, 0.2, 0.6)]
    viewpoints = [Viewpoint(look_at(p), 0.5 + i / 10, 1.5, i / 2) for i, p in enumerate(places)]
    path = CameraPath(viewpoints)
    along = path.along(5)
    for place, frame in zip(viewpoints, (along[0], along[2], along[4]), strict=True):
        assert torch.allclose(place.pose, frame.pose, atol=1e-6)
        assert frame.fov == pytest.approx(place.fov)
        assert frame.time == pytest.approx(place.time)
    for viewpoint in along:
        turn = viewpoint.pose[:, :3]
        assert torch.allclose(turn.T @ turn, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert len(path.document(20, 30, 5, 2.0)["camera_path"]) == 5  # type: ignore[arg-type]
    assert SCALE == 10.0
