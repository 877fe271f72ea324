"""From a trained run of layer graphs to its student: what is fitted, on which rays, field by field."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.conversion.budget.field_preview import (
    PREVIEW_RAYS,
    FieldMoments,
    Preview,
    candidates,
    graph_preview,
)
from eugen_nerf.conversion.conversion_settings import (
    DistillConfig,
    Plan,
    chosen_fields,
    describe_student,
    explicit_plan,
)
from eugen_nerf.conversion.layer_cache import FolderStore, discard, store_folder
from eugen_nerf.conversion.ray_samples import RAYS_PER_BATCH, choose_rays, network_inputs, seen_inputs, training_views
from eugen_nerf.conversion.run_writer import FieldReport, place
from eugen_nerf.conversion.stock_run import StockConversion
from eugen_nerf.conversion.teacher import has_graphs, teacher_of
from eugen_nerf.core import convert_graph, merged_for_training
from eugen_nerf.core.distributed import process_count
from eugen_nerf.core.fitting.convert_graph import before_after
from eugen_nerf.core.fitting.importance import Batches, gather_moments
from eugen_nerf.core.fitting.layer_batches import CACHE_BYTES
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.core.training.merged import unmergeable_reason
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig
from eugen_nerf.methods.runs.loading import Run


class Conversion:
    """A run at hand, to be converted once or, for a budget, more often.

    Args:
        run: the teacher, loaded with its training views; unchanged.
        config: what to replace, and where the student will be written.
        keep: whether layers that are done are kept on disk until `forget`, so that the same conversion, started again
            after it was stopped, goes on at the layer it was at.

    Raises:
        ConfigError: patterns that match nothing, or too few rays.
        RunError: a run of a method that cannot be converted, or a place that is taken.
    """

    def __init__(self, run: Run, config: DistillConfig, *, keep: bool = False) -> None:
        self.config, self.recipe = config, recipe_named(config.conversion.recipe)
        self._source = (str(run.path.resolve()), run.checkpoint.name, run.checkpoint.stat().st_mtime_ns)
        self._kept: set[Path] | None = set() if keep else None
        self.trainer, self.teacher = teacher_of(run)
        place(self.trainer, config)
        self.chosen = chosen_fields(self.teacher, config)
        self.cameras = training_views(run.pipeline.datamanager).cameras
        self.rays = choose_rays(self.cameras, config.ray_fraction, config.max_rays, config.seed)

    @property
    def makes_pictures(self) -> bool:
        """Whether there are photographs to compare with."""
        return self.teacher.renders_colours

    def memory_line(self) -> str:
        """What fitting will hold in memory, in words: known before it starts, and bounded."""
        fields = self.teacher.graph_fields()
        moments = pairs = 0
        first = self.rays[: RAYS_PER_BATCH * process_count()]  # a batch for every process
        for name in self.chosen:
            network = fields[name].network
            batch = next(network_inputs(self.teacher, self.cameras, first, name)())
            samples = len(batch.inputs[0]) / RAYS_PER_BATCH * len(self.rays) / process_count()
            for layer in map(network.layer, network.names):
                size = max(layer.in_features, layer.out_features) + 1
                moments = max(moments, 6 * 8 * size**2)
                pairs = max(pairs, round(samples * (layer.in_features + layer.out_features) * 4))
        kept = f"{min(pairs, CACHE_BYTES) / 1e6:,.0f} MB of one layer's inputs and outputs"
        more = f" of {pairs / 1e6:,.0f}, the rest is made again each time" if pairs > CACHE_BYTES else ""
        return f"{len(self.rays):,} rays; in memory {kept}{more}, {moments / 1e6:,.1f} MB of moments, one batch of rays"

    def described(self, plan: Plan) -> TrainerConfig:
        """The trainer configuration of the student that a plan leads to."""
        trainer = copy.deepcopy(self.trainer)
        model_config = trainer.pipeline.model
        assert isinstance(model_config, GraphModelConfig)
        attributes = {model_config.settings_of(name)[1] for name in self.chosen}
        for name in self.teacher.graph_fields():
            # a field that is not converted, but whose variant becomes another, has to be described as well
            if model_config.settings_of(name)[1] in attributes:
                # fields that share their settings are alike, and the last of them says the same as the first
                describe_student(model_config, self.teacher, name, plan.get(name, {}), self.config.conversion)
        return trainer

    def untrained(self, trainer: TrainerConfig) -> GraphModel:
        """A student of the right shape and no more, on the teacher's device, in evaluation mode."""
        student = trainer.pipeline.model.setup(
            scene_box=self.teacher.scene_box, num_train_data=self.teacher.num_train_data
        )
        assert isinstance(student, GraphModel)
        return student.to(self.teacher.device).eval()

    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Layers that a budget may replace, by field."""
        return candidates(self.teacher, self.chosen, self.config)

    def sketch(self, plan: Plan) -> GraphModel:
        """A student of the plan's shape, weights aside."""
        return self.untrained(self.described(plan))

    def preview(self, progress: Callable[[str], None] = lambda name: None) -> Preview:
        """Gathers the moments of all layers that may be converted, one pass a field, and allots features at any cost.

        Args:
            progress: called with the field of every batch.

        Raises:
            ConfigError: patterns that match nothing, fields without a layer to convert, or a layer without a price.
        """
        self.recipe.check_previewed()
        layers = self.candidates()
        moments = {name: self.moments(name, own, partial(progress, name)) for name, own in layers.items()}
        return graph_preview(self.teacher, moments, self.recipe)

    def moments(self, name: str, layers: Sequence[str], progress: Callable[[], None]) -> FieldMoments:
        """What one pass over the rays says of a field's layers, by what is seen of them where that is configured."""
        network = self.teacher.graph_fields()[name].network
        moments = gather_moments(network, self.preview_batches(name), layers, progress)
        return FieldMoments(moments, self.preview_count(), self.config.output_aware)

    def preview_count(self) -> int:
        """Number of rays that previews look at."""
        return min(len(self.rays), PREVIEW_RAYS)

    def preview_batches(self, name: str) -> Batches:
        """What a field's network is asked along them, with what is seen of it where that is configured."""
        inputs = seen_inputs if self.config.output_aware else network_inputs
        return inputs(self.teacher, self.cameras, self.rays[: self.preview_count()], name)

    def convert(
        self,
        plan: Plan,
        progress: Callable[[str, str], None] = lambda which, layer: None,
        metrics: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> tuple[TrainerConfig, GraphModel, list[FieldReport]]:
        """Builds the student of a plan.

        Args:
            plan: numbers of features by field and layer.
            progress: called with the field and the layer that is done.
            metrics: by field and layer, how neurons are chosen; by the layers that read them where missing.
        """
        trainer, teacher = self.described(plan), self.teacher
        assert isinstance(trainer.pipeline.model, GraphModelConfig)
        settings_of = trainer.pipeline.model.settings_of
        fields = teacher.graph_fields()
        state, reports = dict(teacher.state_dict()), []
        folder = self._store_folder(plan, metrics is not None)
        asked = teacher  # what later fields are asked depends on it
        for name, layers in plan.items():
            if not layers:
                continue
            start = time.perf_counter()
            network = fields[name].network
            batches = network_inputs(asked, self.cameras, self.rays, name)
            store = None if folder is None else FolderStore(folder, name)
            done, own = partial(progress, name), (metrics or {}).get(name)
            converted, layer_reports = convert_graph(network, batches, layers, self.config.conversion, done, own, store)
            prefix = next(key for key, module in teacher.named_modules() if module is network)
            state = {key: value for key, value in state.items() if not key.startswith(f"{prefix}.")}
            merged = settings_of(name)[0].train_merged and unmergeable_reason(network) is None
            stored = merged_for_training(converted) if merged else converted
            state |= {f"{prefix}.{key}": value for key, value in stored.state_dict().items()}
            if name in teacher.displacing_fields():
                asked = copy.deepcopy(asked)
                asked.graph_fields()[name].network = copy.deepcopy(converted)
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
        return trainer, student.to(teacher.device), reports

    def convert_as_configured(
        self, progress: Callable[[str, str], None] = lambda which, layer: None
    ) -> tuple[TrainerConfig, GraphModel, list[FieldReport]]:
        """Builds the student with the numbers of features that are configured.

        Args:
            progress: called with the field and the layer that is done.

        Raises:
            ConfigError: patterns that match nothing, or numbers of features that make no sense.
        """
        plan = explicit_plan(self.teacher, self.chosen, self.config)
        metrics = {}
        for name, layers in plan.items():
            # no colour depends on a proposal differentiably
            aware = self.config.output_aware and self.recipe.chooses_neurons
            if aware and layers and not name.startswith("proposal"):
                moments = self.moments(name, [*layers], lambda name=name: progress(name, "moments"))  # type: ignore[misc]
                metrics[name] = {layer: m.metric for layer, m in moments.layers.items()}
        return self.convert(plan, progress, metrics)

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


def conversion_of(run: Run, config: DistillConfig, *, keep: bool = False) -> Conversion | StockConversion:
    """How a run is converted: field by field where its fields are graphs of layers, else by its linear layers.

    Args:
        run: the teacher, loaded with its training views; unchanged.
        config: what to replace.
        keep: whether layers that are done are kept on disk; see `Conversion`.

    Raises:
        ConfigError: patterns that match nothing, or too few rays.
        RunError: a run that cannot be converted, or a place that is taken.
    """
    return Conversion(run, config, keep=keep) if has_graphs(run) else StockConversion(run, config)


def distill(
    run: Run, config: DistillConfig, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, Model, list[FieldReport]]:
    """Converts the fields of a run with the numbers of features that are configured.

    Args:
        run: the teacher, loaded with its training views; unchanged.
        config: what to replace.
        progress: called with the field and the layer that is done.

    Returns:
        The student's trainer configuration, its model, and a report a field.

    Raises:
        ConfigError: patterns that match nothing, or numbers of features that make no sense.
        RunError: a run of a method that cannot be converted, or a place that is taken.
    """
    return conversion_of(run, config).convert_as_configured(progress)
