"""A converted run on disk: complete, so that every ns-* command loads it, or not there at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import torch
import yaml
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import Model

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.core import LayerReport
from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.checks.names import check_name
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.checkpoints import atomic_torch_save

TRAIN_ON = "train.yml"
"""A converted run's configuration for training on, beside its `config.yml`."""
NARROWER = "narrower.yml"
"""The configuration of a narrower network of its multiply-adds, to be trained anew, likewise."""


@dataclass(frozen=True)
class FieldReport:
    """One field's conversion."""

    name: str
    """coarse and fine, deformation before them, or proposal_0, ... and field."""
    layers: list[LayerReport]
    parameters: tuple[int, int]
    """Of the whole network as it is stored to be trained on, teacher and student."""
    multiply_adds: tuple[int, int]
    """A query of the collapsed network, teacher and student."""
    seconds: float
    running: tuple[int, int]
    """Numbers of the collapsed network, which is what runs, teacher and student."""
    shares: dict[str, tuple[int, int]]
    """Multiply-adds of the collapsed network by layer, teacher and student; they sum to `multiply_adds`."""


def set_output_dir(trainer: TrainerConfig, config: DistillConfig) -> None:
    """Writes into a copy of the teacher's configuration where the new run will lie.

    Raises:
        ConfigError: a name that is none, of the teacher's too.
        RunError: the place is taken, or cannot be written.
    """
    trainer.output_dir = config.output_dir or trainer.output_dir
    trainer.experiment_name = config.experiment_name or f"{trainer.experiment_name}-distilled"
    trainer.timestamp = config.timestamp or datetime.now().strftime("%Y-%m-%d_%H%M%S")
    for option, name in {"--experiment-name": trainer.experiment_name, "--timestamp": trainer.timestamp}.items():
        check_name(name, option)
    check_name(trainer.method_name, "method_name in config.yml")
    refuse_existing(trainer)
    check_place(trainer.get_base_dir(), "folder", "--output-dir")


def write_run(
    trainer: TrainerConfig,
    model: Model,
    step: int,
    reports: Sequence[FieldReport] = (),
    more: Mapping[str, object] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Writes `config.yml`, a checkpoint, and `train.yml`, from which `ns-train --load-config` goes on.

    `train.yml` is the same configuration at another place: trained from `config.yml`, the run's own checkpoint would be
    replaced by the trainer's newest. The run is written under a temporary name beside its place and renamed when it is
    complete.

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
    refuse_existing(trainer)
    final = trainer.get_base_dir()
    trainer = copy.deepcopy(trainer)
    trainer.load_dir = trainer.get_checkpoint_dir().resolve()
    trainer.load_step = trainer.load_checkpoint = None  # a resumed teacher's, and none of the student's
    try:
        with atomic_path(final) as folder:
            checkpoints = folder / trainer.relative_model_dir
            checkpoints.mkdir(parents=True)
            atomic_torch_save(checkpoint_state(trainer, model, step), checkpoints / f"step-{step:09d}.ckpt")
            (folder / "config.yml").write_text(yaml.dump(trainer), encoding="utf8")
            onward = copy.deepcopy(trainer)
            onward.timestamp = f"{trainer.timestamp}-trained"
            (folder / TRAIN_ON).write_text(yaml.dump(onward), encoding="utf8")
            fields = [asdict(r) for r in reports]
            record = {"seconds": sum(r.seconds for r in reports), "fields": fields, **(more or {})}
            (folder / "distill.json").write_text(json.dumps(record, indent=1), encoding="utf8")
            for name, text in (files or {}).items():
                (folder / name).write_text(text, encoding="utf8")
    except OSError as error:
        raise RunError(f"cannot write the run to {final}: {error.strerror or error}") from error
    return final / "config.yml"


def refuse_existing(trainer: TrainerConfig) -> None:
    """Raises `RunError` where a run lies already."""
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
