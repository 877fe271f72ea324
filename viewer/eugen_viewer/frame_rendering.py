"""Renders a frame: one image of one model, in small pieces so that it can be cancelled when the camera moves on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from eugen_viewer.fair_lock import FairLock
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.shown_runs import ShownRun, counting_queries

PIECE_SECONDS = 0.1
"""Target time of a piece, and so the delay before a camera movement is noticed. Half of a piece takes more than half as
long: every operation has to be started."""
_PIECE_RAYS = (64, 1 << 15)
"""Minimum and maximum number of rays of a piece."""

Columns = tuple[int, int]
"""First column of an image and one past the last."""


class RenderCancelled(Exception):
    """The image is no longer wanted."""


@dataclass(frozen=True)
class RenderedImage:
    """The image of one model.

    Attributes:
        outputs: float32 `[height, width, channels]` by name, with 1 or 3 channels; zero outside `columns`.
        seconds: for rendering these columns.
        queries: number of points at which fields were evaluated; None if unknown.
        columns: the rendered ones.
        share: of the run's features.
    """

    outputs: Mapping[str, NDArray[np.float32]]
    seconds: float
    queries: int | None
    columns: Columns
    share: float = 1.0

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
        """Estimated seconds for all columns, at the same speed."""
        return self.seconds * self.size[1] / max(1, self.columns[1] - self.columns[0])


class Renderer:
    """Renders the shown models, one piece at a time across all sessions.

    Args:
        budget: receives the measured speeds.
    """

    def __init__(self, budget: FrameBudget) -> None:
        self.budget = budget
        self.lock = FairLock()
        """Held during evaluation of a model, and by code that copies or changes a shown model."""

    def render(
        self,
        shown_run: ShownRun,
        camera: Cameras,
        *,
        columns: Columns | None = None,
        share: float | None = None,
        at_once: bool = False,
        wanted: Callable[[], bool] = lambda: True,
        progress: Callable[[float], None] = lambda share: None,
    ) -> RenderedImage:
        """Renders one image.

        Args:
            shown_run: the model.
            camera: `[1]`, in the model's own coordinates.
            columns: to render; None renders all.
            share: of the run's features; None takes the one shown.
            at_once: whether the image is so small that it is one piece.
            wanted: called before every piece; False cancels.
            progress: called with the completed share after every piece.

        Raises:
            RenderCancelled: the image is no longer wanted.
            RunError: the model fails, or has no image output.
        """
        model = shown_run.model
        share = shown_run.share if share is None else share
        camera = camera.to(model.device)
        height, width = int(camera.height[0]), int(camera.width[0])
        first, last = columns or (0, width)
        if type(model).get_outputs_for_camera is not Model.get_outputs_for_camera:
            return self._render_whole(shown_run, camera, (height, width))
        bundle = camera.generate_rays(camera_indices=0, keep_shape=True)[:, first:last].flatten()
        parts: dict[str, list[Tensor]] = {}
        done, seconds, queries = 0, 0.0, 0
        while done < len(bundle):
            if not wanted():
                raise RenderCancelled
            piece = bundle[done : done + (len(bundle) if at_once else self._piece(shown_run.name))]
            with self.lock:
                if not wanted():  # any more: many tabs may have been served meanwhile
                    raise RenderCancelled
                with shown_run.evaluated_at(share):
                    took, queries_of_piece, outputs = _render_piece(model, piece)
            if share == shown_run.share:
                self.budget.record_speed(shown_run.name, len(piece), took)
            seconds, queries, done = seconds + took, queries + queries_of_piece, done + len(piece)
            for name, value in outputs.items():
                parts.setdefault(name, []).append(value)
            progress(done / len(bundle))
        shown = {}
        for name, values in parts.items():
            whole = np.zeros((height, width, values[0].shape[-1]), dtype=np.float32)
            whole[:, first:last] = torch.cat(values).reshape(height, last - first, -1).numpy()
            shown[name] = whole
        return RenderedImage(with_standard_names(shown), seconds, queries or None, (first, last), share)

    def _piece(self, name: str) -> int:
        # the first piece is small: it measures the speed
        if not self.budget.is_measured(name):
            return _PIECE_RAYS[0]
        rays = PIECE_SECONDS / max(self.budget.seconds_per_ray([name]), 1e-9)
        return int(min(max(rays, _PIECE_RAYS[0]), _PIECE_RAYS[1]))

    def _render_whole(self, shown_run: ShownRun, camera: Cameras, size: tuple[int, int]) -> RenderedImage:
        """Renders a model without rays, such as splats."""
        with self.lock, torch.no_grad():
            synchronise(shown_run.model.device)
            start = time.perf_counter()
            outputs = _call_model(lambda: shown_run.model.get_outputs_for_camera(camera), shown_run.model)
            synchronise(shown_run.model.device)
            seconds = time.perf_counter() - start
        self.budget.record_speed(shown_run.name, size[0] * size[1], seconds)
        shown = {k: v.reshape(*size, -1).numpy() for k, v in _image_outputs(outputs, size[0] * size[1]).items()}
        return RenderedImage(with_standard_names(shown), seconds, None, (0, size[1]))


def _render_piece(model: Model, piece: RayBundle) -> tuple[float, int, dict[str, Tensor]]:
    """Seconds, number of queries, and outputs `[rays, channels]` on the CPU for a piece of an image."""
    with torch.no_grad(), counting_queries(model) as counts:
        synchronise(model.device)
        start = time.perf_counter()
        outputs = _call_model(lambda: model.forward(ray_bundle=piece), model)
        synchronise(model.device)
        seconds = time.perf_counter() - start
    return seconds, sum(counts), _image_outputs(outputs, len(piece))


def _call_model(call: Callable[[], Mapping[str, Any]], model: Model) -> Mapping[str, Any]:
    try:
        return call()
    except (RuntimeError, ValueError, AssertionError, IndexError, KeyError) as error:
        line = next(iter(str(error).splitlines()), "")
        raise RunError(f"{type(model).__name__} cannot render this view: {type(error).__name__}: {line}") from error


def _image_outputs(outputs: Mapping[str, object], rays: int) -> dict[str, Tensor]:
    """The outputs that can be shown as images."""
    return {
        name: value.detach().float().cpu().reshape(rays, -1)
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.numel() in (rays, 3 * rays) and value.is_floating_point()
    }


def with_standard_names(outputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Outputs with `rgb`, `depth` and `accumulation` added if a model has them only under the names of its fine field.

    Raises:
        RunError: there is no image among them.
    """
    found = dict(outputs)
    for name in ("rgb", "depth", "accumulation"):
        if name not in found and f"{name}_fine" in found:
            found[name] = found[f"{name}_fine"]
    if not found:
        raise RunError("the model has no output that could be shown as an image")
    first = [name for name in ("rgb", "depth", "normals", "accumulation") if name in found]
    return {name: found[name] for name in [*first, *sorted(set(found) - set(first))]}
