"""From a trained run to a converted run: fit both fields, then write a complete run that every ns-* command loads."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import yaml
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig

from eugen_nerf.conversion.rays import choose_rays, network_inputs, training_cameras
from eugen_nerf.conversion.teacher import teacher_of
from eugen_nerf.core.convert import ConversionConfig, LayerReport, convert_graph, convertible_layers
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.graph import LayerGraph
from eugen_nerf.core.nerf import match_names
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.methods.checkpoints import atomic_torch_save
from eugen_nerf.methods.nerf import EugenNerfModel, EugenNerfModelConfig
from eugen_nerf.methods.runs import Run


@dataclass(frozen=True)
class DistillConfig:
    """What to replace, how, and on which rays."""

    layers: tuple[str, ...] = ("trunk_.*",)
    num_features: tuple[int, ...] = (128,)
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

    name: Literal["coarse", "fine"]
    layers: list[LayerReport]
    parameters: tuple[int, int]
    """Of the whole network, teacher and student."""
    multiply_adds: tuple[int, int]
    """A query of the collapsed network, teacher and student."""
    seconds: float


def distill(
    run: Run, config: DistillConfig, progress: Callable[[str, str], None] = lambda which, layer: None
) -> tuple[TrainerConfig, EugenNerfModel, list[FieldReport]]:
    """Converts both fields of a run.

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
    model_config = teacher.config
    if model_config.variant not in ("dense", "narrow"):
        raise RunError(f"the run's variant is {model_config.variant!r}; convert its dense twin (variant dense)")
    features = _features_of(teacher.field_fine.network, config)
    student_config = _student_config(trainer, teacher, features, config)
    _refuse_existing(student_config)
    cameras = training_cameras(run.pipeline.datamanager)
    rays = choose_rays(cameras, config.ray_fraction, config.max_rays, config.seed)
    student = student_config.pipeline.model.setup(scene_box=teacher.scene_box, num_train_data=teacher.num_train_data)
    reports = []
    fields: tuple[Literal["coarse", "fine"], ...] = ("coarse", "fine")
    for which in fields:
        start = time.perf_counter()
        network: LayerGraph = getattr(teacher, f"field_{which}").network
        batches = network_inputs(teacher, cameras, rays, which)
        converted, layers = convert_graph(network, batches, features, config.conversion, partial(progress, which))
        getattr(student, f"field_{which}").network.load_state_dict(converted.state_dict())
        reports.append(
            FieldReport(
                name=which,
                layers=layers,
                parameters=(count_parameters(network), count_parameters(converted)),
                multiply_adds=(network.multiply_adds(), converted.multiply_adds()),
                seconds=time.perf_counter() - start,
            )
        )
    if teacher.occupancy is not None:
        student.occupancy.load_state_dict(teacher.occupancy.state_dict())
    return student_config, student.to(teacher.device).eval(), reports


def write_run(trainer: TrainerConfig, model: EugenNerfModel, step: int, reports: Sequence[FieldReport] = ()) -> Path:
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


def checkpoint_state(trainer: TrainerConfig, model: EugenNerfModel, step: int) -> dict[str, object]:
    """A checkpoint as nerfstudio's trainer writes it, with optimizers that have not made a step."""
    optimizers = Optimizers(trainer.optimizers.copy(), model.get_param_groups())
    return {
        "step": step,
        "pipeline": {f"_model.{key}": value for key, value in model.state_dict().items()},
        "optimizers": {key: value.state_dict() for key, value in optimizers.optimizers.items()},
        "schedulers": {key: value.state_dict() for key, value in optimizers.schedulers.items()},
        "scalers": torch.amp.GradScaler(enabled=False).state_dict(),
    }


def _features_of(network: LayerGraph, config: DistillConfig) -> dict[str, int]:
    names = match_names(config.layers, convertible_layers(network))
    counts = config.num_features
    if len(counts) not in (1, len(names)):
        raise ConfigError(
            f"{len(counts)} numbers of features for {len(names)} layers ({', '.join(names)}); give 1 or each"
        )
    return dict(zip(names, counts * len(names) if len(counts) == 1 else counts, strict=True))


def _student_config(
    trainer: TrainerConfig, teacher: EugenNerfModel, features: dict[str, int], config: DistillConfig
) -> TrainerConfig:
    model = trainer.pipeline.model
    assert isinstance(model, EugenNerfModelConfig)
    if model.variant == "narrow":
        widths = teacher.field_fine.network
        model.network.trunk_width = widths.layer("trunk_0").out_features
        model.network.head_width = widths.layer("head_0").out_features
    eugen = config.conversion.eugen
    rows = config.conversion.recipe == "rows"
    model.variant = "eugen"
    model.network.layers = tuple(features)
    model.network.num_features = tuple(features.values())
    model.network.degree = 1 if rows else eugen.degree
    model.network.phi = "relu" if rows else eugen.phi
    model.network.norm = not rows and eugen.norm
    model.network.projection = eugen.projection
    model.network.train_projection = True
    trainer.output_dir = config.output_dir or trainer.output_dir
    trainer.experiment_name = config.experiment_name or f"{trainer.experiment_name}-distilled"
    trainer.timestamp = config.timestamp or datetime.now().strftime("%Y-%m-%d_%H%M%S")
    return trainer
