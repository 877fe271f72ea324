"""Live compression: the layers of a dense run with any numbers of features.

This is the preview of a conversion. It fits every layer on the teacher's own values, from moments gathered once
(`core/fitting/importance.py`). A conversion fits each layer on the outputs of its converted predecessors, and re-solves
its rows for them. So the preview is slightly worse than a conversion with the same widths.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from eugen_nerf.conversion.budget.budget_search import predicted_drop
from eugen_nerf.conversion.budget.field_preview import FieldMoments, Preview, graph_preview
from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.conversion.teachers.graph_runs import has_graphs
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.core import DenseLinear
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.allocation import Combination, within_budget
from eugen_nerf.core.least_squares import greedy_columns
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_data import training_data_files
from eugen_nerf.methods.runs.training_rays import Photographs, training_views
from eugen_viewer.panels.preview_plans import PreviewPlans, preview_plans
from eugen_viewer.panels.refit import fitted_layer

Widths = dict[str, dict[str, int]]
"""Numbers of features by group of fields and layer; a layer's whole width where it stays dense."""
PHOTOGRAPH_RAYS = 1024
"""Rays for measuring the teacher against photographs."""
MIN_FIT_RAYS = 1024
"""Minimum number of rays for the fits, if the training views have as many."""


@dataclass(frozen=True)
class Predicted:
    """Predicted cost and quality for a choice of widths.

    Attributes:
        multiply_adds: of a query.
        speedup: the teacher's multiply-adds over these.
        error: predicted mean squared change of a colour channel.
        drop: loss of PSNR against photographs, dB; None for runs without images.
    """

    multiply_adds: int
    speedup: float
    error: float
    drop: float | None


