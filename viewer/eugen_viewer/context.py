"""What panels and sessions know of the viewer that holds them: it imports them, and they do not import it."""

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
from eugen_viewer.show import Shot, Show
from eugen_viewer.shown_runs import Viewed
from eugen_viewer.viewer_cameras import Eye


class TabSession(Protocol):
    """One browser tab: its last images and where it looks from."""

    @property
    def shot(self) -> Shot | None:
        """The last rendered images; None before the first."""

    def eye(self) -> Eye:
        """Where the tab looks from."""

    def go_to_view(self, view: int) -> None:
        """Moves the tab's camera to a test view."""

    def go_outside(self, bounds: NDArray[np.float64]) -> None:
        """Moves the tab's camera to where the whole of a box is in view."""


class RunChoice(Protocol):
    """The choice between runs."""

    def offer_runs(self) -> None:
        """Lets all runs on show be chosen."""


class TimeChoice(Protocol):
    """The choice of a time."""

    def set(self, time_: float) -> None:
        """Shows a time in [0, 1]."""


class ViewerContext(Protocol):
    """The viewer, as its panels and sessions know it."""

    instead: str | None

    @property
    def server(self) -> viser.ViserServer:
        """viser's server."""

    @property
    def show(self) -> Show:
        """What is on show."""

    @property
    def jobs(self) -> Jobs:
        """Work in the background."""

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
    def compare(self) -> RunChoice:
        """The choice between runs."""

    @property
    def time(self) -> TimeChoice | None:
        """The choice of a time; None of a still scene."""

    def get_camera_state(self, client: viser.ClientHandle) -> CameraState:
        """What nerfstudio's render machine reads."""

    def refresh(self, what: str = "rerender") -> None:
        """Renders all tabs anew."""

    def recompose(self) -> None:
        """Shows the last images of all tabs in another way."""

    def add_run(self, viewed: Viewed, *, beside: str | None = None) -> str:
        """Takes a run in and shows it; returns its name."""

    def offer_outputs(self, names: list[str]) -> None:
        """Lets outputs be chosen."""

    def depth_of(self, shot: Shot) -> NDArray[np.float32] | None:
        """Depth for what stands in the scene; None where nothing does."""

    def on_display(self, listener: Callable[[Any, Shot, Image8], None]) -> None:
        """Calls a function with every image that a tab is sent."""

    def displayed(self, session: Any, shot: Shot, picture: Image8) -> None:
        """Called by sessions with every image that they sent."""

    def session_of(self, client: viser.ClientHandle | None) -> TabSession | None:
        """The session of a tab; any one where the tab is unknown."""
