"""What is on show: the runs, which two of them, and how; and pictures of them taken together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock

import numpy as np
from nerfstudio.cameras.cameras import Cameras
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError, EugenError
from eugen_nerf.methods.runs.image_metrics import Image8, psnr, quantise
from eugen_viewer.frame_rendering import Columns, RenderedPicture, Renderer
from eugen_viewer.panels.readout import Readout, ReadoutRow
from eugen_viewer.pictures import Look, compose
from eugen_viewer.shown_runs import Viewed
from eugen_viewer.viewer_cameras import Eye, view_camera_at


@dataclass(frozen=True)
class Choice:
    """What is looked at: the names of the runs on the left and on the right, and how they are shown."""

    first: str
    second: str | None
    look: Look

    def needed(self) -> list[str]:
        """Names of the runs that have to be rendered, without repetition."""
        wanted = zip((self.first, self.second), self.look.needs(), strict=True)
        return list(dict.fromkeys(name for name, needed in wanted if needed and name is not None))


@dataclass(frozen=True)
class Shot:
    """Pictures of one moment.

    Attributes:
        eye: where from.
        size: height and width, pixels.
        pictures: by run.
        fine: whether they are as fine as they get.
    """

    eye: Eye
    size: tuple[int, int]
    pictures: dict[str, RenderedPicture]
    fine: bool


@dataclass
class Show:
    """The runs and the choice among them; the same for all tabs.

    Attributes:
        runs: by name, in the order of loading; the first one's coordinates are the scene's.
        renderer: that all pictures come from.
    """

    runs: dict[str, Viewed]
    renderer: Renderer
    choice: Choice = field(init=False)
    time: float = 0.0
    _lock: RLock = field(default_factory=RLock, repr=False)
    _photographs: dict[tuple[str, int, tuple[int, int]], Image8 | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        names = list(self.runs)
        second = names[1] if len(names) > 1 else None
        self.choice = Choice(names[0], second, Look("split" if second else "first"))

    @property
    def base(self) -> Viewed:
        """The run whose coordinates and test views are the scene's."""
        return next(iter(self.runs.values()))

    def choose(self, **changes: object) -> Choice:
        """Changes the choice: `first`, `second`, or anything of the look.

        Raises:
            ConfigError: a run that is not there, or a look that makes no sense.
        """
        with self._lock:
            own = {key: changes.pop(key) for key in ("first", "second") if key in changes}
            look = replace(self.choice.look, **changes)  # type: ignore[arg-type]
            choice = replace(self.choice, look=look, **own)  # type: ignore[arg-type]
            for name in (choice.first, choice.second):
                if name is not None and name not in self.runs:
                    raise ConfigError(f"no run {name!r} is loaded; there are {', '.join(self.runs)}")
            if choice.second is None and look.mode != "first":
                choice = replace(choice, look=replace(look, mode="first"))
            self.choice = choice
            return choice

    def add(self, viewed: Viewed) -> str:
        """Takes a run in, under a name that is still free; returns it."""
        with self._lock:
            name, number = viewed.name, 2
            while name in self.runs:
                name, number = f"{viewed.name} {number}", number + 1
            viewed.name = name
            self.runs[name] = viewed
            return name

    def output_names(self, shot: Shot) -> list[str]:
        """Outputs that all pictures of a shot have."""
        first, *others = shot.pictures.values()
        return [name for name in first.outputs if all(name in other.outputs for other in others)]

    def sizes(self, eye: Eye, state: str) -> list[tuple[int, int]]:
        """Sizes to render one after the other, in a state of nerfstudio's render machine."""
        pace, names = self.renderer.pace, self.choice.needed()
        aspect, largest = eye.aspect, None
        if eye.view is not None and self.base.cameras is not None:
            camera = self.base.cameras[eye.view]
            height, width = int(camera.height), int(camera.width)
            aspect, largest = width / height, min(pace.largest, max(height, width))
        if state == "low_move":
            halves = 2 if self.choice.look.mode == "split" and len(names) == 2 else 1
            return [pace.size(names, aspect, halves * pace.moving, largest)]
        if state == "low_static":
            return [pace.size(names, aspect, pace.first, largest)]
        return pace.stages(names, aspect, largest)

    def shoot(
        self,
        eye: Eye,
        size: tuple[int, int],
        *,
        seen_only: bool = False,
        fine: bool = False,
        wanted: Callable[[], bool] = lambda: True,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Shot:
        """Renders what the choice needs.

        Args:
            eye: where from.
            size: height and width.
            seen_only: whether columns that the split hides are left out.
            fine: what the shot will say of itself.
            wanted: asked all along; see `Renderer.render`.
            progress: is told the share done.

        Raises:
            Abandoned: it is not wanted any more.
            EugenError: a model fails.
        """
        choice = self.choice
        names, pictures = choice.needed(), {}
        for number, name in enumerate(names):
            viewed = self.runs[name]
            camera = self.camera_for(viewed, eye, size)
            width = int(camera.width[0])
            columns: Columns | None = None
            if seen_only and len(names) == 2 and choice.look.mode == "split":
                columns = choice.look.columns(width)[int(name != choice.first)]
            pictures[name] = self.renderer.render(
                viewed,
                camera,
                columns=columns,
                wanted=wanted,
                progress=lambda share, number=number: progress((number + share) / len(names)),  # type: ignore[misc]
            )
        shown = next(iter(pictures.values())).size
        return Shot(eye, shown, pictures, fine)

    def camera_for(self, viewed: Viewed, eye: Eye, size: tuple[int, int]) -> Cameras:
        """The camera of a picture for one of the runs, in its own coordinates."""
        cameras = self.base.cameras
        if eye.view is None or cameras is None:
            return eye.camera(*size, frame=viewed.frame, own=self.base.frame)
        camera = view_camera_at(cameras, eye.view, size[0], eye.time if cameras.times is not None else None)
        if viewed is not self.base:
            pose = self.base.frame.carry(camera.camera_to_worlds[0], viewed.frame)
            camera.camera_to_worlds = pose[None].float()
        return camera

    def compose(self, shot: Shot) -> Image8 | None:
        """The picture in the window; None where the shot lacks what the choice asks for by now."""
        choice, pictures = self.choice, shot.pictures
        if any(name not in pictures or choice.look.output not in pictures[name].outputs for name in choice.needed()):
            return None
        first, second = (pictures[n].outputs if n in pictures else None for n in (choice.first, choice.second))
        return compose(choice.look, first, second)

    def readout(self, shot: Shot) -> Readout:
        """The numbers of a shot; quality is measured on whole and fine pictures only."""
        rows = []
        colours: dict[str, Image8] = {}
        for name, picture in shot.pictures.items():
            if picture.whole and "rgb" in picture.outputs:
                colours[name] = quantise(_tensor(picture.outputs["rgb"]))
            parameters, macs = self.runs[name].costs()
            queries = picture.queries
            if queries is not None and not picture.whole:
                queries = round(queries * picture.whole_seconds / picture.seconds)
            truth = self._photograph(shot) if shot.fine and name in colours else None
            against = None if truth is None else psnr(colours[name], truth)
            rows.append(ReadoutRow(name, picture.whole_seconds, queries, parameters, macs, against))
        mutual = psnr(*colours.values()) if len(colours) == 2 else None
        return Readout(rows, shot.size, shot.fine, mutual, shot.eye.view)

    def _photograph(self, shot: Shot) -> Image8 | None:
        """The photograph of the shot's test view and moment, in the shot's size; None where there is none."""
        view, cameras = shot.eye.view, self.base.cameras
        if view is None or cameras is None or not _makes_pictures(self.runs, list(shot.pictures)):
            return None
        if cameras.times is not None and abs(float(cameras.times[view]) - shot.eye.time) > 1e-6:
            return None
        key = (self.base.name, view, shot.size)
        if key not in self._photographs:
            try:
                self._photographs[key] = self.base.photograph(view, shot.size)
            except (EugenError, OSError):  # the data set may be gone by now
                return None
        return self._photographs[key]


def _makes_pictures(runs: dict[str, Viewed], names: Sequence[str]) -> bool:
    """Whether the outputs `rgb` are colours: those of a signed distance are not."""
    return all(getattr(runs[name].model, "renders_colours", True) for name in names)


def _tensor(array: NDArray[np.float32]):  # torch.Tensor
    import torch

    return torch.from_numpy(np.nan_to_num(array))
