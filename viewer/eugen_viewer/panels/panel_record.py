"""The tab that records: screenshots, camera paths, films, web pages."""

from __future__ import annotations

import viser

from eugen_nerf.core.errors import ConfigError, EugenError
from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.background_jobs import Progress
from eugen_viewer.context import ViewerContext
from eugen_viewer.frame_budget import fit_size
from eugen_viewer.page_saving import save_web_page
from eugen_viewer.panels.readout import escape_markdown
from eugen_viewer.recording import CameraPath, record_film, save_image, save_path, unused_path
from eugen_viewer.viewer_cameras import SCALE, Viewpoint

FILM_JOB = "film"
PAGE_JOB = "web page"
MAX_CAMERAS = 1000
"""In a path."""
MAX_FILM_BYTES = 4 << 30
"""Of a film's images in memory."""


class RecordPanel:
    """Buttons for screenshots, camera paths, films and web pages.

    Args:
        app: the viewer.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui = app.server.gui
        self.path = CameraPath()
        screenshot = gui.add_button("Screenshot", icon=viser.Icon.PHOTO)
        add = gui.add_button("Add camera to path", icon=viser.Icon.PLUS)
        clear = gui.add_button("Clear path", icon=viser.Icon.TRASH)
        self.height = gui.add_number("Film height, pixels", 240, min=16, max=2160, step=2)
        self.seconds = gui.add_number("Film length, seconds", 4.0, min=0.2, max=600.0, step=0.2)
        self.fps = gui.add_number("Frames per second", 12, min=1, max=60, step=1)
        render = gui.add_button("Render film", icon=viser.Icon.VIDEO)
        keep = gui.add_button("Save path for ns-render", icon=viser.Icon.DEVICE_FLOPPY)
        page = gui.add_button("Save as web page", icon=viser.Icon.WORLD)
        self.text = gui.add_markdown("the camera path is empty")
        screenshot.on_click(lambda event: self.screenshot(event.client))
        add.on_click(lambda event: self.add(event.client))
        clear.on_click(lambda _: self._clear())
        render.on_click(lambda event: self.render(event.client))
        keep.on_click(lambda _: self._keep())
        page.on_click(lambda event: self.save_page(event.client))

    def screenshot(self, client: viser.ClientHandle | None) -> None:
        """Saves the image displayed in a tab, and sends it to the tab."""
        session = self.app.session_for(client)
        image = None if session is None or session.frame is None else self.app.comparison.compose(session.frame)
        if image is None:
            self.text.content = "no image yet"
            return
        path = unused_path(self.app.output, "screenshot", ".png")
        try:
            save_image(image, path)
        except EugenError as error:
            self.text.content = escape_markdown(str(error))
            return
        self.text.content = escape_markdown(f"wrote {path}")
        if client is not None:
            client.send_file_download(path.name, path.read_bytes())

    def add(self, client: viser.ClientHandle | None) -> None:
        """Adds a tab's viewpoint to the path."""
        session = self.app.session_for(client)
        if session is None:
            return
        if len(self.path.viewpoints) >= MAX_CAMERAS:
            self.text.content = f"a path has at most {MAX_CAMERAS} cameras"
            return
        viewpoint = session.viewpoint()
        self.path.viewpoints.append(Viewpoint(viewpoint.pose, viewpoint.fov, viewpoint.aspect, viewpoint.time))
        number = len(self.path.viewpoints)
        self.app.server.scene.add_icosphere(
            f"/path/{number}", radius=0.02 * SCALE, color=(200, 60, 40), position=(SCALE * viewpoint.pose[:, 3]).numpy()
        )
        self.text.content = f"{number} cameras in the path"

    def render(self, client: viser.ClientHandle | None) -> None:
        """Starts rendering a film along the path."""
        if not self.app.jobs.start(FILM_JOB, lambda progress: self._film(progress, client)):
            self.text.content = "a film is already being rendered: wait for it"

    def _film(self, progress: Progress, client: viser.ClientHandle | None) -> str:
        fps, frames = float(self.fps.value), self._frames()
        viewpoints = self.path.along(frames)
        size = fit_size(float(self.height.value), viewpoints[0].aspect, 4096)
        if frames * size[0] * size[1] * 3 > MAX_FILM_BYTES:
            raise ConfigError(
                f"{frames} frames of {size[1]} x {size[0]} pixels would take more than {MAX_FILM_BYTES >> 30} GiB of "
                "memory: choose a smaller height, fewer seconds or fewer frames per second"
            )
        comparison = self.app.comparison

        def image_of(viewpoint: Viewpoint) -> Image8 | None:
            return comparison.compose(comparison.render_frame(viewpoint, size))

        path = unused_path(self.app.output, "film", ".mp4")
        record_film(viewpoints, image_of, path, fps, progress)
        if client is not None and client.client_id in self.app.sessions:
            client.send_file_download(path.name, path.read_bytes())
        return f"wrote {path}: {frames} frames"

    def save_page(self, client: viser.ClientHandle | None) -> None:
        """Starts writing a web page of the runs that are shown, and sends it to the tab."""
        if not self.app.jobs.start(PAGE_JOB, lambda progress: self._page(progress, client)):
            self.text.content = "a web page is already being made: wait for it"

    def _page(self, progress: Progress, client: viser.ClientHandle | None) -> str:
        comparison = self.app.comparison
        names = dict.fromkeys(filter(None, (comparison.choice.first, comparison.choice.second)))
        path = unused_path(self.app.output, "page", ".html")
        size = save_web_page([comparison.runs[name] for name in names], path, progress)
        if client is not None and client.client_id in self.app.sessions:
            client.send_file_download(path.name, path.read_bytes())
        return f"wrote {path}: {size / 1e6:.1f} MB"

    def _frames(self) -> int:
        return max(2, round(float(self.seconds.value) * float(self.fps.value)))

    def _keep(self) -> None:
        file = unused_path(self.app.output, "path", ".json")
        height, seconds = int(self.height.value), float(self.seconds.value)
        try:
            frames = self._frames()
            aspect = self.path.along(frames)[0].aspect
            save_path(self.path, file, height, max(2, round(height * aspect)), frames, seconds)
        except EugenError as error:
            self.text.content = escape_markdown(str(error))
        else:
            self.text.content = escape_markdown(f"wrote {file}; ns-render camera-path --camera-path-filename {file}")

    def _clear(self) -> None:
        self.path.viewpoints.clear()
        self.app.server.scene.add_frame("/path", show_axes=False)
        self.text.content = "the camera path is empty"
