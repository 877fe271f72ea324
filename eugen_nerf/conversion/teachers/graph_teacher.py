"""The teacher whose fields are graphs of layers: sampled, previewed and fitted field by field."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from eugen_nerf.conversion.budget.field_preview import (
    PREVIEW_RAYS,
    FieldMoments,
    Preview,
    field_groups,
    graph_preview,
)
from eugen_nerf.conversion.conversion_settings import DistillConfig, Plan
from eugen_nerf.conversion.layer_cache import FolderStore, discard, store_folder
from eugen_nerf.conversion.ray_samples import gradient_inputs, network_inputs
from eugen_nerf.conversion.run_writer import FieldReport
from eugen_nerf.conversion.teachers.graph_runs import graph_model
from eugen_nerf.conversion.teachers.graph_settings import (
    candidates,
    chosen_fields,
    describe_student,
    explicit_plan,
    narrower_config,
)
from eugen_nerf.conversion.teachers.teacher import (
    FieldProgress,
    Metrics,
    RankCurves,
    Student,
    Teacher,
    no_progress,
)
from eugen_nerf.core import convert_graph, merged_for_training
from eugen_nerf.core.distributed import process_count
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.convert_graph import before_after
from eugen_nerf.core.fitting.importance import Batches, gather_moments
from eugen_nerf.core.fitting.layer_batches import CACHE_BYTES
from eugen_nerf.core.fitting.rank_importance import rank_curves
from eugen_nerf.core.fitting.recipes.low_rank import LowRank
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.core.training.merged import unmergeable_reason
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import RAYS_PER_BATCH


class GraphTeacher(Teacher):
    """A run whose fields are graphs of layers: of our methods, or stock vanilla-nerf or dnerf copied into one.

    Args:
        run: loaded with its training views.
        config: what to replace, and where the student will be written.
        keep: whether layers that are done are kept on disk until `forget`, so that the same conversion, started again
            after it was stopped, goes on at the layer it was at.

    Raises:
        ConfigError: patterns that match nothing, or too few rays.
        RunError: a run of a method that cannot be converted, or a place that is taken.
    """

    model: GraphModel

    def __init__(self, run: Run, config: DistillConfig, *, keep: bool = False) -> None:
        trainer, model = graph_model(run)
        super().__init__(run, config, model, trainer)
        self._source = (str(run.path.resolve()), run.checkpoint.name, run.checkpoint.stat().st_mtime_ns)
        self._kept: set[Path] | None = set() if keep else None
        self.chosen = chosen_fields(self.model, config)
        if config.shares and not self.recipe.chooses_neurons:
            raise ConfigError("shares of the features need a recipe that puts neurons in order, such as rows")

    @property
    def renders_images(self) -> bool:
        """Whether there are photographs to compare with."""
        return self.model.renders_colours

    def memory_line(self) -> str:
        """What fitting will hold in memory, in words: known before it starts, and bounded."""
        fields = self.model.graph_fields()
        moments = pairs = 0
        first = self.rays[: RAYS_PER_BATCH * process_count()]  # a batch for every process
        for name in self.chosen:
            network = fields[name].network
            batch = next(network_inputs(self.model, self.cameras, first, name)())
            samples = len(batch.inputs[0]) / RAYS_PER_BATCH * len(self.rays) / process_count()
            for layer in map(network.layer, network.names):
                size = max(layer.in_features, layer.out_features) + 1
                moments = max(moments, 6 * 8 * size**2)
                pairs = max(pairs, round(samples * (layer.in_features + layer.out_features) * 4))
        kept = f"{min(pairs, CACHE_BYTES) / 1e6:,.0f} MB of one layer's inputs and outputs"
        more = f" of {pairs / 1e6:,.0f}, the rest is made again each time" if pairs > CACHE_BYTES else ""
        return f"{len(self.rays):,} rays; in memory {kept}{more}, {moments / 1e6:,.1f} MB of moments, one batch of rays"

    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Layers that a budget may replace, by field."""
        return candidates(self.model, self.chosen, self.config)

    def configured_plan(self) -> Plan:
        """Numbers of features as configured, by the run's own settings where nothing is."""
        return explicit_plan(self.model, self.chosen, self.config)

    def moments(self, name: str, layers: Sequence[str], progress: Callable[[], None]) -> FieldMoments:
        """Moments of a field's layers from one pass over the rays, and what their errors do to rendered colours.

        Args:
            name: of the field.
            layers: of it.
            progress: called after every batch.
        """
        network = self.model.graph_fields()[name].network
        moments = gather_moments(network, self.preview_batches(name), layers, progress)
        return FieldMoments(moments, self.preview_count(), self.config.output_aware)

    def preview_count(self) -> int:
        """Number of rays that previews look at."""
        return min(len(self.rays), PREVIEW_RAYS)

    def preview_batches(self, name: str) -> Batches:
        """Inputs of a field's network along them, with colour gradients where these are configured."""
        inputs = gradient_inputs if self.config.output_aware else network_inputs
        return inputs(self.model, self.cameras, self.rays[: self.preview_count()], name)

    def metrics(self, plan: Plan, progress: FieldProgress = no_progress) -> Metrics:
        """By the rendered colours' gradients where these are configured."""
        metrics = {}
        for name, layers in plan.items():
            # no colour depends on a proposal differentiably
            aware = self.config.output_aware and self.recipe.chooses_neurons and not name.startswith("proposal")
            if aware and layers:
                moments = self.moments(name, [*layers], partial(progress, name, "moments"))
                metrics[name] = {layer: m.metric for layer, m in moments.layers.items()}
        return metrics

    def preview(self, progress: FieldProgress = no_progress) -> Preview:
        """From the moments of all layers that may be converted, one pass a field."""
        self.recipe.check_previewed()
        layers = self.candidates()
        moments = {name: self.moments(name, own, partial(progress, name, "moments")) for name, own in layers.items()}
        return graph_preview(self.model, moments, self.recipe)

    def layer_sizes(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Of all layers that a budget may replace."""
        fields = self.model.graph_fields()
        return {
            name: {layer: (v.in_features, v.out_features) for layer in own if (v := fields[name].network.layer(layer))}
            for name, own in self.candidates().items()
        }

    def rank_curves(self, progress: FieldProgress = no_progress) -> RankCurves:
        """From one pass a field; errors of layers without a unit in common are shares of what rank 0 leaves."""
        assert isinstance(self.recipe, LowRank)
        layers, fields = self.candidates(), self.model.graph_fields()
        groups = field_groups(self.model, layers)
        curves: dict[str, dict[str, Tensor]] = {}
        for group, together in groups.items():
            for name in together:
                found = rank_curves(fields[name].network, self.preview_batches(name), layers[name], self.recipe)
                if not self.config.output_aware:
                    found = {layer: curve / curve[0].clamp_min(1e-300) for layer, curve in found.items()}
                earlier = curves.get(group, {})
                curves[group] = {layer: curve + earlier.get(layer, 0.0) for layer, curve in found.items()}
                progress(name, "ranks")
        return RankCurves(curves, groups)

    def described(self, plan: Plan) -> TrainerConfig:
        """The trainer configuration of the student that a plan leads to."""
        trainer = copy.deepcopy(self.trainer)
        model_config = trainer.pipeline.model
        assert isinstance(model_config, GraphModelConfig)
        attributes = {model_config.settings_of(name)[1] for name in self.chosen}
        for name in self.model.graph_fields():
            # a field that is not converted, but whose variant becomes another, has to be described as well
            if model_config.settings_of(name)[1] in attributes:
                # fields that share their settings are alike, and the last of them says the same as the first
                describe_student(model_config, self.model, name, plan.get(name, {}), self.config.conversion)
        for name, layers in plan.items():
            if layers and self.config.shares:
                settings = model_config.settings_of(name)[0]
                settings.shares = tuple(sorted({1.0, *self.config.shares}, reverse=True))
                settings.train_merged = True  # calibration then moves what a share is a part of
        return trainer

    def untrained(self, trainer: TrainerConfig) -> GraphModel:
        """A student of the right shape and no more, on the teacher's device, in evaluation mode."""
        student = trainer.pipeline.model.setup(scene_box=self.model.scene_box, num_train_data=self.model.num_train_data)
        assert isinstance(student, GraphModel)
        return student.to(self.model.device).eval()

    def sketch(self, plan: Plan) -> GraphModel:
        """A student of the plan's shape, weights aside."""
        return self.untrained(self.described(plan))

    def convert(self, plan: Plan, progress: FieldProgress = no_progress, metrics: Metrics | None = None) -> Student:
        """Field by field; those behind a converted deformation are fitted where that one leads."""
        trainer, fields = self.described(plan), self.model.graph_fields()
        assert isinstance(trainer.pipeline.model, GraphModelConfig)
        settings_of = trainer.pipeline.model.settings_of
        state, reports = dict(self.model.state_dict()), []
        folder = self._store_folder(plan, metrics is not None)
        sampled = self.model
        for name, layers in plan.items():
            if not layers:
                continue
            start = time.perf_counter()
            network = fields[name].network
            batches = network_inputs(sampled, self.cameras, self.rays, name)
            store = None if folder is None else FolderStore(folder, name)
            done, own = partial(progress, name), (metrics or {}).get(name)
            converted, layer_reports = convert_graph(network, batches, layers, self.config.conversion, done, own, store)
            prefix = next(key for key, module in self.model.named_modules() if module is network)
            state = {key: value for key, value in state.items() if not key.startswith(f"{prefix}.")}
            merged = settings_of(name)[0].train_merged and unmergeable_reason(network) is None
            stored = merged_for_training(converted) if merged else converted
            state |= {f"{prefix}.{key}": value for key, value in stored.state_dict().items()}
            if name in self.model.displacing_fields():
                sampled = copy.deepcopy(sampled)
                sampled.graph_fields()[name].network = copy.deepcopy(converted)
            reports.append(
                FieldReport(
                    name=name,
                    layers=layer_reports,
                    parameters=(count_parameters(network), count_parameters(converted)),
                    multiply_adds=(network.multiply_adds(), converted.multiply_adds()),
                    seconds=time.perf_counter() - start,
                    running=(network.collapsed().count_numbers(), converted.collapsed().count_numbers()),
                    shares=before_after(network.multiply_adds_by_layer(), converted.multiply_adds_by_layer()),
                )
            )
        student = self.untrained(trainer)
        student.load_state_dict(state)
        return Student(trainer, student.to(self.model.device), reports)

    def narrower(self, student: Student) -> TrainerConfig | None:
        """Of the converted fields, beside the student in an experiment of its own; None where nothing was converted."""
        if not student.reports:
            return None
        trainer = narrower_config(student.trainer, [report.name for report in student.reports])
        trainer.experiment_name = f"{student.trainer.experiment_name}-narrower"
        return trainer

    def at_share(self, share: float) -> Student:
        """The run as it is, its fields evaluated at one of the shares of their features that they were trained at.

        Raises:
            ConfigError: they were not trained at it.
        """
        self.model.check_trained_share(share)
        trainer = copy.deepcopy(self.trainer)
        model_config = trainer.pipeline.model
        assert isinstance(model_config, GraphModelConfig)
        for name, field in self.model.graph_fields().items():
            if field.shares:
                settings = model_config.settings_of(name)[0]
                settings.share, settings.shares = share, ()
        student = self.untrained(trainer)
        student.load_state_dict(self.model.state_dict())
        return Student(trainer, student, [])

    def forget(self) -> None:
        """Removes the layers that were kept: what came of them is written."""
        for folder in self._kept or ():
            discard(folder)

    def _store_folder(self, plan: Plan, by_metrics: bool) -> Path | None:
        """Where the layers of a plan are kept: named by all that they depend on."""
        if self._kept is None:
            return None
        c = self.config
        fitted = (c.conversion, c.ray_fraction, c.max_rays, c.seed, by_metrics)
        widths = [(name, sorted(layers.items())) for name, layers in plan.items()]
        folder = store_folder(self.trainer.get_base_dir().parent, (self._source, fitted, widths))
        self._kept.add(folder)
        return folder
