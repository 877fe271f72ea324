"""A run with its model, as the viewer shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.conversion.gpu_rendering import render_by_gpu
from eugen_nerf.core import InferencePlan
from eugen_nerf.core.errors import EugenError
from eugen_nerf.evaluation.costs.resources import count_parameters, inference_parameters
from eugen_nerf.evaluation.images.ground_truth import composite
from eugen_nerf.evaluation.images.view_rendering import eval_dataset
from eugen_nerf.fields.counting import macs_per_query
from eugen_nerf.fields.radiance_field import Selection
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering.planning import give_plans, plans_of
from eugen_nerf.methods.runs.bundle_runs import BundleModel, open_bundle
from eugen_nerf.methods.runs.fast_rendering import RendererChoice, plan_run, use_fast_renderer
from eugen_nerf.methods.runs.image_metrics import Image8, quantise
from eugen_nerf.methods.runs.loading import Run, load_run, query_module
from eugen_nerf.methods.runs.run_paths import is_bundle
from eugen_nerf.web.native.adapters import GpuAdapter
from eugen_viewer.viewer_cameras import RunCoordinates

_EVALUATIONS = ("evaluate", "get_density", "distance", "distance_and_gradient")
"""Methods by which a model evaluates its fields: the package's, stock ones, those of signed distances."""

_OF_SPANS = "evaluate_spans"
"""That by which the fast renderer does."""


@dataclass
class ShownRun:
    """A model that the viewer shows.

    Attributes:
        name: in the viewer.
        run: of the model; its data provide test views and photographs.
        model: in evaluation mode; the run's own, or a preview made of it.
        quality: dB of PSNR that its fast renderer may lose; None while it renders by the samplers of training.
        trust_config: whether the run's config was read as nerfstudio does.
    """

    name: str
    run: Run
    model: Model
    quality: float | None = None
    trust_config: bool = False
    share: float = 1.0
    """Of its features, with which it is shown: one of `shares`, where it has any."""
    _choice: RendererChoice | None = field(default=None, repr=False)
    _plans: dict[float, dict[str, InferencePlan]] = field(default_factory=dict, repr=False)
    """Of the shares with which it was evaluated."""
    _costs: dict[float, tuple[int, int | None]] = field(default_factory=dict, repr=False)
    """Likewise."""

    def __post_init__(self) -> None:
        model = self.model
        if isinstance(model, GraphModel) and model.trained_shares():
            self.share = next(field.network.share for field in model.graph_fields().values() if field.shares)

    @property
    def cameras(self) -> Cameras | None:
        """The test views' cameras on the CPU; None if the run has none."""
        views = getattr(self.run.pipeline.datamanager, "eval_dataset", None)
        return None if views is None or len(views) == 0 else views.cameras

    @property
    def coordinates(self) -> RunCoordinates:
        """Transform from the data's coordinates to the run's."""
        outputs = getattr(self.run.pipeline.datamanager, "train_dataparser_outputs", None)
        if outputs is None:
            return RunCoordinates()
        return RunCoordinates(outputs.dataparser_transform[:3].double(), float(outputs.dataparser_scale))

    @property
    def timed(self) -> bool:
        """Whether the scene is dynamic."""
        return self.cameras is not None and self.cameras.times is not None

    def render_fast(self, quality: float) -> RendererChoice | None:
        """Gives the run the fast renderer, which may take seconds; see `use_fast_renderer`.

        Args:
            quality: dB of PSNR that may be lost on training photographs.

        Returns:
            What was chosen; None where the method has no such renderer.
        """
        self.quality = quality
        self._choice = choice = use_fast_renderer(self.run, quality=quality)
        self.model = self.run.model  # a stock model may have made place for its copy
        self.forget_networks()
        return choice

    def render_on(
        self, gpu: GpuAdapter, *, wanted: bool, quality: float, progress: Callable[[str], None]
    ) -> str | None:
        """Has a GPU render the run's images by WebGPU, which may take seconds; as `render_by_gpu`."""
        line = render_by_gpu(self.run, gpu, wanted=wanted, quality=quality, progress=progress)
        self.model = self.run.model
        self.forget_networks()
        return line

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of its features at which the run can be shown without another fit, the largest first."""
        if isinstance(self.model, BundleModel):
            return self.model.shares
        return self.model.trained_shares() if isinstance(self.model, GraphModel) else ()

    def narrower(self, steps: int) -> float:
        """The share that is so many of `shares` below the one shown, or the last; the one shown where it has none."""
        shares = self.shares
        if self.share not in shares:
            return self.share
        return shares[min(shares.index(self.share) + steps, len(shares) - 1)]

    def show_at(self, share: float) -> None:
        """Shows the run at one of `shares`; it must not be rendered meanwhile.

        Raises:
            ConfigError: it is none of them.
        """
        self._evaluate_at(share)
        self.share = share

    @contextmanager
    def evaluated_at(self, share: float) -> Iterator[None]:
        """Evaluates the run at one of `shares` within it, and as it is shown after it; nobody else may render it."""
        if share == self.share:
            yield
            return
        self.costs()  # while it is as it is shown
        self._evaluate_at(share)
        try:
            yield
        finally:
            self._evaluate_at(self.share)

    def _evaluate_at(self, share: float) -> None:
        """A fast renderer keeps its grid, which all features made, and gets plans of the narrower networks."""
        model = self.model
        assert isinstance(model, GraphModel | BundleModel)
        model.evaluate_at(share)
        if isinstance(model, GraphModel) and self._choice is not None and self._choice.rate:
            if share not in self._plans:
                plan_run(self.run, self._choice.dtype)  # type: ignore[arg-type]
                self._plans[share] = plans_of(model)
            give_plans(model, self._plans[share])
        if share not in self._costs:
            self._costs[share] = self._count()

    def costs(self, share: float | None = None) -> tuple[int, int | None]:
        """Number of parameters needed for evaluation, and multiply-adds of a query (None if they cannot be counted).

        Args:
            share: with which it was evaluated before; None for the one shown.
        """
        share = self.share if share is None else share
        if share not in self._costs:
            self._costs[share] = self._count()
        return self._costs[share]

    def _count(self) -> tuple[int, int | None]:
        try:
            module = query_module(self.model)
        except EugenError:
            return count_parameters(self.model), None
        try:
            macs = macs_per_query(module, self.model.device)[0]
        except Exception:  # a stock field may reject queries that its own model does not make
            macs = None
        return inference_parameters(module), macs

    def forget_networks(self) -> None:
        """To be called after layers of the model were replaced: drops what was counted and planned of them."""
        self._costs.clear()
        self._plans.clear()

    def photograph(self, view: int, size: tuple[int, int] | None = None) -> Image8:
        """A test view's photograph, uint8 `[height, width, 3]`, resized by averaging.

        Args:
            view: number of the view.
            size: height and width; None keeps them.

        Raises:
            EugenError: images have alpha but no background.
            OSError: the file was removed.
        """
        image = composite(self.run, eval_dataset(self.run).get_image_float32(view))
        if size is not None and size != tuple(image.shape[:2]):
            shrunk = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None].float(), size, mode="area")
            image = shrunk[0].permute(1, 2, 0)
        return quantise(image)


def open_run(path: Path, name: str, *, device: str | None, data: Path | None, trust_config: bool = False) -> ShownRun:
    """Loads a run with its training and test views, or a bundle; arguments and errors as `load_run`'s."""
    if is_bundle(path):
        run = open_bundle(path, device=device)
        return ShownRun(name, run, run.model)
    run = load_run(path, device=device, data=data, trust_config=trust_config)
    return ShownRun(name, run, run.model, trust_config=trust_config)


