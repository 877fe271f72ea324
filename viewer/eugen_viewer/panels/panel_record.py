"""The tab that records: screenshots, camera paths, films."""

from __future__ import annotations

import viser

from eugen_nerf.core.errors import EugenError
from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.background_jobs import Progress
from eugen_viewer.context import ViewerContext
from eugen_viewer.frame_budget import fitted
from eugen_viewer.panels.readout import literal
from eugen_viewer.record import CameraPath, film, new_name, save_path, save_picture
from eugen_viewer.viewer_cameras import SCALE, Eye

FILMING = "film"


class RecordPanel:
    """Buttons for pictures and films of what is shown.

    Args:
        app: the viewer.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui = app.server.gui
        self.path = CameraPath()
        shot = gui.add_button("Screenshot", icon=viser.Icon.PHOTO)
        add = gui.add_button("Add place to path", icon=viser.Icon.PLUS)
        clear = gui.add_button("Clear path", icon=viser.Icon.TRASH)
        self.height = gui.add_number("Film height, pixels", 240, min=16, max=2160, step=2)
        self.seconds = gui.add_number("Film seconds", 4.0, min=0.2, max=600.0, step=0.2)
        self.fps = gui.add_number("Frames per second", 12, min=1, max=60, step=1)
        render = gui.add_button("Render film", icon=viser.Icon.VIDEO)
        keep = gui.add_button("Save path for ns-render", icon=viser.Icon.DEVICE_FLOPPY)
        self.text = gui.add_markdown("no places recorded")
        shot.on_click(lambda event: self.screenshot(event.client))
        add.on_click(lambda event: self.add(event.client))
        clear.on_click(lambda _: self._clear())
        render.on_click(lambda event: self.render(event.client))
        keep.on_click(lambda _: self._keep())

    def screenshot(self, client: viser.ClientHandle | None) -> None:
        """Saves the picture in a tab's window, and sends it to the tab."""
        session = self.app.session_of(client)
        picture = None if session is None or session.shot is None else self.app.show.compose(session.shot)
        if picture is None:
            self.text.content = "no picture yet"
            return
        path = new_name(self.app.output, "screenshot", ".png")
        try:
            save_picture(picture, path)
        except EugenError as error:
            self.text.content = literal(str(error))
            return
        self.text.content = literal(f"wrote {path}")
        if client is not None:
            client.send_file_download(path.name, path.read_bytes())

    def add(self, client: viser.ClientHandle | None) -> None:
        """Records where a tab's camera is."""
        session = self.app.session_of(client)
        if session is None:
            return
        eye = session.eye()
        self.path.eyes.append(Eye(eye.pose, eye.fov, eye.aspect, eye.time))
        number = len(self.path.eyes)
        self.app.server.scene.add_icosphere(
            f"/path/{number}", radius=0.02 * SCALE, color=(200, 60, 40), position=(SCALE * eye.pose[:, 3]).numpy()
        )
        self.text.content = f"{number} places recorded"

    def render(self, client: viser.ClientHandle | None) -> None:
        """Begins a film of what is shown, along the path."""
        if not self.app.jobs.start(FILMING, lambda progress: self._film(progress, client)):
            self.text.content = "a film is being rendered: wait for it"

    def _film(self, progress: Progress, client: viser.ClientHandle | None) -> str:
        fps, frames = float(self.fps.value), self._frames()
        eyes = self.path.along(frames)
        size = fitted(float(self.height.value), eyes[0].aspect, 4096)
        show = self.app.show

        def picture_of(eye: Eye) -> Image8 | None:
            return show.compose(show.shoot(eye, size))

        path = new_name(self.app.output, "film", ".mp4")
        film(eyes, picture_of, path, fps, progress)
        if client is not None and client.client_id in self.app.sessions:
            client.send_file_download(path.name, path.read_bytes())
        return f"wrote {path}: {frames} frames"

    def _frames(self) -> int:
        return max(2, round(float(self.seconds.value) * float(self.fps.value)))

    def _keep(self) -> None:
        file = new_name(self.app.output, "path", ".json")
        height, seconds = int(self.height.value), float(self.seconds.value)
        try:
            frames = self._frames()
            aspect = self.path.along(frames)[0].aspect
            save_path(self.path, file, height, max(2, round(height * aspect)), frames, seconds)
        except EugenError as error:
            self.text.content = literal(str(error))
        else:
            self.text.content = literal(f"wrote {file}; ns-render camera-path --camera-path-filename {file}")

    def _clear(self) -> None:
        self.path.eyes.clear()
        self.app.server.scene.add_frame("/path", show_axes=False)
        self.text.content = "no places recorded"
