"""One browser tab: its camera, and the thread that renders its frames (`_render`)."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
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
from eugen_viewer.fair_lock import FairLock
from eugen_viewer.frame_rendering import RenderCancelled
from eugen_viewer.image_composition import pad_to_aspect
from eugen_viewer.panels.picture_overlay import PictureOverlay
from eugen_viewer.panels.readout import escape_markdown
from eugen_viewer.run_comparison import RenderedFrame
from eugen_viewer.server.failures import one_line, report_failure
from eugen_viewer.viewer_cameras import SCALE, Viewpoint, browser_camera_at, browser_pose, same_pose, viewpoint_at_view

_SETTLING = 10.0
"""Seconds within which a browser reports the view to which it was moved."""
_PATIENCE = 1.0
"""Seconds after which an image is cancelled while the camera still moves."""
_FRAME_SECONDS = 1 / 30
"""Between two images of a tab at least: a raw client can ask for more."""
_NUMBERS_SECONDS = 0.25
"""Between two changes of the numbers while something moves: the page compiles each as a program."""
_QUALITY = {"low_move": 60, "low_static": 80, "high": 95}
"""JPEG quality by state."""
_encoding = FairLock()
"""Held while an image is composed and encoded: threads of many tabs side by side would starve the server's."""
_EXACT = 1 << 14
"""Pixels below which an image is sent as PNG: JPEG halves the resolution of colours, which turns small images grey."""


