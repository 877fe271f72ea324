"""The tab of runs with a signed distance: mesh, slice, and distances at points that are clicked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import viser

from eugen_nerf.core.errors import EugenError
from eugen_nerf.surfaces.distance_field import SignedDistance
from eugen_nerf.surfaces.mesh import TriangleMesh, extract_mesh, write_mesh
from eugen_viewer.background_jobs import Latest, Progress
from eugen_viewer.context import ViewerContext
from eugen_viewer.panels.readout import literal
from eugen_viewer.panels.shared import colour_bar
from eugen_viewer.shown_runs import Viewed
from eugen_viewer.surface import COLOURS, MESH_CELLS, coloured_mesh, make_placard, probe_ray
from eugen_viewer.viewer_cameras import SCALE

MESHING = "mesh"
AXES = ("x", "y", "z")


class SurfacePanel:
    """Mesh in the background, a slice that moves, and a probe.

    Args:
        app: the viewer; the first mesh is begun after the first picture.
    """

    def __init__(self, app: ViewerContext) -> None:
        self.app = app
        gui = app.server.gui
        fitting = [viewed.name for viewed in app.show.runs.values() if self.fits(viewed)]
        self.mesh: TriangleMesh | None = None
        self.words = ""
        low, high = self._sdf(fitting[0]).bounds.astype(float)
        longest = float((high - low).max())
        self.run = gui.add_dropdown("Run", fitting, initial_value=fitting[0])
        self.cell = gui.add_number("Cell, m", round(longest / MESH_CELLS, 3), min=0.001, step=0.001)
        self.shown = gui.add_checkbox("Show mesh", False, disabled=True)
        again = gui.add_button("Extract mesh", icon=viser.Icon.REFRESH)
        save = gui.add_button("Save mesh", icon=viser.Icon.DEVICE_FLOPPY)
        outside = gui.add_button("Look from outside", icon=viser.Icon.CAMERA)
        self.slice = gui.add_checkbox("Show slice", False)
        self.axis = gui.add_dropdown("Across", AXES, initial_value="z")
        # one range for all axes: viser's sliders keep theirs
        ends = round(float(low.min()), 2), round(float(high.max()), 2)
        self.at = gui.add_slider("At, m", *ends, 0.01, round(float(low[2] + high[2]) / 2, 2))
        self.limit = gui.add_slider("Colours end at, m", 0.05, max(1.0, round(longest / 2, 1)), 0.05, 0.5)
        self.bar = gui.add_markdown("")
        self.clicking = gui.add_checkbox("Click to measure", False)
        self.found = gui.add_markdown("")
        again.on_click(lambda _: self.extract())
        save.on_click(lambda _: self._save())
        outside.on_click(lambda event: self._look_from_outside(event.client))
        self.shown.on_update(lambda event: self._show_mesh(self.shown.value) if event.client is not None else None)
        for handle in (self.slice, self.at, self.limit, self.run, self.axis):
            handle.on_update(lambda _: self._latest.put(None))
        self.clicking.on_update(self._listen)
        self._latest: Latest[None] = Latest(lambda _: self._draw_slice())
        self._begun = False
        app.on_display(self._begin)

    @staticmethod
    def fits(viewed: Viewed) -> bool:
        """Whether a run has a signed distance."""
        try:
            SignedDistance.of_model(viewed.model)
        except EugenError:
            return False
        return True

    @property
    def needs_depth(self) -> bool:
        """Whether something stands in the picture."""
        return bool(self.slice.value or self.clicking.value)

    def extract(self) -> None:
        """Begins a mesh in the background."""
        self.app.jobs.start(MESHING, self._extract)

    def _begin(self, session: object, shot: Any, picture: object) -> None:
        if not self._begun and all(p.whole for p in shot.pictures.values()):
            self._begun = True
            self.extract()

    def _sdf(self, name: str) -> SignedDistance:
        return SignedDistance.of_model(self.app.show.runs[name].model)

    def _plane(self) -> tuple[int, float]:
        """Axis of the slice, and where on it: inside the box."""
        axis = AXES.index(self.axis.value)
        low, high = self._sdf(self.run.value).bounds[:, axis].astype(float)
        return axis, float(np.clip(float(self.at.value), low, high))

    def _extract(self, progress: Progress) -> str:
        name, cell = self.run.value, float(self.cell.value)
        sdf = self._sdf(name)

        def ask(points: np.ndarray) -> np.ndarray:
            # piece by piece, so that pictures get their turn
            parts = []
            for piece in np.array_split(points, max(1, len(points) // 16384)):
                with self.app.show.renderer.lock:
                    parts.append(sdf.distance(piece))
                done[0] += len(piece)
                progress(min(done[0] / total, 0.99), f"{cell:g} m cells of {name}")
            return np.concatenate(parts)

        low, high = sdf.bounds.astype(float)
        total, done = float(np.prod(np.ceil((high - low) / cell) + 1)), [0]
        mesh = extract_mesh(ask, sdf.bounds, cell)
        self.mesh = mesh
        self.words = (
            f"**mesh of {literal(name)}**: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces, "
            f"{cell:g} m cells\n\n"
            'It stands in the picture\'s place: untick "Show mesh" in the tab Surface to see the picture.'
        )
        self.shown.disabled = False
        self.shown.value = True
        self._show_mesh(True)
        return ""

    def _show_mesh(self, shown: bool) -> None:
        if self.mesh is None:
            return
        self.app.server.scene.add_glb("/mesh", coloured_mesh(self.mesh), scale=SCALE, visible=shown)
        self.app.instead = self.words if shown else None
        self.app.refresh()

    def _look_from_outside(self, client: viser.ClientHandle | None) -> None:
        session = self.app.session_of(client)
        if session is not None:
            session.go_outside(self._sdf(self.run.value).bounds.astype(float))

    def _save(self) -> None:
        mesh = self.mesh
        if mesh is None:
            self.found.content = "there is no mesh yet"
            return
        path = self.app.output / f"mesh-{datetime.now():%Y-%m-%d_%H%M%S}.ply"
        try:
            write_mesh(mesh, path)
        except EugenError as error:
            self.found.content = literal(str(error))
        else:
            self.found.content = literal(f"wrote {path}")

    def _draw_slice(self) -> None:
        scene = self.app.server.scene
        if not self.slice.value:
            scene.add_frame("/slice", show_axes=False, visible=False)
            self.bar.content = ""
            self.app.refresh()
            return
        limit = float(self.limit.value)
        with self.app.show.renderer.lock:
            placard = make_placard(self._sdf(self.run.value), *self._plane(), limit)
        scene.add_image(
            "/slice",
            placard.picture,
            SCALE * placard.width,
            SCALE * placard.height,
            format="png",
            wxyz=placard.wxyz,
            position=SCALE * placard.centre,
        )
        self.bar.content = colour_bar(COLOURS, f"-{limit:.2f} m, inside", f"+{limit:.2f} m, free; black: the surface")
        self.app.refresh()

    def _listen(self, event: viser.GuiEvent[Any]) -> None:
        scene = self.app.server.scene
        if not self.clicking.value:
            scene.remove_pointer_callback()
            return
        self.found.content = "click on the surface, or on the slice"

        def clicked(message: viser.ScenePointerEvent) -> None:
            if message.ray_origin is not None and message.ray_direction is not None:
                self.measure(np.array(message.ray_origin) / SCALE, np.array(message.ray_direction))

        scene.on_pointer_event("click")(clicked)
        self.app.refresh()

    def measure(self, origin: np.ndarray, direction: np.ndarray) -> None:
        """Distance and gradient at what a ray `[3]`, `[3]` in metres meets first."""
        plane = self._plane() if self.slice.value else None
        with self.app.show.renderer.lock:
            probe = probe_ray(self._sdf(self.run.value), origin, direction, plane)
        if probe is None:
            self.found.content = "nothing there"
            return
        self.found.content = probe.markdown()
        scene = self.app.server.scene
        scene.add_icosphere("/probe/point", radius=0.02 * SCALE, color=(255, 170, 0), position=SCALE * probe.point)
        ends = np.stack([probe.point, probe.point + 0.25 * probe.gradient])
        scene.add_spline_catmull_rom("/probe/gradient", SCALE * ends, line_width=3.0, color=(255, 170, 0), segments=2)
