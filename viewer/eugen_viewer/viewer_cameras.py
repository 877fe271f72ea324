"""Converts cameras: browser to nerfstudio, one run's coordinates to another's, test views to viewpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import viser.transforms as vtf
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.viewer.utils import CameraState, get_camera
from numpy.typing import NDArray
from torch import Tensor

SCALE = 10.0
"""Browser units per unit of the run, as in nerfstudio's viewer."""
_LEVEL = math.radians(5.0)
"""A view with less roll than this orbits about the scene's vertical axis, like an upright one."""


@dataclass(frozen=True)
class RunCoordinates:
    """Transform from the data's coordinates to a run's: `scale * (rotation p + translation)`."""

    transform: Tensor = field(default_factory=lambda: torch.eye(4, dtype=torch.float64)[:3])
    """`[3, 4]`."""
    scale: float = 1.0

    def convert_pose(self, pose: Tensor, to: RunCoordinates) -> Tensor:
        """Converts a camera-to-world matrix `[3, 4]` of this run to another run of the same data."""
        pose = pose.double()
        turn = to.transform[:, :3] @ self.transform[:, :3].T
        position = pose[:, 3] / self.scale - self.transform[:, 3]
        position = to.scale * (turn @ position + to.transform[:, 3])
        return torch.cat([turn @ pose[:, :3], position[:, None]], dim=1)


@dataclass(frozen=True)
class Viewpoint:
    """A camera position and direction with its field of view.

    Attributes:
        pose: camera-to-world `[3, 4]` float64 in the first run's coordinates; nerfstudio's axes: right, up, back.
        fov: vertical, radians.
        aspect: width over height of the window.
        time: in [0, 1], for dynamic scenes.
        view: index of the test view at this viewpoint; None elsewhere.
    """

    pose: Tensor
    fov: float
    aspect: float
    time: float = 0.0
    view: int | None = None

    def camera(
        self,
        height: int,
        width: int,
        coordinates: RunCoordinates | None = None,
        own_coordinates: RunCoordinates | None = None,
    ) -> Cameras:
        """The camera of an image with the aspect of the window.

        Args:
            height: of the image, pixels.
            width: of the image, pixels.
            coordinates: of the rendered run; None keeps the pose.
            own_coordinates: in which the pose is given.
        """
        pose = self.pose
        if coordinates is not None and own_coordinates is not None:
            pose = own_coordinates.convert_pose(pose, coordinates)
        state = CameraState(
            fov=self.fov, aspect=width / height, c2w=pose, camera_type=CameraType.PERSPECTIVE, time=self.time
        )
        return get_camera(state, height, width)


def browser_pose(wxyz: NDArray[np.float64], position: NDArray[np.float64]) -> Tensor:
    """The pose `[3, 4]` of a browser's camera (x right, y down, z forward, in browser units)."""
    rotation = (vtf.SO3(wxyz=wxyz) @ vtf.SO3.from_x_radians(np.pi)).as_matrix()
    return torch.cat([torch.tensor(rotation), torch.tensor(position)[:, None] / SCALE], dim=1)


@dataclass(frozen=True)
class BrowserCamera:
    """A browser's camera: position, target point and up direction, in browser units."""

    position: NDArray[np.float64]
    look_at: NDArray[np.float64]
    up: NDArray[np.float64]


def browser_camera_at(pose: Tensor, centre: Tensor) -> BrowserCamera:
    """The browser's camera for a pose; it orbits about the point on its optical axis nearest to `centre` `[3]`."""
    matrix = pose.double().numpy()
    forward, up, position = -matrix[:, 2], matrix[:, 1], matrix[:, 3]
    distance = max(float((centre.double().numpy() - position) @ forward), 0.1)
    vertical = np.array([0.0, 0.0, 1.0])
    level = vertical - (vertical @ forward) * forward
    # with the scene's vertical as up direction, orbiting stays level
    if np.linalg.norm(level) > 1e-3 and np.arccos(np.clip(level @ up / np.linalg.norm(level), -1, 1)) < _LEVEL:
        up = vertical
    return BrowserCamera(SCALE * position, SCALE * (position + distance * forward), up)


def same_pose(a: Tensor, b: Tensor, tolerance: float = 0.02) -> bool:
    """Whether two poses `[3, 4]` are equal up to rounding and the levelling of `browser_camera_at`."""
    a, b = a.double(), b.double()
    turned = float((a[:, 2] - b[:, 2]).norm())
    moved = float((a[:, 3] - b[:, 3]).norm()) / max(1.0, float(b[:, 3].norm()))
    return turned < tolerance and moved < tolerance and float(a[:, 1] @ b[:, 1]) > math.cos(2 * _LEVEL)


def viewpoint_at_view(cameras: Cameras, view: int, aspect: float) -> Viewpoint:
    """The viewpoint of a test view, for a window of a given aspect that shows the whole photograph."""
    camera = cameras[view]
    height, width = float(camera.height), float(camera.width)
    half = height / (2 * float(camera.fy))
    if aspect < width / height:
        half *= width / height / aspect
    time = 0.0 if camera.times is None else float(camera.times)
    return Viewpoint(camera.camera_to_worlds.double(), 2 * math.atan(half), aspect, time, view)


def view_camera_at(cameras: Cameras, view: int, height: int, time: float | None = None) -> Cameras:
    """A test view's own camera, lens and all, at another height in pixels."""
    camera = cameras[view : view + 1]
    own = int(camera.height[0])
    if height != own:
        camera = _copied(camera)
        camera.rescale_output_resolution(height / own)
    if time is not None and camera.times is not None:
        camera = _copied(camera)
        camera.times = torch.full((1, 1), time)
    return camera


def _copied(camera: Cameras) -> Cameras:
    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "distortion_params", "camera_type", "times")
    values = {name: None if (v := getattr(camera, name)) is None else v.clone() for name in names}
    return Cameras(**values)  # type: ignore[arg-type]
