"""The compared runs, the choice among them, and frames: images of the chosen runs from one viewpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock

import numpy as np
from nerfstudio.cameras.cameras import Cameras
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError, EugenError
from eugen_nerf.methods.runs.image_metrics import Image8, psnr, quantise
from eugen_viewer.frame_rendering import Columns, RenderedImage, Renderer
from eugen_viewer.image_composition import DisplaySettings, compose
from eugen_viewer.panels.readout import Readout, ReadoutRow
from eugen_viewer.shown_runs import ShownRun
from eugen_viewer.viewer_cameras import Viewpoint, view_camera_at

MAX_PHOTOGRAPHS = 32
"""Kept in the sizes in which they were compared."""


@dataclass(frozen=True)
class Choice:
    """Names of the runs on the left and on the right, and how they are displayed."""

    first: str
    second: str | None
    settings: DisplaySettings

    def needed(self) -> list[str]:
        """Names of the runs to render, without repetition."""
        wanted = zip((self.first, self.second), self.settings.needs(), strict=True)
        return list(dict.fromkeys(name for name, needed in wanted if needed and name is not None))


@dataclass(frozen=True)
class RenderedFrame:
    """Images of the chosen runs from one viewpoint.

    Attributes:
        viewpoint: of all images.
        size: height and width, pixels.
        images: by run.
        fine: whether they have the full resolution.
        wanted_size: height and width that were given; a test view's own camera may round the width otherwise.
    """

    viewpoint: Viewpoint
    size: tuple[int, int]
    images: dict[str, RenderedImage]
    fine: bool
    wanted_size: tuple[int, int] = (0, 0)


@dataclass
class RunComparison:
    """The runs and the choice among them, common to all tabs.

    Attributes:
        runs: by name, in the order of loading; the first one defines the scene's coordinates.
        renderer: of all images.
    """

    runs: dict[str, ShownRun]
    renderer: Renderer
    choice: Choice = field(init=False)
    time: float = 0.0
    _lock: RLock = field(default_factory=RLock, repr=False)
    _photographs: dict[tuple[str, int, tuple[int, int]], Image8 | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        names = list(self.runs)
        second = names[1] if len(names) > 1 else None
        self.choice = Choice(names[0], second, DisplaySettings("split" if second else "first"))

    @property
    def base(self) -> ShownRun:
        """The run that defines the scene's coordinates and test views."""
        return next(iter(self.runs.values()))

    def choose(self, **changes: object) -> Choice:
        """Changes the choice: `first`, `second`, or any field of `DisplaySettings`.

        Raises:
            ConfigError: an unknown run, or an invalid setting.
        """
        with self._lock:
            own = {key: changes.pop(key) for key in ("first", "second") if key in changes}
            settings = replace(self.choice.settings, **changes)  # type: ignore[arg-type]
            choice = replace(self.choice, settings=settings, **own)  # type: ignore[arg-type]
            for name in (choice.first, choice.second):
                if name is not None and name not in self.runs:
                    raise ConfigError(f"no run {name!r} is loaded; there are {', '.join(self.runs)}")
            if choice.second is None and settings.mode != "first":
                choice = replace(choice, settings=replace(settings, mode="first"))
            self.choice = choice
            return choice

    def add(self, shown_run: ShownRun) -> str:
        """Adds a run under an unused name; returns the name."""
        with self._lock:
            name, number = shown_run.name, 2
            while name in self.runs:
                name, number = f"{shown_run.name} {number}", number + 1
            shown_run.name = name
            self.runs[name] = shown_run
            return name

    def output_names(self, frame: RenderedFrame) -> list[str]:
        """Outputs that all images of a frame have."""
        first, *others = frame.images.values()
        return [name for name in first.outputs if all(name in other.outputs for other in others)]

    def next_size(self, viewpoint: Viewpoint, state: str, shown_height: int = 0) -> tuple[int, int]:
        """Height and width to render next, in a state of nerfstudio's render machine.

        Args:
            viewpoint: of the image.
            state: low_move, low_static or high.
            shown_height: of the image of this viewpoint that is shown already; 0 for none.
        """
        budget, names = self.renderer.budget, self.choice.needed()
        aspect, max_size = self._shape(viewpoint)
        if state == "low_move":
            share = 0.5 if self.choice.settings.mode == "split" and len(names) == 2 else 1.0
            return budget.moving_size(names, aspect, share, max_size)
        if state == "low_static":
            return budget.size(names, aspect, budget.first_seconds, max_size)
        return budget.next_size(names, aspect, shown_height, max_size)

    def record_moving(self, frame: RenderedFrame, seconds: float) -> None:
        """Learns from an image that was rendered while the camera moved, in a time from its camera to its sending."""
        names, (height, width) = list(frame.images), self.full_size(frame.viewpoint)
        runs = [self.runs[name] for name in names]
        steps = max(len(run.shares) for run in runs)
        # a share of the features takes at most so much of a ray's time: speeds, once measured, correct it
        costs = [sum(run.narrower(step) for run in runs) for step in range(max(1, steps))]
        rays = frame.size[0] * frame.size[1]
        self.renderer.budget.record_moving(names, rays, seconds, full=height * width, costs=costs)

    def full_size(self, viewpoint: Viewpoint) -> tuple[int, int]:
        """Height and width of the finest image."""
        return self.renderer.budget.full_size(*self._shape(viewpoint))

    def _shape(self, viewpoint: Viewpoint) -> tuple[float, int | None]:
        """Width over height of the image, and the limit of its longer side: those of the photograph at a test view."""
        if viewpoint.view is None or self.base.cameras is None:
            return viewpoint.aspect, None
        camera = self.base.cameras[viewpoint.view]
        height, width = int(camera.height), int(camera.width)
        return width / height, min(self.renderer.budget.max_size, max(height, width))

    def render_frame(
        self,
        viewpoint: Viewpoint,
        size: tuple[int, int],
        *,
        visible_only: bool = False,
        fine: bool = False,
        wanted: Callable[[], bool] = lambda: True,
        progress: Callable[[float], None] = lambda share: None,
    ) -> RenderedFrame:
        """Renders the chosen runs.

        Args:
            viewpoint: of all images.
            size: height and width.
            visible_only: whether to skip columns hidden by the split, as while the camera moves: the image is small
                then, and one piece, and may be of fewer features.
            fine: stored in the frame.
            wanted: see `Renderer.render`.
            progress: called with the completed share.

        Raises:
            RenderCancelled: the frame is no longer wanted.
            EugenError: a model fails.
        """
        choice = self.choice
        names, images = choice.needed(), {}
        steps = self.renderer.budget.narrower(names) if visible_only else 0
        for number, name in enumerate(names):
            shown_run = self.runs[name]
            camera = self.camera_for(shown_run, viewpoint, size)
            width = int(camera.width[0])
            columns: Columns | None = None
            if visible_only and len(names) == 2 and choice.settings.mode == "split":
                columns = choice.settings.columns(width)[int(name != choice.first)]
            images[name] = self.renderer.render(
                shown_run,
                camera,
                columns=columns,
                share=shown_run.narrower(steps),
                at_once=visible_only,
                wanted=wanted,
                progress=lambda share, number=number: progress((number + share) / len(names)),  # type: ignore[misc]
            )
        shown = next(iter(images.values())).size
        return RenderedFrame(viewpoint, shown, images, fine, size)

    def camera_for(self, shown_run: ShownRun, viewpoint: Viewpoint, size: tuple[int, int]) -> Cameras:
        """The camera for one of the runs, in its own coordinates."""
        cameras = self.base.cameras
        if viewpoint.view is None or cameras is None:
            return viewpoint.camera(*size, coordinates=shown_run.coordinates, own_coordinates=self.base.coordinates)
        camera = view_camera_at(cameras, viewpoint.view, size[0], viewpoint.time if cameras.times is not None else None)
        if shown_run is not self.base:
            pose = self.base.coordinates.convert_pose(camera.camera_to_worlds[0], shown_run.coordinates)
            camera.camera_to_worlds = pose[None].float()
        return camera

    def compose(self, frame: RenderedFrame, *, line: bool = True) -> Image8 | None:
        """The displayed image; None if the frame lacks an output of the current choice.

        Args:
            frame: of the chosen runs.
            line: whether the halves of a split have a line between them.
        """
        choice, images = self.choice, frame.images
        if any(name not in images or choice.settings.output not in images[name].outputs for name in choice.needed()):
            return None
        first, second = (images[n].outputs if n in images else None for n in (choice.first, choice.second))
        return compose(choice.settings, first, second, line=line)

    def readout(self, frame: RenderedFrame) -> Readout:
        """The numbers of a frame; quality is measured on complete images of full resolution only."""
        rows = []
        colours: dict[str, Image8] = {}
        for name, image in frame.images.items():
            if image.whole and "rgb" in image.outputs:
                colours[name] = quantise(_tensor(image.outputs["rgb"]))
            parameters, macs = self.runs[name].costs(image.share)
            queries = image.queries
            if queries is not None and not image.whole:
                queries = round(queries * image.whole_seconds / image.seconds)
            truth = self._photograph(frame) if frame.fine and name in colours else None
            against = None if truth is None else psnr(colours[name], truth)
            rows.append(ReadoutRow(name, image.whole_seconds, queries, parameters, macs, against, image.share))
        mutual = psnr(*colours.values()) if len(colours) == 2 else None
        return Readout(rows, frame.size, frame.fine, mutual, frame.viewpoint.view)

    def _photograph(self, frame: RenderedFrame) -> Image8 | None:
        """The photograph of the frame's test view and time, in the frame's size; None if there is none."""
        view, cameras = frame.viewpoint.view, self.base.cameras
        if view is None or cameras is None or not _render_colours(self.runs, list(frame.images)):
            return None
        if cameras.times is not None and abs(float(cameras.times[view]) - frame.viewpoint.time) > 1e-6:
            return None
        key = (self.base.name, view, frame.size)
        with self._lock:
            if key not in self._photographs:
                try:
                    photograph = self.base.photograph(view, frame.size)
                except (EugenError, OSError):  # the data set may have been removed
                    return None
                if len(self._photographs) >= MAX_PHOTOGRAPHS:
                    self._photographs.pop(next(iter(self._photographs)))
                self._photographs[key] = photograph
            return self._photographs[key]


def _render_colours(runs: dict[str, ShownRun], names: Sequence[str]) -> bool:
    """Whether the outputs `rgb` are colours: those of a signed distance are not."""
    return all(getattr(runs[name].model, "renders_colours", True) for name in names)


def _tensor(array: NDArray[np.float32]):  # torch.Tensor
    import torch

    return torch.from_numpy(np.nan_to_num(array))