class Session(RenderStateMachine):
    """nerfstudio's render machine, which decides when to render, for one tab; this class decides what.

    Args:
        viewer: shown in the tab.
        client: viser's handle of the tab.
    """

    def __init__(self, viewer: ViewerContext, client: viser.ClientHandle) -> None:
        super().__init__(viewer, SCALE, client)  # type: ignore[arg-type]
        self.app = viewer
        self.view: int | None = None
        self._sent, self._stamp, self._arrived, self._before = 0.0, 0.0, False, torch.eye(4)[:3]
        self.frame: RenderedFrame | None = None
        self.numbers = client.gui.add_markdown("connecting ...", order=-10.0)
        self.status = client.gui.add_markdown("", order=-9.0)
        self.overlay = PictureOverlay(client)
        self._status_time = self._next_frame = self._began = self._numbers_time = 0.0
        self._frames = 0
        """Shown since the numbers were written."""

    # camera

    def viewpoint(self) -> Viewpoint:
        """The viewpoint of the tab."""
        camera, comparison = self.client.camera, self.app.comparison
        pose = browser_pose(camera.wxyz, camera.position)
        viewpoint = Viewpoint(pose, camera.fov, camera.aspect, comparison.time)
        cameras = comparison.base.cameras
        if self.view is None or cameras is None:
            return viewpoint
        at = viewpoint_at_view(cameras, self.view, camera.aspect)
        return Viewpoint(at.pose, at.fov, camera.aspect, comparison.time, self.view)

    def go_to_view(self, view: int) -> None:
        """Moves the camera to a test view."""
        cameras = self.app.comparison.base.cameras
        if cameras is None:
            return
        view = min(max(view, 0), len(cameras) - 1)
        viewpoint = viewpoint_at_view(cameras, view, self.client.camera.aspect)
        target = browser_camera_at(viewpoint.pose, self.app.centre)
        camera = self.client.camera
        self.view, self._sent, self._arrived = view, time.monotonic(), False
        self._before = browser_pose(camera.wxyz, camera.position)
        with self.client.atomic():
            camera.up_direction = target.up
            camera.position = target.position
            camera.look_at = target.look_at
            camera.fov = viewpoint.fov
        self._stamp = camera.update_timestamp
        self.request_render("rerender")

    def go_outside(self, bounds: NDArray[np.float64]) -> None:
        """Moves the camera above a corner of a box `[2, 3]`, in the first run's units, to show all of it."""
        centre, camera = bounds.mean(axis=0), self.client.camera
        size = float(np.linalg.norm(bounds[1] - bounds[0]))
        self.view = None
        with self.client.atomic():
            camera.up_direction = np.array([0.0, 0.0, 1.0])
            camera.position = SCALE * (centre + size * np.array([0.45, -0.6, 0.75]))
            camera.look_at = SCALE * centre
            camera.fov = 0.9
        self.request_render("rerender")

    def request_render(self, what: str = "rerender") -> None:
        """Requests a new image: `move` while something moves, else `rerender`."""
        self.action(RenderAction(what, self.app.get_camera_state(self.client)))  # type: ignore[arg-type]

    def recompose(self) -> None:
        """Composes the last images anew; renders if they do not suffice."""
        frame = self.frame
        whole = frame is not None and all(p.whole for p in frame.images.values())
        if frame is None or not whole or not self.display(frame, self.state):
            self.request_render()

    def moved(self) -> None:
        """Called when the browser reports a camera: requests an image if the camera has changed."""
        camera, cameras = self.client.camera, self.app.comparison.base.cameras
        if camera.update_timestamp == self._stamp:
            return  # set by the viewer, not reported by the browser
        if self.view is not None and cameras is not None:
            target = viewpoint_at_view(cameras, self.view, camera.aspect)
            pose = browser_pose(camera.wxyz, camera.position)
            settled = time.monotonic() - self._sent > _SETTLING
            if same_pose(pose, target.pose):
                self._arrived = True
            elif not settled and (not self._arrived or same_pose(pose, self._before)):
                return  # reported before the browser received the view
            else:
                self.view = None
        if self.camera_unchanged():
            return
        viewpoint = self.viewpoint()
        # another window aspect needs another field of view to show a whole test view
        if viewpoint.view is not None and abs(self.client.camera.fov - viewpoint.fov) > 1e-3:
            self.client.camera.fov = viewpoint.fov
        self.request_render("move")

    def camera_unchanged(self) -> bool:
        """Whether the reported camera is the one rendered last."""
        frame = self.frame
        if frame is None:
            return False
        now, last = self.viewpoint(), frame.viewpoint
        moved = now.view is None and bool((now.pose - last.pose).abs().max() > 1e-9)
        same = now.view == last.view and not moved
        return same and abs(now.aspect - last.aspect) < 1e-6 and abs(now.fov - last.fov) < 1e-6

    def close(self) -> None:
        """Stops the thread."""
        self.running = False
        self.render_trigger.set()

    def _wanted(self, started: float) -> bool:
        following = self.next_action
        newer = following is not None and following.action in ("move", "rerender")
        if self.state == "low_move":
            newer = newer and time.monotonic() - started > _PATIENCE
        return self.running and not newer

    # called by nerfstudio's loop

    def _render_img(self, camera_state: CameraState) -> Any:
        time.sleep(max(0.0, self._next_frame - time.monotonic()))
        self._began = time.monotonic()
        self._next_frame = self._began + _FRAME_SECONDS
        try:
            return self._render()
        except RenderCancelled as error:
            raise IOChangeException from error
        except EugenError as error:
            self.set_status(f"**cannot render**: {escape_markdown(str(error))}")
        except Exception as error:  # any call to a closed tab fails
            if self.running and self.client.client_id in self.app.sessions:
                self.set_status(f"**cannot render**: {escape_markdown(one_line(error))}")
        raise IOChangeException

    def _render(self) -> RenderedFrame:
        comparison, state = self.app.comparison, self.state
        viewpoint = self.viewpoint()
        if self.app.mesh_message is not None:
            self.client.scene.set_background_image(np.full((2, 2, 3), 40, np.uint8), format="png")
            self.frame = None
            self.numbers.content = self.app.mesh_message
            self.overlay.clear()
            self.set_status("")
            raise RenderCancelled
        shown, full = self._shown(viewpoint), comparison.full_size(viewpoint)
        if state == "high" and shown is not None and shown.wanted_size == full:
            self.frame = replace(shown, fine=True)
            return self.frame
        while True:
            started = time.monotonic()
            size = comparison.next_size(viewpoint, state, 0 if shown is None else shown.size[0])
            fine = state == "high" and size == full
            frame = comparison.render_frame(
                viewpoint,
                size,
                visible_only=state == "low_move",
                fine=fine,
                wanted=lambda started=started: self._wanted(started),  # type: ignore[misc]
                progress=lambda share, started=started, size=size: self._progress(share, started, size),  # type: ignore[misc]
            )
            self.frame = shown = frame
            if fine or state != "high":
                return frame
            self.display(frame, state)

    def _shown(self, viewpoint: Viewpoint) -> RenderedFrame | None:
        """The displayed frame, if it is complete and of the same viewpoint and runs, with the features they are shown
        with."""
        frame = self.frame
        if frame is None or set(frame.images) != set(self.app.comparison.choice.needed()):
            return None
        last = frame.viewpoint
        same = last.view == viewpoint.view and last.time == viewpoint.time and torch.equal(last.pose, viewpoint.pose)
        runs = self.app.comparison.runs
        complete = all(image.whole and image.share == runs[name].share for name, image in frame.images.items())
        return frame if same and complete else None

    def _send_output_to_viewer(self, outputs: Any, static_render: bool = True) -> None:
        try:
            self.display(outputs, self.state)
        except Exception as error:  # the tab may be closed
            if self.running and self.client.client_id in self.app.sessions:
                report_failure("an image was not shown", error)
            return
        if self.state == "low_move":
            self.app.comparison.record_moving(outputs, time.monotonic() - self._began)
        elif self.state == "low_static" and self.next_action is None:
            self.request_render("static")  # finer at once, in place of a wait for a movement

    # display

    def display(self, frame: RenderedFrame, state: str) -> bool:
        """Sends image and numbers to the tab; False if the frame lacks an output."""
        comparison = self.app.comparison
        with _encoding:
            image = comparison.compose(frame, line=False)
        if image is None:
            names = comparison.output_names(frame)
            if comparison.choice.settings.output not in names and names:
                self.app.update_outputs(names)
            return False
        self.app.update_outputs(comparison.output_names(frame))
        depth = self.app.scene_depth(frame)
        aspect = self.client.camera.aspect
        width = image.shape[1]
        if frame.viewpoint.view is not None:
            image = pad_to_aspect(image, aspect)
            depth = None if depth is None else pad_to_aspect(depth, aspect, 0)
        kind: Literal["png", "jpeg"] = "png" if image.shape[0] * image.shape[1] < _EXACT else "jpeg"
        with _encoding:
            self.client.scene.set_background_image(image, format=kind, jpeg_quality=_QUALITY[state], depth=depth)
        if comparison.choice.settings.mode == "split" and len(frame.images) == 2:
            self.overlay.draw_line(self.app.compare_panel.split_control, width / image.shape[1])
        else:
            self.overlay.hide_line()
        self._write_numbers(frame, state)
        self.set_status("")
        self.app.notify_displayed(self, frame, image)
        return True

    def _write_numbers(self, frame: RenderedFrame, state: str) -> None:
        passed, moving = time.monotonic() - self._numbers_time, state == "low_move"
        self._frames += 1
        if moving and passed < _NUMBERS_SECONDS:
            return
        speed = self._frames / passed if moving and passed < 1.0 else None
        self._numbers_time, self._frames = time.monotonic(), 0
        readout = self.app.comparison.readout(frame)
        self.numbers.content = readout.markdown()
        self.overlay.write(readout, speed)

    def set_status(self, line: str) -> None:
        """Shows a line below the numbers."""
        if self.status.content != line:
            self.status.content = line

    def _progress(self, share: float, started: float, size: tuple[int, int]) -> None:
        now = time.monotonic()
        if now - started > 1.0 and now - self._status_time > 0.3:
            self._status_time = now
            self.set_status(f"rendering {size[1]} x {size[0]}: {share:.0%}")


@cache
def blank_state() -> CameraState:
    """A placeholder for nerfstudio's loop; the tab's own viewpoint is read when it renders."""
    return CameraState(fov=1.0, aspect=1.0, c2w=torch.eye(4)[:3], camera_type=CameraType.PERSPECTIVE)