@dataclass
class LiveCompression:
    """A dense run and its preview.

    Attributes:
        run: of the teacher, with its training views.
        config: which layers may be replaced, and on which rays.
        lock: held while the run's model is copied. The methods of a model's fields are wrapped during
            rendering, and its copy would evaluate the original.
        student: the model that the widths change in place; None before `gather`.
        preview: predictions for all widths.
        widths: the current ones.
        refit_seconds: duration of the last refit.
    """

    run: Run
    config: DistillConfig = field(default_factory=DistillConfig)
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)
    student: GraphModel | None = None
    preview: Preview | None = None
    widths: Widths = field(default_factory=dict)
    refit_seconds: float = 0.0
    _moments: dict[str, FieldMoments] = field(default_factory=dict, repr=False)
    _paths: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False)
    _teacher: GraphModel | None = None
    _plans: PreviewPlans | None = None
    _psnr: float | None = None

    def replaceable(self) -> int:
        """Number of layers that can be replaced.

        Raises:
            ConfigError: the run has none, or its training views are too few.
            RunError: the run cannot be compressed live.
        """
        if not has_graphs(self.run):
            raise RunError(
                f"{self.run.config.method_name} is converted by eugen-distill only: live compression needs a run of "
                "vanilla-nerf, dnerf or a method eugen-*"
            )
        return sum(map(len, self._conversion().candidates().values()))

    def gather(self, progress: Callable[[float, str], None] = lambda share, what: None) -> None:
        """Gathers the moments of all replaceable layers, in one pass over the rays for each field.

        Args:
            progress: called with the completed share and the current step.

        Raises:
            ConfigError: no dense layer, or too few rays.
            RunError: the run cannot be converted.
        """
        conversion = self._conversion()
        layers = conversion.candidates()
        passes = len(layers) + 1
        for number, (name, own) in enumerate(layers.items()):
            batches = max(1, conversion.preview_count() // 64)
            done = 0

            def tick(number: int = number, name: str = name, batches: int = batches) -> None:
                nonlocal done
                done += 1
                progress((number + min(1.0, done / batches)) / passes, f"moments of {name}")

            self._moments[name] = conversion.moments(name, own, tick)
        preview = graph_preview(conversion.model, self._moments, conversion.recipe)
        progress(len(layers) / passes, "comparing with photographs")
        if conversion.renders_images:
            error = Photographs(self.run, conversion.check_rays()[:PHOTOGRAPH_RAYS]).squared_error(conversion.model)
            self._psnr = _psnr(error)
        for name, own_moments in self._moments.items():
            for layer, moments in own_moments.layers.items():
                width = moments.outputs.gram.shape[0] - 1
                self._paths[name, layer] = greedy_columns(moments.outputs, width, moments.metric)
        self._teacher = conversion.model
        self.student = copy.deepcopy(conversion.model).eval()
        self._plans = preview_plans(self.run, self.run.model, conversion.model)
        if self._plans is not None:
            self._plans.renew(self.student, self.student.graph_fields())
        self.widths = {g: {n: len(c) - 1 for n, c in preview.curves[g].items()} for g in preview.groups}
        self.preview = preview

    def widths_at_speedup(self, speedup: float) -> Widths:
        """The widths with the lowest predicted error for a speed-up of a query, by multiply-adds.

        Raises:
            ConfigError: the speed-up is not reachable.
        """
        preview = self._gathered_preview()
        point = within_budget(preview.front, preview.teacher_macs / speedup)
        return {group: dict(part.num_features) for group, part in point.parts.items()}

    def max_speedup(self) -> float:
        """The largest reachable speed-up, by multiply-adds."""
        preview = self._gathered_preview()
        return preview.teacher_macs / preview.front[0].multiply_adds

    def set(self, widths: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Refits the layers whose width changes; other layers stay unchanged.

        The student must not be rendered meanwhile.

        Returns:
            The changed layers, as field.layer.

        Raises:
            ConfigError: an unknown layer, or more features than it has rows.
        """
        preview, student = self._gathered_preview(), self.student
        assert student is not None
        assert self._teacher is not None
        start = time.perf_counter()
        changed = []
        for group, layers in widths.items():
            if group not in self.widths:
                raise ConfigError(f"no field {group!r}; there are {', '.join(self.widths)}")
            for layer, m in layers.items():
                if layer not in self.widths[group]:
                    raise ConfigError(f"no layer {layer!r} in {group}; there are {', '.join(self.widths[group])}")
                if self.widths[group][layer] == m:
                    continue
                for name in preview.groups[group]:
                    network = student.graph_fields()[name].network
                    old = self._teacher.graph_fields()[name].network.layer(layer)
                    assert isinstance(old, DenseLinear)
                    moments = self._moments[name].layers[layer]
                    network.replace_layer(layer, fitted_layer(old, moments, self._paths[name, layer], m))
                    changed.append(f"{name}.{layer}")
                self.widths[group][layer] = m
        for name in preview.curves:  # here, to keep the next image fast
            student.graph_fields()[name].network.collapsed()
        if self._plans is not None:
            self._plans.renew(student, {which.split(".")[0]: None for which in changed})
        if changed:
            self.refit_seconds = time.perf_counter() - start
        return changed

    def predicted(self) -> Predicted:
        """The prediction for the current widths."""
        preview, student = self._gathered_preview(), self.student
        assert student is not None
        error = sum(
            float(preview.curves[name][layer][m]) / 3
            for group, layers in self.widths.items()
            for name in preview.groups[group]
            for layer, m in layers.items()
        )
        macs = query_macs(student)
        drop = predicted_drop(preview, Combination({}, macs, error), self._psnr)
        return Predicted(macs, preview.teacher_macs / macs, error, drop)

    def front(self) -> list[Predicted]:
        """The lowest predicted error for every cost, cheapest first."""
        preview = self._gathered_preview()
        return [
            Predicted(
                p.multiply_adds, preview.teacher_macs / p.multiply_adds, p.error, predicted_drop(preview, p, self._psnr)
            )
            for p in preview.front
        ]

    def plan(self) -> Widths:
        """The current widths by field, as a conversion takes them; layers of full width stay dense."""
        preview = self._gathered_preview()
        return {
            name: {n: m for n, m in layers.items() if m < len(preview.curves[group][n]) - 1}
            for group, layers in self.widths.items()
            for name in preview.groups[group]
        }

    def save(self, progress: Callable[[float, str], None] = lambda share, what: None) -> Path:
        """Makes the full conversion with the current widths, and writes it as a run beside the teacher's.

        Returns the path of its config.yml.

        Args:
            progress: called with the completed share and the current step.

        Raises:
            ConfigError: no layer is to be replaced.
            RunError: the run cannot be written.
        """
        preview, plan, predicted = self._gathered_preview(), self.plan(), self.predicted()
        total = sum(map(len, plan.values()))
        if not total:
            raise ConfigError("all layers have their full width: lower some numbers of features first")
        conversion = self._conversion()
        done = 0

        def step(which: str, layer: str) -> None:
            nonlocal done
            done += 1
            progress(done / (total + 1), f"{which} {layer}")

        progress(0.0, "fitting the first layer")
        trainer, student, reports = conversion.convert(plan, step, preview.metrics)
        record = {"viewer": {"num_features": plan, "predicted": vars(predicted)}}
        files = training_data_files(self.run.pipeline)
        return write_run(trainer, student, self.run.step, reports, record, files)

    def _conversion(self) -> GraphTeacher:
        """A conversion whose teacher is a copy: gathering hooks networks, and the shown ones must stay unchanged."""
        config, folder = self.config, self.run.path.resolve().parent
        if config.output_dir is None and folder.parent.name == self.run.config.method_name:
            config = replace(config, output_dir=folder.parents[2])
        cameras = training_views(self.run.pipeline.datamanager).cameras
        pixels = int((cameras.height * cameras.width).sum())
        # the share of eugen-distill would give too few rays for small images
        config = replace(config, ray_fraction=max(config.ray_fraction, min(MIN_FIT_RAYS / pixels, 0.75)))
        # with microseconds, because two conversions within a second must have different folders
        config = replace(config, timestamp=config.timestamp or f"{datetime.now():%Y-%m-%d_%H%M%S_%f}")
        conversion = GraphTeacher(self.run, config)
        with self.lock:
            conversion.model = copy.deepcopy(conversion.model)
        return conversion

    def _gathered_preview(self) -> Preview:
        if self.preview is None:
            raise RunError("the moments have not been gathered yet")
        return self.preview


def _psnr(squared_error: float) -> float:
    return float(-10 * torch.log10(torch.tensor(max(squared_error, 1e-12))))
