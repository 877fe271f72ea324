"""From a trained run to a converted run: fit its fields, then write a complete run that every ns-* command loads."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import torch
import yaml
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig

from eugen_nerf.conversion.rays import choose_rays, network_inputs, training_cameras
from eugen_nerf.conversion.teacher import teacher_of
from eugen_nerf.core.convert import ConversionConfig, LayerReport, convert_graph, convertible_layers
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.nerf import layer_specs, match_names
from eugen_nerf.core.spec import LayerSpec, count_parameters
from eugen_nerf.methods.base import GraphModel, GraphModelConfig
from eugen_nerf.methods.checkpoints import atomic_torch_save
from eugen_nerf.methods.runs import Run


@dataclass(frozen=True)
class DistillConfig:
    """What to replace, how, and on which rays."""

    layers: tuple[str, ...] = ()
    """Regular expressions on layers' names; where empty, those that the run's own configuration would replace."""
    num_features: tuple[int, ...] = ()
    """One number for all layers or one for each; where empty, the run's own configuration's."""
    proposals: bool = False
    """Whether proposal networks are converted too, by the layers and numbers of their own configuration; `fields` goes
    before it."""
    fields: tuple[str, ...] = ()
    """Regular expressions on fields' names; where empty, all but proposals."""
    conversion: ConversionConfig = field(default_factory=ConversionConfig)
    ray_fraction: float = 1 / 64
    max_rays: int = 4096
    seed: int = 0
    output_dir: Path | None = None
    """Folder of runs; the teacher's where None."""
    experiment_name: str | None = None
    """The teacher's with `-distilled` where None."""
    timestamp: str | None = None
    """The present time where None."""


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


def distill(
    run: Run, config: DistillConfig, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, GraphModel, list[FieldReport]]:
    """Converts the fields of a run.

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
    trainer, teacher = teacher_of(run)
    fields = teacher.graph_fields()
    model_config = trainer.pipeline.model
    assert isinstance(model_config, GraphModelConfig)
    chosen = _chosen_fields(teacher, config)
    plans = {name: _plan(teacher, name, chosen, config) for name in chosen}
    if not any(plans.values()):
        raise ConfigError(f"the settings of {', '.join(chosen)} replace no layer: name those to convert with --layers")
    attributes = {model_config.settings_of(name)[1] for name in chosen}
    for name in fields:
        # a field that is not converted, but whose variant becomes another, has to be described as well
        if model_config.settings_of(name)[1] in attributes:
            # fields that share their settings are alike, and the last of them says the same as the first
            _describe_student(model_config, teacher, name, plans.get(name, {}), config.conversion)
    _place(trainer, config)
    _refuse_existing(trainer)
    cameras = training_cameras(run.pipeline.datamanager)
    rays = choose_rays(cameras, config.ray_fraction, config.max_rays, config.seed)
    student = model_config.setup(scene_box=teacher.scene_box, num_train_data=teacher.num_train_data)
    assert isinstance(student, GraphModel)
    state, reports = dict(teacher.state_dict()), []
    asked = teacher  # what later fields are asked depends on it
    for name, plan in plans.items():
        if not plan:
            continue
        start = time.perf_counter()
        network = fields[name].network
        batches = network_inputs(asked, cameras, rays, name)
        converted, layers = convert_graph(network, batches, plan, config.conversion, partial(progress, name))
        prefix = next(key for key, module in teacher.named_modules() if module is network)
        state = {key: value for key, value in state.items() if not key.startswith(f"{prefix}.")}
        state |= {f"{prefix}.{key}": value for key, value in converted.state_dict().items()}
        if name in teacher.displacing_fields():
            asked = copy.deepcopy(asked)
            asked.graph_fields()[name].network = copy.deepcopy(converted)
        reports.append(
            FieldReport(
                name=name,
                layers=layers,
                parameters=(count_parameters(network), count_parameters(converted)),
                multiply_adds=(network.multiply_adds(), converted.multiply_adds()),
                seconds=time.perf_counter() - start,
            )
        )
    student.load_state_dict(state)
    return trainer, student.to(teacher.device).eval(), reports


def write_run(trainer: TrainerConfig, model: GraphModel, step: int, reports: Sequence[FieldReport] = ()) -> Path:
    """Writes `config.yml` and a checkpoint that `ns-train --load-config` goes on from.

    The run is written under a temporary name beside its place and renamed when it is complete.

    Args:
        trainer: decides the place: output_dir / experiment_name / method_name / timestamp.
        model: weights to store.
        step: of the checkpoint.
        reports: what became of each field, kept beside the config as `distill.json`.

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
        record = {"seconds": sum(r.seconds for r in reports), "fields": [asdict(r) for r in reports]}
        (folder / "distill.json").write_text(json.dumps(record, indent=1), encoding="utf8")
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


