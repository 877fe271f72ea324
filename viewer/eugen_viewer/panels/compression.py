"""Compression by hand: a dense run's layers with any numbers of features, at once.

This is the preview of a conversion. Every layer is fitted on the teacher's own values, from moments gathered once
(`core/fitting/importance.py`), whereas a conversion fits each layer on what its converted predecessors put out, and
re-solves its rows for that. So the preview is a little worse than what a conversion of the same widths makes.
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

from eugen_nerf.conversion.budget.budget_search import check_rays, predicted_drop
from eugen_nerf.conversion.budget.field_preview import FieldMoments, Preview, graph_preview
from eugen_nerf.conversion.budget.measure import Photographs, query_macs
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.graph_run import Conversion
from eugen_nerf.conversion.ray_samples import training_views
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.conversion.teacher import has_graphs
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.allocation import Combination, within_budget
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.least_squares import greedy_columns
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run
from eugen_viewer.panels.refit import fitted_layer

Widths = dict[str, dict[str, int]]
"""Numbers of features by group of fields and layer; a layer's whole width where it stays dense."""
TRUTH_RAYS = 1024
"""Rays that tell how good the teacher is."""
LEAST_RAYS = 1024
"""That are fitted to, where the training views have as many."""


@dataclass(frozen=True)
class Predicted:
    """What a choice of widths is predicted to be.

    Attributes:
        multiply_adds: of a query.
        speedup: the teacher's multiply-adds over these.
        error: predicted mean squared change of a colour channel.
        drop: dB of PSNR lost against photographs; None for runs without pictures.
    """

    multiply_adds: int
    speedup: float
    error: float
    drop: float | None


