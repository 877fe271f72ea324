"""From a trained run to a converted run: fit its fields, then write a complete run that every ns-* command loads."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
import yaml
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.conversion.choose import DistillConfig, Plan, chosen_fields, describe_student, explicit_plan
from eugen_nerf.conversion.modules import StockConfig, convert_stock
from eugen_nerf.conversion.rays import RAYS_PER_BATCH, choose_rays, network_inputs, seen_inputs, training_cameras
from eugen_nerf.conversion.store import FolderStore, discard, store_folder
from eugen_nerf.conversion.teacher import teacher_of
from eugen_nerf.core.convert import LayerReport, convert_graph
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.pairs import CACHE_BYTES
from eugen_nerf.core.parallel import process_count
from eugen_nerf.core.preview import Batches, LayerMoments, gather_moments
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.methods.base import GraphModel, GraphModelConfig
from eugen_nerf.methods.checkpoints import atomic_torch_save
from eugen_nerf.methods.runs import Run

PREVIEW_RAYS = 1024
"""Rays whose derivatives are taken: enough for second moments of a few hundred neurons."""


@dataclass(frozen=True)
class FieldMoments:
    """Moments of a field's layers."""

    layers: dict[str, LayerMoments]
    rays: int
    """How many rays they come from."""
    seen: bool
    """Whether they know what is seen of an error."""

    def curves(self, *, pruned: bool = False) -> dict[str, Tensor]:
        """For each layer, the predicted squared change of a ray's colour, summed over channels: float64 `[l + 1]`.

        Where what is seen is not known, the error that its readers see, as a share of what they see without the layer.

        Args:
            pruned: as `LayerMoments.curve` takes it.
        """
        curves = {name: m.curve(pruned=pruned) for name, m in self.layers.items()}
        if not self.seen:
            return {name: curve / curve[0].clamp_min(1e-300) for name, curve in curves.items()}
        return {name: curve * self.layers[name].outputs.count / self.rays for name, curve in curves.items()}


@dataclass(frozen=True)
class FieldReport:
    """One field's conversion."""

    name: str
    """coarse and fine, deformation before them, or proposal_0, ... and field."""
    layers: list[LayerReport]
    parameters: tuple[int, int]
    """Of the whole network, teacher and student."""
    multiply_adds: tuple[int, int]
    """A query of the collapsed network, teacher and student."""
    seconds: float


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
        self.config = config
        self._source = (str(run.path.resolve()), run.checkpoint.name, run.checkpoint.stat().st_mtime_ns)
        self._kept: set[Path] | None = set() if keep else None
        self.trainer, self.teacher = teacher_of(run)
        _place(self.trainer, config)
        _refuse_existing(self.trainer)
        self.chosen = chosen_fields(self.teacher, config)
        self.cameras = training_cameras(run.pipeline.datamanager)
        self.rays = choose_rays(self.cameras, config.ray_fraction, config.max_rays, config.seed)

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
            state |= {f"{prefix}.{key}": value for key, value in converted.state_dict().items()}
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
                )
            )
        student = self.untrained(trainer)
        student.load_state_dict(state)
        return trainer, student.to(teacher.device), reports

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


def distill(
    run: Run, config: DistillConfig, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, GraphModel, list[FieldReport]]:
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
    return convert_as_configured(Conversion(run, config), progress)


def convert_as_configured(
    conversion: Conversion, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, GraphModel, list[FieldReport]]:
    """`distill` of a conversion at hand."""
    plan = explicit_plan(conversion.teacher, conversion.chosen, conversion.config)
    metrics = {}
    for name, layers in plan.items():
        # nothing that is seen depends on a proposal differentiably, and a cut to a rank chooses no neurons
        low_rank = conversion.config.conversion.recipe in ("svd", "aware")
        if conversion.config.output_aware and layers and not name.startswith("proposal") and not low_rank:
            moments = conversion.moments(name, [*layers], lambda name=name: progress(name, "moments"))  # type: ignore[misc]
            metrics[name] = {layer: m.metric for layer, m in moments.layers.items()}
    return conversion.convert(plan, progress, metrics)


