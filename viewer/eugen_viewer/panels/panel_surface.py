"""The tab for runs with a signed distance: mesh, slice, and distances at clicked points."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import viser

from eugen_nerf.core.errors import EugenError
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_nerf.surfaces.mesh import TriangleMesh, extract_mesh, write_mesh
from eugen_viewer.background_jobs import NewestValueWorker, Progress
from eugen_viewer.context import ViewerContext
from eugen_viewer.panels.readout import escape_markdown
from eugen_viewer.panels.widgets import colour_bar
from eugen_viewer.shown_runs import ShownRun
from eugen_viewer.surface_view import COLOURS, MESH_CELLS, coloured_mesh, make_slice_plane, probe_ray
from eugen_viewer.viewer_cameras import SCALE

MESH_JOB = "mesh"
AXES = ("x", "y", "z")


class SurfacePanel:
    """A mesh extracted in the background, a movable slice, and a probe.

    Args:
        app: the viewer; the first mesh is started after the first image.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui = app.server.gui
        fitting = [shown_run.name for shown_run in app.comparison.runs.values() if self.fits(shown_run)]
        self.mesh: TriangleMesh | None = None
        self.mesh_summary = ""
        low, high = self._sdf(fitting[0]).bounds.astype(float)
        longest = float((high - low).max())
        self.run = gui.add_dropdown("Run", fitting, initial_value=fitting[0])
        self.cell = gui.add_number("Cell size, m", round(longest / MESH_CELLS, 3), min=0.001, step=0.001)
        self.mesh_checkbox = gui.add_checkbox("Show mesh", False, disabled=True)
        again = gui.add_button("Extract mesh", icon=viser.Icon.REFRESH)
        save = gui.add_button("Save mesh", icon=viser.Icon.DEVICE_FLOPPY)
        outside = gui.add_button("Look from outside", icon=viser.Icon.CAMERA)
        self.slice = gui.add_checkbox("Show slice", False)
        self.axis = gui.add_dropdown("Slice axis", AXES, initial_value="z")
        # one range for all axes: viser's sliders cannot change it
        ends = round(float(low.min()), 2), round(float(high.max()), 2)
        self.at = gui.add_slider("Slice position, m", *ends, 0.01, round(float(low[2] + high[2]) / 2, 2))
        self.limit = gui.add_slider("Colour range, m", 0.05, max(1.0, round(longest / 2, 1)), 0.05, 0.5)
        self.bar = gui.add_markdown("")
        self.clicking = gui.add_checkbox("Click to measure", False)
        self.measurement = gui.add_markdown("")
        again.on_click(lambda _: self.extract())
        save.on_click(lambda _: self._save())
        outside.on_click(lambda event: self._look_from_outside(event.client))
        self.mesh_checkbox.on_update(self._mesh_toggled)
        for handle in (self.slice, self.at, self.limit, self.run, self.axis):
            handle.on_update(lambda _: self._worker.put(None))
        self.clicking.on_update(self._listen)
        self._worker: NewestValueWorker[None] = NewestValueWorker(lambda _: self._draw_slice())
        self._probes: NewestValueWorker[tuple[np.ndarray, np.ndarray]] = NewestValueWorker(lambda r: self.measure(*r))
        self._begun = False
        app.on_display(self._begin)

    @staticmethod
    def fits(shown_run: ShownRun) -> bool:
        """Whether a run has a signed distance."""
        try:
            SignedDistance.of_model(shown_run.model)
        except EugenError:
            return False
        return True

    @property
    def needs_depth(self) -> bool:
        """Whether there is an object in the scene."""
        return bool(self.slice.value or self.clicking.value)

    def extract(self) -> None:
        """Starts extracting a mesh in the background."""
        self.app.jobs.start(MESH_JOB, self._extract)

    def _begin(self, session: object, frame: Any, image: object) -> None:
        if not self._begun and all(p.whole for p in frame.images.values()):
            self._begun = True
            self.extract()

    def _sdf(self, name: str) -> SignedDistance:
        return SignedDistance.of_model(self.app.comparison.runs[name].model)

    def _plane(self) -> tuple[int, float]:
        """Axis of the slice, and its position inside the box."""
        axis = AXES.index(self.axis.value)
        low, high = self._sdf(self.run.value).bounds[:, axis].astype(float)
        return axis, float(np.clip(float(self.at.value), low, high))

    def _extract(self, progress: Progress) -> str:
        name, cell = self.run.value, float(self.cell.value)
        sdf = self._sdf(name)

        def distance(points: np.ndarray) -> np.ndarray:
            # in pieces, so that images can be rendered in between
            parts = []
            for piece in np.array_split(points, max(1, len(points) // 16384)):
                with self.app.comparison.renderer.lock:
                    parts.append(sdf.distance(piece))
                done[0] += len(piece)
                progress(min(done[0] / total, 0.99), f"{cell:g} m cells of {name}")
            return np.concatenate(parts)

        low, high = sdf.bounds.astype(float)
        total, done = float(np.prod(np.ceil((high - low) / cell) + 1)), [0]
        mesh = extract_mesh(distance, sdf.bounds, cell)
        self.mesh = mesh
        self.mesh_summary = (
            f"**mesh of {escape_markdown(name)}**: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces, "
            f"{cell:g} m cells\n\n"
            'The mesh replaces the image. Untick "Show mesh" in the tab Surface to see the image.'
        )
        self.mesh_checkbox.disabled = False
        self.mesh_checkbox.value = True
        self._show_mesh(True)
        return ""

    def _show_mesh(self, shown: bool) -> None:
        if self.mesh is None:
            return
        self.app.server.scene.add_glb("/mesh", coloured_mesh(self.mesh), scale=SCALE, visible=shown)
        self.app.mesh_message = self.mesh_summary if shown else None
        self.app.refresh()

    def _mesh_toggled(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is not None:
            self._show_mesh(self.mesh_checkbox.value)

    def _look_from_outside(self, client: viser.ClientHandle | None) -> None:
        session = self.app.session_for(client)
        if session is not None:
            session.go_outside(self._sdf(self.run.value).bounds.astype(float))

    def _save(self) -> None:
        mesh = self.mesh
        if mesh is None:
            self.measurement.content = "no mesh yet"
            return
        path = self.app.output / f"mesh-{datetime.now():%Y-%m-%d_%H%M%S}.ply"
        try:
            write_mesh(mesh, path)
        except EugenError as error:
            self.measurement.content = escape_markdown(str(error))
        else:
            self.measurement.content = escape_markdown(f"wrote {path}")

    def _draw_slice(self) -> None:
        scene = self.app.server.scene
        if not self.slice.value:
            scene.add_frame("/slice", show_axes=False, visible=False)
            self.bar.content = ""
            self.app.refresh()
            return
        limit = float(self.limit.value)
        with self.app.comparison.renderer.lock:
            slice_plane = make_slice_plane(self._sdf(self.run.value), *self._plane(), limit)
        scene.add_image(
            "/slice",
            slice_plane.image,
            SCALE * slice_plane.width,
            SCALE * slice_plane.height,
            format="png",
            wxyz=slice_plane.wxyz,
            position=SCALE * slice_plane.centre,
        )
        self.bar.content = colour_bar(COLOURS, f"-{limit:.2f} m, inside", f"+{limit:.2f} m, free; black: the surface")
        self.app.refresh()

    def _listen(self, event: viser.GuiEvent[Any]) -> None:
        scene = self.app.server.scene
        if not self.clicking.value:
            scene.remove_pointer_callback()
            return
        self.measurement.content = "click on the surface, or on the slice"

        def clicked(message: viser.ScenePointerEvent) -> None:
            if message.ray_origin is not None and message.ray_direction is not None:
                self._probes.put((np.array(message.ray_origin) / SCALE, np.array(message.ray_direction)))

        scene.on_pointer_event("click")(clicked)
        self.app.refresh()

    def measure(self, origin: np.ndarray, direction: np.ndarray) -> None:
        """Shows distance and gradient where a ray `[3]`, `[3]` in metres first hits the slice or the surface."""
        plane = self._plane() if self.slice.value else None
        with self.app.comparison.renderer.lock:
            probe = probe_ray(self._sdf(self.run.value), origin, direction, plane)
        if probe is None:
            self.measurement.content = "nothing hit"
            return
        self.measurement.content = probe.markdown()
        scene = self.app.server.scene
        scene.add_icosphere("/probe/point", radius=0.02 * SCALE, color=(255, 170, 0), position=SCALE * probe.point)
        ends = np.stack([probe.point, probe.point + 0.25 * probe.gradient])
        scene.add_spline_catmull_rom("/probe/gradient", SCALE * ends, line_width=3.0, color=(255, 170, 0), segments=2)