@dataclass
class LiveCompression:
    """A dense run and its preview.

    Attributes:
        run: the teacher's, with its training views.
        config: which layers may be replaced, and on which rays.
        lock: held while the run's model is copied. A model that is being rendered has its fields' methods wrapped, and
            its copy would go on asking the original.
        student: the model that the widths change in place; None before `gather`.
        seen: predictions for all widths.
        widths: present ones.
        refit_seconds: what the last change took to fit.
    """

    run: Run
    config: DistillConfig = field(default_factory=DistillConfig)
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)
    student: GraphModel | None = None
    seen: Preview | None = None
    widths: Widths = field(default_factory=dict)
    refit_seconds: float = 0.0
    _moments: dict[str, FieldMoments] = field(default_factory=dict, repr=False)
    _paths: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False)
    _teacher: GraphModel | None = None
    _psnr: float | None = None

    def replaceable(self) -> int:
        """How many layers of different width may be chosen.

        Raises:
            ConfigError: the run has none, or its training views are too few.
            RunError: it cannot be compressed by hand.
        """
        if not has_graphs(self.run):
            raise RunError(
                f"{self.run.config.method_name} is converted by eugen-distill alone: only runs of vanilla-nerf, dnerf "
                "and the methods eugen-* can be compressed by hand"
            )
        return sum(map(len, self._conversion().candidates().values()))

    def gather(self, progress: Callable[[float, str], None] = lambda share, what: None) -> None:
        """Gathers the moments of all layers that may be replaced, in one pass over the rays for each field.

        Args:
            progress: is told the share done and what is being done.

        Raises:
            ConfigError: no dense layer, or too few rays.
            RunError: a run that cannot be converted.
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
        seen = graph_preview(conversion.teacher, self._moments, pruned=False)
        progress(len(layers) / passes, "comparing with photographs")
        if conversion.makes_pictures:
            error = Photographs(self.run, check_rays(conversion)[:TRUTH_RAYS]).squared_error(conversion.teacher)
            self._psnr = _psnr(error)
        for name, own_moments in self._moments.items():
            for layer, moments in own_moments.layers.items():
                width = moments.outputs.gram.shape[0] - 1
                self._paths[name, layer] = greedy_columns(moments.outputs, width, moments.metric)
        self._teacher = conversion.teacher
        self.student = copy.deepcopy(conversion.teacher).eval()
        self.widths = {g: {n: len(c) - 1 for n, c in seen.curves[g].items()} for g in seen.groups}
        self.seen = seen

    def of_speedup(self, speedup: float) -> Widths:
        """The widths with the least predicted error at a speed-up, by multiply-adds, of a query.

        Raises:
            ConfigError: it is out of reach.
        """
        seen = self._known()
        point = within_budget(seen.front, seen.teacher_macs / speedup)
        return {group: dict(part.num_features) for group, part in point.parts.items()}

    def most_speedup(self) -> float:
        """The largest speed-up in reach, by multiply-adds."""
        seen = self._known()
        return seen.teacher_macs / seen.front[0].multiply_adds

    def set(self, widths: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Fits anew the layers whose width changes; what is not named stays.

        Whoever renders the student must not do so meanwhile.

        Returns:
            The layers that changed, as field.layer.

        Raises:
            ConfigError: a layer that is not there, or more features than it has rows.
        """
        seen, student = self._known(), self.student
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
                for name in seen.groups[group]:
                    network = student.graph_fields()[name].network
                    old = self._teacher.graph_fields()[name].network.layer(layer)
                    assert isinstance(old, DenseLinear)
                    moments = self._moments[name].layers[layer]
                    network.replace_layer(layer, fitted_layer(old, moments, self._paths[name, layer], m))
                    changed.append(f"{name}.{layer}")
                self.widths[group][layer] = m
        for name in seen.curves:  # the first picture must not pay for it
            student.graph_fields()[name].network.collapsed()
        if changed:
            self.refit_seconds = time.perf_counter() - start
        return changed

    def predicted(self) -> Predicted:
        """What the present widths are predicted to be."""
        seen, student = self._known(), self.student
        assert student is not None
        error = sum(
            float(seen.curves[name][layer][m]) / 3
            for group, layers in self.widths.items()
            for name in seen.groups[group]
            for layer, m in layers.items()
        )
        macs = query_macs(student)
        drop = predicted_drop(seen, Combination({}, macs, error), self._psnr)
        return Predicted(macs, seen.teacher_macs / macs, error, drop)

    def front(self) -> list[Predicted]:
        """The least predicted error for every cost, cheapest first."""
        seen = self._known()
        return [
            Predicted(
                p.multiply_adds, seen.teacher_macs / p.multiply_adds, p.error, predicted_drop(seen, p, self._psnr)
            )
            for p in seen.front
        ]

    def plan(self) -> Widths:
        """The present widths as a conversion takes them, by field: layers that keep their width stay dense."""
        seen = self._known()
        return {
            name: {n: m for n, m in layers.items() if m < len(seen.curves[group][n]) - 1}
            for group, layers in self.widths.items()
            for name in seen.groups[group]
        }

    def save(self, progress: Callable[[float, str], None] = lambda share, what: None) -> Path:
        """The full conversion with the present widths, written as a run beside the teacher's; its config.yml.

        Args:
            progress: is told the share done and what is being done.

        Raises:
            ConfigError: no layer is to be replaced.
            RunError: the run cannot be written.
        """
        seen, plan, predicted = self._known(), self.plan(), self.predicted()
        total = sum(map(len, plan.values()))
        if not total:
            raise ConfigError("all layers keep their width: lower some numbers of features first")
        conversion = self._conversion()
        done = 0

        def step(which: str, layer: str) -> None:
            nonlocal done
            done += 1
            progress(done / (total + 1), f"{which} {layer}")

        progress(0.0, "fitting the first layer")
        trainer, student, reports = conversion.convert(plan, step, seen.metrics)
        record = {"viewer": {"num_features": plan, "predicted": vars(predicted)}}
        return write_run(trainer, student, self.run.step, reports, record)

    def _conversion(self) -> Conversion:
        """A conversion whose teacher is a copy: gathering hooks networks, and those on show must stay as they are."""
        config, folder = self.config, self.run.path.resolve().parent
        if config.output_dir is None and folder.parent.name == self.run.config.method_name:
            config = replace(config, output_dir=folder.parents[2])
        cameras = training_views(self.run.pipeline.datamanager).cameras
        pixels = int((cameras.height * cameras.width).sum())
        # a small set of images would not give enough by the share that eugen-distill takes
        config = replace(config, ray_fraction=max(config.ray_fraction, min(LEAST_RAYS / pixels, 0.75)))
        # by the second alone, two conversions of one second would have one place, which the later one refuses
        config = replace(config, timestamp=config.timestamp or f"{datetime.now():%Y-%m-%d_%H%M%S_%f}")
        conversion = Conversion(self.run, config)
        with self.lock:
            conversion.teacher = copy.deepcopy(conversion.teacher)
        return conversion

    def _known(self) -> Preview:
        if self.seen is None:
            raise RunError("the moments have not been gathered yet")
        return self.seen


def _psnr(squared_error: float) -> float:
    return float(-10 * torch.log10(torch.tensor(max(squared_error, 1e-12))))