@contextmanager
def counting_queries(model: Model) -> Iterator[list[int]]:
    """Within it, counts the points at which a model's fields are evaluated; the list has one number per call.

    The methods are wrapped on the instances and unwrapped afterwards, because a copy of a wrapped field would
    evaluate the original.
    """
    counts: list[int] = []
    wrapped: list[tuple[Any, str]] = []
    for module in model.modules():
        for name in (*_EVALUATIONS, _OF_SPANS):
            method = getattr(type(module), name, None)
            if method is not None and name not in vars(module) and not isinstance(module, Model):
                count = _counted_spans if name == _OF_SPANS else _counted
                object.__setattr__(module, name, count(getattr(module, name), counts))
                wrapped.append((module, name))
    try:
        yield counts
    finally:
        for module, name in wrapped:
            object.__delattr__(module, name)


def _counted_spans(method: Any, counts: list[int]) -> Any:
    def evaluate(ray_bundle: Any, spans: Any) -> Any:
        counts.append(len(spans))
        return method(ray_bundle, spans)

    return evaluate


def _counted(method: Any, counts: list[int]) -> Any:
    def evaluate(points: Any, *args: Any, selection: Selection | None = None, **kwargs: Any) -> Any:
        shape = points.shape[:-1] if isinstance(points, Tensor) else points.shape
        counts.append(int(np.prod(shape)) if selection is None else len(selection))
        return method(points, *args, **kwargs, **({} if selection is None else {"selection": selection}))

    return evaluate
