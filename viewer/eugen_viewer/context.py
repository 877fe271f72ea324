"""The protocol by which panels and sessions know the viewer. The viewer imports them; they do not import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import viser
from nerfstudio.viewer.utils import CameraState
from numpy.typing import NDArray
from torch import Tensor

from eugen_nerf.methods.runs.image_metrics import Image8
from eugen_viewer.background_jobs import Jobs
from eugen_viewer.run_comparison import RenderedFrame, RunComparison
from eugen_viewer.shown_runs import ShownRun
from eugen_viewer.viewer_cameras import Viewpoint


class TabSession(Protocol):
    """One browser tab: its last images and its viewpoint."""

    @property
    def frame(self) -> RenderedFrame | None:
        """The last rendered images; None before the first."""

    def viewpoint(self) -> Viewpoint:
        """The viewpoint of the tab."""

    def go_to_view(self, view: int) -> None:
        """Moves the tab's camera to a test view."""

    def go_outside(self, bounds: NDArray[np.float64]) -> None:
        """Moves the tab's camera to a place from which a whole box is visible."""


class RunSelector(Protocol):
    """The panel for choosing runs."""

    @property
    def split_control(self) -> str:
        """Identifier, in the page, of the slider of the split."""

    def update_runs(self) -> None:
        """Updates the list of runs to choose from."""


class TimeSelector(Protocol):
    """The panel for choosing a time."""

    def set(self, time_: float) -> None:
        """Shows a time in [0, 1]."""


class ViewerContext(Protocol):
    """The viewer, as its panels and sessions know it."""

    mesh_message: str | None

    @property
    def server(self) -> viser.ViserServer:
        """viser's server."""

    @property
    def comparison(self) -> RunComparison:
        """The compared runs and how they are displayed."""

    @property
    def jobs(self) -> Jobs:
        """Background jobs."""

    @property
    def output(self) -> Path:
        """Folder for screenshots, films and meshes."""

    @property
    def centre(self) -> Tensor:
        """`[3]`, float64, of the scene's box."""

    @property
    def sessions(self) -> Mapping[int, Any]:
        """Sessions by the number of their client."""

    @property
    def compare_panel(self) -> RunSelector:
        """The panel for choosing runs."""

    @property
    def time_panel(self) -> TimeSelector | None:
        """The panel for choosing a time; None for a static scene."""

    def get_camera_state(self, client: viser.ClientHandle) -> CameraState:
        """Required by nerfstudio's render machine."""

    def refresh(self, what: str = "rerender") -> None:
        """Renders new images in all tabs."""

    def recompose(self) -> None:
        """Composes the last images of all tabs anew."""

    def add_run(self, shown_run: ShownRun, *, beside: str | None = None) -> str:
        """Adds a run and shows it; returns its name."""

    def update_outputs(self, names: list[str]) -> None:
        """Updates the choice of outputs."""

    def scene_depth(self, frame: RenderedFrame) -> NDArray[np.float32] | None:
        """Depth for objects in the scene; None without objects."""

    def on_display(self, listener: Callable[[Any, RenderedFrame, Image8], None]) -> None:
        """Registers a function to call with every displayed image."""

    def notify_displayed(self, session: Any, frame: RenderedFrame, image: Image8) -> None:
        """Called by sessions with every displayed image."""

    def session_for(self, client: viser.ClientHandle | None) -> TabSession | None:
        """The session of a tab; any session if the tab is unknown."""
