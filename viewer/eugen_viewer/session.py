"""One browser tab: its camera, and the thread that renders for it."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
import torch
import viser
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.utils import CameraState
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from numpy.typing import NDArray

from eugen_nerf.core.errors import EugenError
from eugen_viewer.context import ViewerContext
from eugen_viewer.frame_rendering import Abandoned
from eugen_viewer.panels.readout import literal
from eugen_viewer.pictures import padded
from eugen_viewer.show import Shot
from eugen_viewer.viewer_cameras import SCALE, Eye, same_pose, to_window, view_eye, window_pose

_SETTLING = 10.0
"""Seconds that a browser may take to report the view that it was sent to."""
_PATIENCE = 1.0
"""Seconds after which a picture is given up although the camera has not come to rest."""
_QUALITY = {"low_move": 60, "low_static": 80, "high": 95}
"""Of JPEG, by state."""
_EXACT = 1 << 14
"""Pixels below which a picture is sent as PNG: JPEG halves the resolution of colours, and small ones turn grey."""


class Session(RenderStateMachine):
    """nerfstudio's render machine, which decides when to render, and here what, for one tab.

    Args:
        viewer: that the tab shows.
        client: viser's handle of the tab.
    """

    def __init__(self, viewer: ViewerContext, client: viser.ClientHandle) -> None:
        super().__init__(viewer, SCALE, client)  # type: ignore[arg-type]
        self.app = viewer
        self.view: int | None = None
        self._sent, self._stamp, self._arrived, self._before = 0.0, 0.0, False, torch.eye(4)[:3]
        self.shot: Shot | None = None
        self.numbers = client.gui.add_markdown("connecting ...", order=-10.0)
        self.status = client.gui.add_markdown("", order=-9.0)
        self._told = 0.0

    # what decides

    def eye(self) -> Eye:
        """Where the tab looks from."""
        camera, show = self.client.camera, self.app.show
        pose = window_pose(camera.wxyz, camera.position)
        eye = Eye(pose, camera.fov, camera.aspect, show.time)
        cameras = show.base.cameras
        if self.view is None or cameras is None:
            return eye
        at = view_eye(cameras, self.view, camera.aspect)
        return Eye(at.pose, at.fov, camera.aspect, show.time, self.view)

    def go_to_view(self, view: int) -> None:
        """Puts the camera on a test view."""
        cameras = self.app.show.base.cameras
        if cameras is None:
            return
        view = min(max(view, 0), len(cameras) - 1)
        eye = view_eye(cameras, view, self.client.camera.aspect)
        target = to_window(eye.pose, self.app.centre)
        camera = self.client.camera
        self.view, self._sent, self._arrived = view, time.monotonic(), False
        self._before = window_pose(camera.wxyz, camera.position)
        with self.client.atomic():
            camera.up_direction = target.up
            camera.position = target.position
            camera.look_at = target.look_at
            camera.fov = eye.fov
        self._stamp = camera.update_timestamp
        self.ask("rerender")

    def go_outside(self, bounds: NDArray[np.float64]) -> None:
        """Puts the camera where it sees a whole box, `[2, 3]` in the first run's units, from above a corner."""
        centre, camera = bounds.mean(axis=0), self.client.camera
        size = float(np.linalg.norm(bounds[1] - bounds[0]))
        self.view = None
        with self.client.atomic():
            camera.up_direction = np.array([0.0, 0.0, 1.0])
            camera.position = SCALE * (centre + size * np.array([0.45, -0.6, 0.75]))
            camera.look_at = SCALE * centre
            camera.fov = 0.9
        self.ask("rerender")

    def ask(self, what: str = "rerender") -> None:
        """Asks for a new picture: `move` while things move, else `rerender`."""
        self.action(RenderAction(what, self.app.get_camera_state(self.client)))  # type: ignore[arg-type]

    def recompose(self) -> None:
        """Shows the last pictures in another way; renders where they do not suffice."""
        shot = self.shot
        whole = shot is not None and all(p.whole for p in shot.pictures.values())
        if shot is None or not whole or not self.display(shot, self.state):
            self.ask()

    def moved(self) -> None:
        """Called when the browser reports a camera: asks for a picture where it is another one."""
        camera, cameras = self.client.camera, self.app.show.base.cameras
        if camera.update_timestamp == self._stamp:
            return  # what the browser was sent, not what it reports
        if self.view is not None and cameras is not None:
            target = view_eye(cameras, self.view, camera.aspect)
            pose, settled = window_pose(camera.wxyz, camera.position), time.monotonic() - self._sent > _SETTLING
            if same_pose(pose, target.pose):
                self._arrived = True
            elif not settled and (not self._arrived or same_pose(pose, self._before)):
                return  # sent before the browser knew of the view
            else:
                self.view = None
        if self.still():
            return
        eye = self.eye()
        # a window of another aspect sees a test view whole by another field of view
        if eye.view is not None and abs(self.client.camera.fov - eye.fov) > 1e-3:
            self.client.camera.fov = eye.fov
        self.ask("move")

    def still(self) -> bool:
        """Whether the browser reports the camera that was rendered last."""
        shot = self.shot
        if shot is None:
            return False
        eye = self.eye()
        moved = eye.view is None and bool((eye.pose - shot.eye.pose).abs().max() > 1e-9)
        same = eye.view == shot.eye.view and not moved
        return same and abs(eye.aspect - shot.eye.aspect) < 1e-6 and abs(eye.fov - shot.eye.fov) < 1e-6

    def close(self) -> None:
        """Ends the thread."""
        self.running = False
        self.render_trigger.set()

    def _wanted(self, started: float) -> bool:
        following = self.next_action
        newer = following is not None and following.action in ("move", "rerender")
        if self.state == "low_move":
            newer = newer and time.monotonic() - started > _PATIENCE
        return self.running and not newer

    # what nerfstudio's loop calls

    def _render_img(self, camera_state: CameraState) -> Any:
        try:
            return self._render()
        except Abandoned as error:
            raise IOChangeException from error
        except EugenError as error:
            self.tell(f"**cannot render**: {literal(str(error))}")
        except Exception as error:  # a tab that closes makes any call to it fail
            if self.running and self.client.client_id in self.app.sessions:
                self.tell(f"**cannot render**: {literal(f'{type(error).__name__}: {error}')}")
        raise IOChangeException

    def _render(self) -> Shot:
        show, state = self.app.show, self.state
        eye = self.eye()
        if self.app.instead is not None:
            self.client.scene.set_background_image(np.full((2, 2, 3), 40, np.uint8), format="png")
            self.shot = None
            self.numbers.content = self.app.instead
            self.tell("")
            raise Abandoned
        sizes = show.sizes(eye, state)
        shown = self._shown(eye)
        if state == "high" and shown is not None:  # only what is finer than what is there
            sizes = [size for size in sizes[:-1] if size[0] > 1.3 * shown.size[0]] + sizes[-1:]
        for number, size in enumerate(sizes):
            started = time.monotonic()
            last = number == len(sizes) - 1
            shot = show.shoot(
                eye,
                size,
                seen_only=state == "low_move",
                fine=state == "high" and last,
                wanted=lambda started=started: self._wanted(started),  # type: ignore[misc]
                progress=lambda share, started=started, size=size: self._progress(share, started, size),  # type: ignore[misc]
            )
            self.shot = shot
            if not last:
                self.display(shot, state)
        return shot

    def _shown(self, eye: Eye) -> Shot | None:
        """The shot that is shown, where it is whole and of the same eye and runs."""
        shot = self.shot
        if shot is None or set(shot.pictures) != set(self.app.show.choice.needed()):
            return None
        same = shot.eye.view == eye.view and shot.eye.time == eye.time and torch.equal(shot.eye.pose, eye.pose)
        return shot if same and all(p.whole for p in shot.pictures.values()) else None

    def _send_output_to_viewer(self, outputs: Any, static_render: bool = True) -> None:
        try:
            self.display(outputs, self.state)
        except Exception:  # the tab may be gone
            if self.running and self.client.client_id in self.app.sessions:
                raise

    # what is seen

    def display(self, shot: Shot, state: str) -> bool:
        """Sends picture and numbers to the tab; False where the shot lacks something."""
        show = self.app.show
        picture = show.compose(shot)
        if picture is None:
            names = show.output_names(shot)
            if show.choice.look.output not in names and names:
                self.app.offer_outputs(names)
            return False
        self.app.offer_outputs(show.output_names(shot))
        depth = self.app.depth_of(shot)
        aspect = self.client.camera.aspect
        if shot.eye.view is not None:
            picture = padded(picture, aspect)
            depth = None if depth is None else padded(depth, aspect, 0)
        kind: Literal["png", "jpeg"] = "png" if picture.shape[0] * picture.shape[1] < _EXACT else "jpeg"
        self.client.scene.set_background_image(picture, format=kind, jpeg_quality=_QUALITY[state], depth=depth)
        self.numbers.content = show.readout(shot).markdown()
        self.tell("")
        self.app.displayed(self, shot, picture)
        return True

    def tell(self, line: str) -> None:
        """A line below the numbers."""
        if self.status.content != line:
            self.status.content = line

    def _progress(self, share: float, started: float, size: tuple[int, int]) -> None:
        now = time.monotonic()
        if now - started > 1.0 and now - self._told > 0.3:
            self._told = now
            self.tell(f"rendering {size[1]} x {size[0]}: {share:.0%}")


def blank_state() -> CameraState:
    """What nerfstudio's loop passes on; the tab's own eye is asked when it renders."""
    return CameraState(fov=1.0, aspect=1.0, c2w=torch.eye(4)[:3], camera_type=CameraType.PERSPECTIVE)
