"""The viewer: a server, what is on show, a session a tab, and the panels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import viser
from nerfstudio.viewer.utils import CameraState
from numpy.typing import NDArray

from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.address import start_server
from eugen_viewer.background_jobs import Jobs
from eugen_viewer.frame_budget import Pace
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.panels.panel_compress import CompressPanel
from eugen_viewer.panels.panel_record import RecordPanel
from eugen_viewer.panels.panel_surface import SurfacePanel
from eugen_viewer.panels.shared import ComparePanel, JobLines, TimePanel
from eugen_viewer.session import Session, blank_state
from eugen_viewer.show import Shot, Show
from eugen_viewer.shown_runs import Viewed
from eugen_viewer.viewer_cameras import SCALE


class Viewer:
    """Everything together; `close` ends it.

    Args:
        runs: what to show; the first one's coordinates and test views are the scene's.
        host: address to listen at.
        port: a free one.
        output: folder for screenshots, films and meshes.
        largest: pixels along the longer side of the finest picture.
    """

    def __init__(
        self, runs: list[Viewed], *, host: str, port: int, output: Path = Path("outputs/view"), largest: int = 512
    ) -> None:
        self.ready = False
        self.sessions: dict[int, Session] = {}
        self.output = output
        self.show = Show({viewed.name: viewed for viewed in runs}, Renderer(Pace(largest=largest)))
        if runs[0].cameras is not None and runs[0].cameras.times is not None:
            self.show.time = float(runs[0].cameras.times[0])
        self.centre = runs[0].model.scene_box.get_center().detach().cpu().double()
        self.instead: str | None = None
        """What stands for the numbers while a mesh takes the picture's place; None while there are pictures."""
        self._outputs: list[str] = []
        self._listeners: list[Callable[[Session, Shot, Image8], None]] = []
        self.server = start_server(host, port)
        self.server.scene.set_up_direction("+z")
        self.server.scene.world_axes.visible = False
        self.lines = JobLines(self.server)
        self.jobs = Jobs(self.lines.report)
        tabs = self.server.gui.add_tab_group()
        with tabs.add_tab("Compare"):
            self.compare = ComparePanel(self)
            self.time = TimePanel(self) if runs[0].timed else None
        with tabs.add_tab("Compress") as tab:
            self.compress = CompressPanel(self, tab)
        if SurfacePanel.fits(runs[0]):
            with tabs.add_tab("Surface"):
                self.surface: SurfacePanel | None = SurfacePanel(self)
        else:
            self.surface = None
        with tabs.add_tab("Record"):
            self.record = RecordPanel(self)
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)
        self.ready = True

    def get_camera_state(self, client: viser.ClientHandle) -> CameraState:
        """What nerfstudio's render machine asks for; sessions look at their cameras themselves."""
        return blank_state()

    def refresh(self, what: str = "rerender") -> None:
        """New pictures in all tabs: `move` while something is dragged or plays, else `rerender`."""
        for session in list(self.sessions.values()):
            session.ask(what)

    def recompose(self) -> None:
        """Last pictures of all tabs in another way, rendered anew where they do not suffice."""
        for session in list(self.sessions.values()):
            session.recompose()

    def add_run(self, viewed: Viewed, *, beside: str | None = None) -> str:
        """Takes a run in and shows it, beside another one where that is named; returns its name."""
        name = self.show.add(viewed)
        changes = {"second": name} | ({"first": beside} if beside else {})
        self.show.choose(**changes, mode="split")
        self.compare.offer_runs()
        self.refresh()
        return name

    def offer_outputs(self, names: list[str]) -> None:
        """Lets outputs be chosen; called with those of the last picture."""
        if names != self._outputs:
            self._outputs = names
            self.compare.offer_outputs(names)

    def depth_of(self, shot: Shot) -> NDArray[np.float32] | None:
        """Depth along the optical axis in the browser's scene, for what stands in it; None where nothing does."""
        if self.surface is None or not self.surface.needs_depth:
            return None
        picture = next(iter(shot.pictures.values()))
        depth = picture.outputs.get("z_depth")
        if depth is None:
            return None
        far = np.float32(160.0)
        return np.where(picture.outputs["accumulation"][..., 0] > 0.5, SCALE * depth[..., 0], far).astype(np.float32)

    def on_display(self, listener: Callable[[Session, Shot, Image8], None]) -> None:
        """Calls a function with every picture that a tab is sent."""
        self._listeners.append(listener)

    def displayed(self, session: Session, shot: Shot, picture: Image8) -> None:
        """Called by sessions."""
        for listener in self._listeners:
            listener(session, shot, picture)

    def session_of(self, client: viser.ClientHandle | None) -> Session | None:
        """The session of a tab; any one where the tab is not known."""
        if client is not None and client.client_id in self.sessions:
            return self.sessions[client.client_id]
        return next(iter(self.sessions.values()), None)

    def close(self) -> None:
        """Ends sessions and server."""
        for session in list(self.sessions.values()):
            session.close()
        self.server.stop()

    def wait(self) -> None:
        """Returns when interrupted by Ctrl-C."""
        while True:
            time.sleep(3600)

    def _connect(self, client: viser.ClientHandle) -> None:
        session = Session(self, client)
        self.sessions[client.client_id] = session
        if self.show.base.cameras is not None:
            session.go_to_view(0)
        session.start()
        session.ask()
        client.camera.on_update(lambda _: session.moved())

    def _disconnect(self, client: viser.ClientHandle) -> None:
        session = self.sessions.pop(client.client_id, None)
        if session is not None:
            # called from the server's own thread, which must not wait for a picture
            threading.Thread(target=session.close, daemon=True).start()