def distill_modules(
    run: Run, config: DistillConfig, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, Model, list[FieldReport]]:
    """Converts the linear layers of a stock run that no method of ours stands for, in place in a copy.

    Args:
        run: the teacher, loaded with its training views; unchanged.
        config: what to replace: `layers` and `exclude` are regular expressions on full module names; where
            `num_features` is empty, half of each layer's units stay.
        progress: called with the field and the layer that is done.

    Returns:
        The student's trainer configuration, its model, and a report a field.

    Raises:
        ConfigError: patterns that match nothing, or only layers that cannot be converted (with the reasons).
        RunError: a run without fields of PyTorch layers, or a place that is taken.
    """
    start = time.perf_counter()
    if config.fields or config.proposals:
        raise ConfigError(
            f"fields of {run.config.method_name} have no names of their own: choose their layers by --layers, such as "
            "field.mlp_base.* or proposal_networks.*"
        )
    placed = copy.deepcopy(run.config)
    _place(placed, config)
    _refuse_existing(placed)
    counts = config.num_features[0] if len(config.num_features) == 1 else config.num_features or 0.5
    stock = StockConfig(
        config.layers,
        config.exclude,
        counts,
        config.conversion,
        config.ray_fraction,
        config.max_rays,
        config.seed,
    )
    trainer, model, found = convert_stock(run, stock, progress)
    _place(trainer, config)
    trainer.timestamp = placed.timestamp
    seconds = time.perf_counter() - start
    reports = [
        FieldReport(name, list(report.layers), report.parameters, report.multiply_adds, seconds / len(found))
        for name, report in found.items()
    ]
    return trainer, model, reports


def write_run(
    trainer: TrainerConfig,
    model: Model,
    step: int,
    reports: Sequence[FieldReport] = (),
    more: Mapping[str, object] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Writes `config.yml` and a checkpoint that `ns-train --load-config` goes on from.

    The run is written under a temporary name beside its place and renamed when it is complete.

    Args:
        trainer: decides the place: output_dir / experiment_name / method_name / timestamp.
        model: weights to store.
        step: of the checkpoint.
        reports: what became of each field, kept beside the config as `distill.json`.
        more: further plain data for that file.
        files: texts to write beside it, by name.

    Returns:
        The path of `config.yml`.

    Raises:
        RunError: the place is taken, or writing fails; nothing is left behind.
    """
    _refuse_existing(trainer)
    final = trainer.get_base_dir()
    folder = final.with_name(f".{final.name}.partial-{os.getpid()}")
    trainer = copy.deepcopy(trainer)
    trainer.load_dir = trainer.get_checkpoint_dir().resolve()
    trainer.load_step = trainer.load_checkpoint = None  # a resumed teacher's, and none of the student's
    try:
        checkpoints = folder / trainer.relative_model_dir
        checkpoints.mkdir(parents=True)
        atomic_torch_save(checkpoint_state(trainer, model, step), checkpoints / f"step-{step:09d}.ckpt")
        (folder / "config.yml").write_text(yaml.dump(trainer), encoding="utf8")
        record = {"seconds": sum(r.seconds for r in reports), "fields": [asdict(r) for r in reports], **(more or {})}
        (folder / "distill.json").write_text(json.dumps(record, indent=1), encoding="utf8")
        for name, text in (files or {}).items():
            (folder / name).write_text(text, encoding="utf8")
        folder.replace(final)
    except OSError as error:
        raise RunError(f"cannot write the run to {final}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return final / "config.yml"


def _refuse_existing(trainer: TrainerConfig) -> None:
    place = trainer.get_base_dir()
    if place.exists():
        raise RunError(f"{place} exists; choose another --experiment-name or --timestamp")


def checkpoint_state(trainer: TrainerConfig, model: Model, step: int) -> dict[str, object]:
    """A checkpoint as nerfstudio's trainer writes it, with optimizers that have not made a step."""
    optimizers = Optimizers(trainer.optimizers.copy(), model.get_param_groups())
    return {
        "step": step,
        "pipeline": {f"_model.{key}": value for key, value in model.state_dict().items()},
        "optimizers": {key: value.state_dict() for key, value in optimizers.optimizers.items()},
        "schedulers": {key: value.state_dict() for key, value in optimizers.schedulers.items()},
        "scalers": torch.amp.GradScaler(enabled=False).state_dict(),
    }


def _place(trainer: TrainerConfig, config: DistillConfig) -> None:
    trainer.output_dir = config.output_dir or trainer.output_dir
    trainer.experiment_name = config.experiment_name or f"{trainer.experiment_name}-distilled"
    trainer.timestamp = config.timestamp or datetime.now().strftime("%Y-%m-%d_%H%M%S")
