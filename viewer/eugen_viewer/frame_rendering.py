"""Pictures of models, rendered in small pieces so that they can be given up as soon as the camera moves on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.models.base_model import Model
from numpy.typing import NDArray
from torch import Tensor

from eugen_nerf.core.errors import RunError
from eugen_nerf.fields.query_timing import synchronise
from eugen_viewer.frame_budget import Pace
from eugen_viewer.shown_runs import Viewed, counting_queries

PIECE_SECONDS = 0.05
"""What one piece of a picture may take: so long can a move of the camera go unnoticed."""
_PIECES = (64, 1 << 15)
"""Fewest and most rays of a piece."""

Columns = tuple[int, int]
"""First column of a picture and the one after the last."""


class Abandoned(Exception):
    """The picture is no longer wanted."""


@dataclass(frozen=True)
class RenderedPicture:
    """What one model shows.

    Attributes:
        outputs: float32 `[height, width, channels]` by name, for 1 or 3 channels; zero outside `columns`.
        seconds: that the model took, for the columns rendered.
        queries: points that its fields were asked for; None where that is not known.
        columns: that were rendered.
    """

    outputs: Mapping[str, NDArray[np.float32]]
    seconds: float
    queries: int | None
    columns: Columns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = next(iter(self.outputs.values())).shape[:2]
        return height, width

    @property
    def whole(self) -> bool:
        """Whether all columns were rendered."""
        return self.columns == (0, self.size[1])

    @property
    def whole_seconds(self) -> float:
        """What all columns would have taken, at the same speed."""
        return self.seconds * self.size[1] / max(1, self.columns[1] - self.columns[0])


class Renderer:
    """Renders any model that is on show; one piece at a time, whoever asks.

    Args:
        pace: learns the speeds.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.lock = Lock()
        """Held while a model works. Who copies or changes a model on show takes it too."""

    def render(
        self,
        viewed: Viewed,
        camera: Cameras,
        *,
        columns: Columns | None = None,
        wanted: Callable[[], bool] = lambda: True,
        progress: Callable[[float], None] = lambda share: None,
    ) -> RenderedPicture:
        """One picture.

        Args:
            viewed: the model.
            camera: `[1]`, in the model's own coordinates.
            columns: those to render; all where None.
            wanted: asked before every piece.
            progress: is told the share done after every piece.

        Raises:
            Abandoned: it is not wanted any more.
            RunError: the model fails, or shows nothing.
        """
        model = viewed.model
        camera = camera.to(model.device)
        height, width = int(camera.height[0]), int(camera.width[0])
        first, last = columns or (0, width)
        if type(model).get_outputs_for_camera is not Model.get_outputs_for_camera:
            return self._at_once(viewed, camera, (height, width))
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True)[:, first:last].flatten()
        parts: dict[str, list[Tensor]] = {}
        done, seconds, queries = 0, 0.0, 0
        while done < len(bundle):
            if not wanted():
                raise Abandoned
            piece = bundle[done : done + self._piece(viewed.name)]
            with self.lock:
                took, asked, outputs = _run(model, piece)
            self.pace.learn(viewed.name, len(piece), took)
            seconds, queries, done = seconds + took, queries + asked, done + len(piece)
            for name, value in outputs.items():
                parts.setdefault(name, []).append(value)
            progress(done / len(bundle))
        shown = {}
        for name, values in parts.items():
            whole = np.zeros((height, width, values[0].shape[-1]), dtype=np.float32)
            whole[:, first:last] = torch.cat(values).reshape(height, last - first, -1).numpy()
            shown[name] = whole
        return RenderedPicture(named(shown), seconds, queries or None, (first, last))

    def _piece(self, name: str) -> int:
        # the first piece of all is small: it tells the speed
        if not self.pace.known(name):
            return _PIECES[0]
        return int(min(max(PIECE_SECONDS / max(self.pace.ray_seconds([name]), 1e-9), _PIECES[0]), _PIECES[1]))

    def _at_once(self, viewed: Viewed, camera: Cameras, size: tuple[int, int]) -> RenderedPicture:
        """A picture of a model that takes no rays, such as splats."""
        with self.lock, torch.no_grad():
            synchronise(viewed.model.device)
            start = time.perf_counter()
            outputs = _called(lambda: viewed.model.get_outputs_for_camera(camera), viewed.model)
            synchronise(viewed.model.device)
            seconds = time.perf_counter() - start
        self.pace.learn(viewed.name, size[0] * size[1], seconds)
        shown = {k: v.reshape(*size, -1).numpy() for k, v in _shown(outputs, size[0] * size[1]).items()}
        return RenderedPicture(named(shown), seconds, None, (0, size[1]))


def _run(model: Model, piece: RayBundle) -> tuple[float, int, dict[str, Tensor]]:
    """Seconds, points asked for, and the outputs for a piece of a picture, `[rays, channels]` on the CPU."""
    with torch.no_grad(), counting_queries(model) as counts:
        synchronise(model.device)
        start = time.perf_counter()
        outputs = _called(lambda: model.forward(ray_bundle=piece), model)
        synchronise(model.device)
        seconds = time.perf_counter() - start
    return seconds, sum(counts), _shown(outputs, len(piece))


def _called(ask: Callable[[], Mapping[str, Any]], model: Model) -> Mapping[str, Any]:
    try:
        return ask()
    except (RuntimeError, ValueError, AssertionError, IndexError, KeyError) as error:
        line = next(iter(str(error).splitlines()), "")
        raise RunError(f"{type(model).__name__} cannot render this view: {type(error).__name__}: {line}") from error


def _shown(outputs: Mapping[str, object], rays: int) -> dict[str, Tensor]:
    """Those outputs that a picture can be made of."""
    return {
        name: value.detach().float().cpu().reshape(rays, -1)
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.numel() in (rays, 3 * rays) and value.is_floating_point()
    }


def named(outputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Outputs with `rgb`, `depth` and `accumulation` where a model has them under the names of its fine field alone.

    Raises:
        RunError: there is no picture among them.
    """
    found = dict(outputs)
    for name in ("rgb", "depth", "accumulation"):
        if name not in found and f"{name}_fine" in found:
            found[name] = found[f"{name}_fine"]
    if not found:
        raise RunError("the model has no output that could be shown as a picture")
    first = [name for name in ("rgb", "depth", "normals", "accumulation") if name in found]
    return {name: found[name] for name in [*first, *sorted(set(found) - set(first))]}