def checkpoint_state(trainer: TrainerConfig, model: GraphModel, step: int) -> dict[str, object]:
    """A checkpoint as nerfstudio's trainer writes it, with optimizers that have not made a step."""
    optimizers = Optimizers(trainer.optimizers.copy(), model.get_param_groups())
    return {
        "step": step,
        "pipeline": {f"_model.{key}": value for key, value in model.state_dict().items()},
        "optimizers": {key: value.state_dict() for key, value in optimizers.optimizers.items()},
        "schedulers": {key: value.state_dict() for key, value in optimizers.schedulers.items()},
        "scalers": torch.amp.GradScaler(enabled=False).state_dict(),
    }


def _chosen_fields(teacher: GraphModel, config: DistillConfig) -> list[str]:
    """Names of the fields to convert, in the order a ray meets them."""
    names = list(teacher.graph_fields())
    if not config.fields:
        return [name for name in names if config.proposals or not name.startswith("proposal")]
    chosen = match_names(config.fields, names, "field")
    for name in names:
        settings, _ = teacher.config.settings_of(name)
        partner = next((other for other in chosen if teacher.config.settings_of(other)[0] is settings), None)
        if partner is not None and name not in chosen:
            raise ConfigError(f"{partner} and {name} share their settings: choose both with --fields, or neither")
    return chosen


def _plan(teacher: GraphModel, name: str, chosen: Sequence[str], config: DistillConfig) -> dict[str, int]:
    """Numbers of features by layer, for one field; layers that are no longer dense stay as they are."""
    settings, attribute = teacher.config.settings_of(name)
    variant = getattr(teacher.config, attribute)
    if variant not in ("dense", "narrow", "eugen"):
        raise RunError(f"the run's {attribute} is {variant!r}; convert its dense twin ({attribute} dense)")
    own = name.startswith("proposal")
    fields = teacher.graph_fields()
    possible = {n: convertible_layers(fields[n].network) for n in chosen if own or not n.startswith("proposal")}
    if own or not config.layers:
        names = match_names(settings.patterns(), possible[name])
    else:
        # networks differ in their layers: a pattern has to match in one of them
        everything = [layer for layers in possible.values() for layer in layers]
        matched = match_names(config.layers, list(dict.fromkeys(everything)))
        names = [layer for layer in possible[name] if layer in matched]
    counts = settings.num_features if own or not config.num_features else config.num_features
    if names and len(counts) not in (1, len(names)):
        raise ConfigError(
            f"{len(counts)} numbers of features for {len(names)} layers ({', '.join(names)}); give 1 or each"
        )
    return dict(zip(names, counts * len(names) if len(counts) == 1 else counts, strict=False))


def _describe_student(
    model: GraphModelConfig, teacher: GraphModel, name: str, plan: dict[str, int], conversion: ConversionConfig
) -> None:
    """Writes into a copy of the teacher's configuration what a field will be; no plan leaves it as it is."""
    network = teacher.graph_fields()[name].network
    settings, attribute = model.settings_of(name)
    variant = getattr(teacher.config, attribute)
    if variant == "narrow":
        for layer, width in (("trunk_0", "trunk_width"), ("bottleneck", "bottleneck_width"), ("head_0", "head_width")):
            if layer in network.names:
                setattr(settings, width, network.layer(layer).out_features)
    eugen = replace(conversion.eugen, train_projection=True)
    if conversion.recipe == "rows":
        eugen = replace(eugen, degree=1, phi="relu", norm=False)
    if variant == "eugen":  # a hybrid: the layers that it has already keep their own settings
        specs = layer_specs(settings.shape(), "eugen", settings.replacement())
        specs |= {layer: LayerSpec("eugen", num_features=m, eugen=eugen) for layer, m in plan.items()}
        order = [layer for layer in network.names if layer in specs]
        settings.specs = {layer: specs[layer] for layer in order}
        settings.layers, settings.num_features = tuple(order), tuple(specs[layer].num_features for layer in order)
        return
    setattr(model, attribute, "eugen")
    settings.specs = {}  # a dense network did not use them, the student would
    settings.layers = tuple(plan)
    if not plan:
        return
    settings.num_features = tuple(plan.values())
    settings.degree, settings.phi, settings.norm = eugen.degree, eugen.phi, eugen.norm
    settings.projection, settings.train_projection = eugen.projection, True


def _place(trainer: TrainerConfig, config: DistillConfig) -> None:
    trainer.output_dir = config.output_dir or trainer.output_dir
    trainer.experiment_name = config.experiment_name or f"{trainer.experiment_name}-distilled"
    trainer.timestamp = config.timestamp or datetime.now().strftime("%Y-%m-%d_%H%M%S")
