"""The viewer: a server, the compared runs, a session for each tab, and the panels."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import viser
from nerfstudio.viewer.utils import CameraState
from numpy.typing import NDArray

from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.background_jobs import Jobs
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.panels.panel_compare import ComparePanel, TimePanel
from eugen_viewer.panels.panel_compress import CompressPanel
from eugen_viewer.panels.panel_record import RecordPanel
from eugen_viewer.panels.panel_surface import SurfacePanel
from eugen_viewer.panels.widgets import JobStatus
from eugen_viewer.run_comparison import RenderedFrame, RunComparison
from eugen_viewer.server.access import Access
from eugen_viewer.server.address import has_left, start_server
from eugen_viewer.session import Session, blank_state
from eugen_viewer.shown_runs import ShownRun
from eugen_viewer.viewer_cameras import SCALE

_ENDING = 10.0
"""Seconds for all tabs' threads to end."""
_SWITCH_SECONDS = 5e-4
"""That a thread keeps the interpreter while another waits for it."""


class Viewer:
    """The viewer as a whole; `close` ends it.

    Args:
        runs: to show; the first one defines the scene's coordinates and test views.
        host: address to listen at.
        port: a free port.
        output: folder for screenshots, films and meshes.
        max_size: pixels along the longer side of the image at full resolution.
        access: who may connect; `Access.to(host)` by default.
    """

    def __init__(
        self,
        runs: list[ShownRun],
        *,
        host: str,
        port: int,
        output: Path = Path("outputs/view"),
        max_size: int = 512,
        access: Access | None = None,
    ) -> None:
        self.ready = False
        self.sessions: dict[int, Session] = {}
        self.output = output
        self.comparison = RunComparison(
            {shown_run.name: shown_run for shown_run in runs}, Renderer(FrameBudget(max_size=max_size))
        )
        if runs[0].cameras is not None and runs[0].cameras.times is not None:
            self.comparison.time = float(runs[0].cameras.times[0])
        self.centre = runs[0].model.scene_box.get_center().detach().cpu().double()
        self.mesh_message: str | None = None
        """Text in place of the numbers while a mesh is shown in place of the image; None while images are shown."""
        self._outputs: list[str] = []
        self._listeners: list[Callable[[Session, RenderedFrame, Image8], None]] = []
        self.server = start_server(host, port, access)
        self.server.scene.set_up_direction("+z")
        self.server.scene.world_axes.visible = False
        self.lines = JobStatus(self.server)
        self.jobs = Jobs(self.lines.report)
        tabs = self.server.gui.add_tab_group()
        with tabs.add_tab("Compare"):
            self.compare_panel = ComparePanel(self)
            self.time_panel = TimePanel(self) if runs[0].timed else None
        with tabs.add_tab("Compress") as tab:
            self.compress_panel = CompressPanel(self, tab)
        if SurfacePanel.fits(runs[0]):
            with tabs.add_tab("Surface"):
                self.surface_panel: SurfacePanel | None = SurfacePanel(self)
        else:
            self.surface_panel = None
        with tabs.add_tab("Record"):
            self.record_panel = RecordPanel(self)
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)
        self.ready = True

    def get_camera_state(self, client: viser.ClientHandle) -> CameraState:
        """Required by nerfstudio's render machine; sessions read their cameras themselves."""
        return blank_state()

    def refresh(self, what: str = "rerender") -> None:
        """Renders new images in all tabs: `move` during a drag or playback, else `rerender`."""
        for session in list(self.sessions.values()):
            session.request_render(what)

    def recompose(self) -> None:
        """Composes the last images of all tabs anew; renders if they do not suffice."""
        for session in list(self.sessions.values()):
            session.recompose()

    def add_run(self, shown_run: ShownRun, *, beside: str | None = None) -> str:
        """Adds a run and shows it, optionally beside another one; returns its name."""
        name = self.comparison.add(shown_run)
        changes = {"second": name} | ({"first": beside} if beside else {})
        self.comparison.choose(**changes, mode="split")
        self.compare_panel.update_runs()
        self.refresh()
        return name

    def update_outputs(self, names: list[str]) -> None:
        """Updates the choice of outputs; called with those of the last image."""
        if names != self._outputs:
            self._outputs = names
            self.compare_panel.update_outputs(names)

    def scene_depth(self, frame: RenderedFrame) -> NDArray[np.float32] | None:
        """Depth along the optical axis in the browser's units, for objects in the scene; None without objects."""
        if self.surface_panel is None or not self.surface_panel.needs_depth:
            return None
        image = next(iter(frame.images.values()))
        depth = image.outputs.get("z_depth")
        if depth is None:
            return None
        far = np.float32(160.0)
        return np.where(image.outputs["accumulation"][..., 0] > 0.5, SCALE * depth[..., 0], far).astype(np.float32)

    def on_display(self, listener: Callable[[Session, RenderedFrame, Image8], None]) -> None:
        """Registers a function to call with every displayed image."""
        self._listeners.append(listener)

    def notify_displayed(self, session: Session, frame: RenderedFrame, image: Image8) -> None:
        """Called by sessions with every displayed image."""
        for listener in self._listeners:
            listener(session, frame, image)

    def session_for(self, client: viser.ClientHandle | None) -> Session | None:
        """The session of a tab; any session if the tab is unknown."""
        if client is not None and client.client_id in self.sessions:
            return self.sessions[client.client_id]
        return next(iter(self.sessions.values()), None)

    def close(self) -> None:
        """Stops the sessions and the server; waits for threads that render, which must not outlive the interpreter."""
        threads = [thread for thread in threading.enumerate() if isinstance(thread, Session) and thread.app is self]
        for session in threads:
            session.close()
        self.server.stop()
        end = time.monotonic() + _ENDING
        for session in threads:
            session.join(max(0.0, end - time.monotonic()))

    def wait(self) -> None:
        """Blocks until Ctrl-C; the interpreter goes from thread to thread more often than by default meanwhile."""
        # torch lets go of it at every operation, and waits this long to get it back from a busy thread
        sys.setswitchinterval(_SWITCH_SECONDS)
        while True:
            time.sleep(3600)

    def _connect(self, client: viser.ClientHandle) -> None:
        # viser may report one arrival twice: it handles the first cameras of a tab side by side
        if has_left(client) or client.client_id in self.sessions:
            return
        session = Session(self, client)
        self.sessions[client.client_id] = session
        if self.comparison.base.cameras is not None:
            session.go_to_view(0)
        session.start()
        session.request_render()
        client.camera.on_update(lambda _: session.moved())

    def _disconnect(self, client: viser.ClientHandle) -> None:
        session = self.sessions.pop(client.client_id, None)
        if session is not None:
            # called from the server's own thread, which must not wait for an image
            threading.Thread(target=session.close, daemon=True).start()
