"""From the browser's camera to nerfstudio's, from one run's coordinates to another's, and to a test view's camera."""

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
"""Units of the browser's scene for one of the run's; nerfstudio's viewer has the same."""
_LEVEL = math.radians(5.0)
"""A view that leans less than this is turned about the scene's vertical, as upright ones are."""


@dataclass(frozen=True)
class RunFrame:
    """How a run's coordinates follow from those of its data: `scale * (rotation p + translation)`."""

    transform: Tensor = field(default_factory=lambda: torch.eye(4, dtype=torch.float64)[:3])
    """`[3, 4]`."""
    scale: float = 1.0

    def carry(self, pose: Tensor, to: RunFrame) -> Tensor:
        """A camera-to-world matrix `[3, 4]` of this run as it is in another run of the same data."""
        pose = pose.double()
        turn = to.transform[:, :3] @ self.transform[:, :3].T
        position = pose[:, 3] / self.scale - self.transform[:, 3]
        position = to.scale * (turn @ position + to.transform[:, 3])
        return torch.cat([turn @ pose[:, :3], position[:, None]], dim=1)


@dataclass(frozen=True)
class Eye:
    """Where a picture is taken from.

    Attributes:
        pose: camera-to-world `[3, 4]` float64 in the first run's coordinates; nerfstudio's axes: right, up, back.
        fov: vertical, radians.
        aspect: width over height of the window.
        time: in [0, 1], for dynamic scenes.
        view: number of the test view that the camera sits on; None where it has moved away.
    """

    pose: Tensor
    fov: float
    aspect: float
    time: float = 0.0
    view: int | None = None

    def camera(self, height: int, width: int, frame: RunFrame | None = None, own: RunFrame | None = None) -> Cameras:
        """The camera of a picture of the window.

        Args:
            height: of the picture, pixels.
            width: likewise.
            frame: coordinates of the run that renders; the first run's where None.
            own: coordinates that the pose is in.
        """
        pose = self.pose if frame is None or own is None else own.carry(self.pose, frame)
        state = CameraState(
            fov=self.fov, aspect=width / height, c2w=pose, camera_type=CameraType.PERSPECTIVE, time=self.time
        )
        return get_camera(state, height, width)


def window_pose(wxyz: NDArray[np.float64], position: NDArray[np.float64]) -> Tensor:
    """The pose `[3, 4]` of a browser's camera (x right, y down, z forward, `SCALE` times as large)."""
    rotation = (vtf.SO3(wxyz=wxyz) @ vtf.SO3.from_x_radians(np.pi)).as_matrix()
    return torch.cat([torch.tensor(rotation), torch.tensor(position)[:, None] / SCALE], dim=1)


@dataclass(frozen=True)
class WindowPose:
    """What a browser's camera is set to: position, point looked at, and upward direction, in the browser's scene."""

    position: NDArray[np.float64]
    look_at: NDArray[np.float64]
    up: NDArray[np.float64]


def to_window(pose: Tensor, centre: Tensor) -> WindowPose:
    """How a browser's camera gets to a pose, turning about the point of its line of sight nearest to `centre` `[3]`."""
    matrix = pose.double().numpy()
    forward, up, position = -matrix[:, 2], matrix[:, 1], matrix[:, 3]
    distance = max(float((centre.double().numpy() - position) @ forward), 0.1)
    vertical = np.array([0.0, 0.0, 1.0])
    level = vertical - (vertical @ forward) * forward
    # with the scene's own vertical, orbiting stays level
    if np.linalg.norm(level) > 1e-3 and np.arccos(np.clip(level @ up / np.linalg.norm(level), -1, 1)) < _LEVEL:
        up = vertical
    return WindowPose(SCALE * position, SCALE * (position + distance * forward), up)


def same_pose(a: Tensor, b: Tensor, tolerance: float = 0.02) -> bool:
    """Whether two poses `[3, 4]` are the same but for rounding and the levelling of `to_window`."""
    a, b = a.double(), b.double()
    turned = float((a[:, 2] - b[:, 2]).norm())
    moved = float((a[:, 3] - b[:, 3]).norm()) / max(1.0, float(b[:, 3].norm()))
    return turned < tolerance and moved < tolerance and float(a[:, 1] @ b[:, 1]) > math.cos(2 * _LEVEL)


def view_eye(cameras: Cameras, view: int, aspect: float) -> Eye:
    """A test view seen in a window of some aspect: the whole photograph fits in."""
    camera = cameras[view]
    height, width = float(camera.height), float(camera.width)
    half = height / (2 * float(camera.fy))
    if aspect < width / height:
        half *= width / height / aspect
    time = 0.0 if camera.times is None else float(camera.times)
    return Eye(camera.camera_to_worlds.double(), 2 * math.atan(half), aspect, time, view)


def view_camera_at(cameras: Cameras, view: int, height: int, time: float | None = None) -> Cameras:
    """A test view's own camera, lens and all, at another height in pixels (its own where equal)."""
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
