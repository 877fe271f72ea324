"""Trainers: on the available device, with atomic checkpoints; for maps used while they grow, on a timer too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.checks.names import check_name
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.distributed import process_index
from eugen_nerf.core.errors import RunError, report_uncaught_in_one_line
from eugen_nerf.core.layers.cpu_products import products_line
from eugen_nerf.methods.optimizers import AdamWOptimizerConfig
from eugen_nerf.methods.runs.checkpoints import atomic_torch_save, checkpoint_files, read_latest_checkpoint
from eugen_nerf.methods.runs.training_data import write_training_data
from eugen_nerf.methods.training_device import (
    available_device,
    check_usable,
    default_machine,
    is_usable,
    long_training_line,
)

__all__ = [
    "AdamWOptimizerConfig",  # old runs name it here
    "EugenTrainer",
    "EugenTrainerConfig",
    "StreamTrainer",
    "StreamTrainerConfig",
    "newest_readable",
]

KEPT_CHECKPOINTS = 2
"""Checkpoints that stay: should the newest be damaged, training resumes from the one before."""


@dataclass
class EugenTrainerConfig(TrainerConfig):
    """nerfstudio's trainer, on the available device."""

    _target: type = field(default_factory=lambda: EugenTrainer)
    """Target class to instantiate."""
    machine: MachineConfig = field(default_factory=default_machine)
    """Machine configuration; the device is the GPU where there is one that torch can use, else the CPU."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called for a `config.yml`, not for a command line: runs from a machine with another device open here."""
        self.__dict__.update(state)
        if not is_usable(self.machine.device_type):
            self.machine = replace(self.machine, device_type=available_device())

    def get_checkpoint_dir(self) -> Path:
        """As in nerfstudio, whose `eval_setup` calls it between reading a run's `config.yml` and building its pipeline.

        In `ns-render` and `ns-viewer` that pipeline then renders fast; no other command sees a difference.
        """
        from eugen_nerf.methods.runs.nerfstudio_commands import FastPipeline, renders_fast

        if renders_fast() and self.pipeline._target is VanillaPipeline:
            self.pipeline._target = partial(FastPipeline, self)  # type: ignore[assignment]
        return super().get_checkpoint_dir()

    def set_experiment_name(self) -> None:
        """As in nerfstudio, but `--data .` names the run as the folder is called, and not with an empty text."""
        unnamed = self.experiment_name is None
        super().set_experiment_name()
        data = self.pipeline.datamanager.data
        if unnamed and data is not None and self.experiment_name in ("", ".."):
            self.experiment_name = data.resolve().name or "unnamed"

    def save_config(self) -> None:
        """As in nerfstudio, whose `ns-train` calls it first: errors of this package are one line there too.

        Raises:
            ConfigError: an experiment, method or time whose name can be no folder's, or leads to another one.
            RunError: the run's folder, or the file in it, cannot be written; an older file is still there.
        """
        report_uncaught_in_one_line()
        self.set_experiment_name()
        for name in ("experiment_name", "method_name", "timestamp"):
            check_name(getattr(self, name), f"--{name.replace('_', '-')}")
        check_place(self.get_base_dir(), "folder", "--output-dir")
        path = self.get_base_dir() / "config.yml"
        CONSOLE.log(f"Saving config to: {path}")
        text = yaml.dump(self)
        _write_whole(path, lambda beside: beside.write_text(text, encoding="utf8"))


class EugenTrainer(Trainer):
    """`Trainer` that prints what to expect without a GPU, refuses a device that is not available, writes checkpoints
    atomically, and resumes from the newest whole one."""

    config: EugenTrainerConfig

    def __init__(self, config: EugenTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        check_usable(config.machine.device_type)
        super().__init__(config, local_rank, world_size)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """As in nerfstudio. Raises `ConfigError` where the configured device is not available."""
        without_gpu = self.device == "cpu" and not is_usable("cuda")
        if without_gpu:
            CONSOLE.print("torch finds no GPU here: training on the CPU")
            CONSOLE.print(products_line(), markup=False, highlight=False, soft_wrap=True)
        super().setup(test_mode)
        if process_index() == 0:
            write_training_data(getattr(self.pipeline, "module", self.pipeline), self.config.get_base_dir())
        if without_gpu:
            steps = self.config.max_num_iterations - self._start_step
            line = long_training_line(self.pipeline, str(self.config.method_name), steps)
            if line is not None:
                CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)

    def train(self) -> None:
        """As in nerfstudio; what it writes first is whole or absent, as checkpoints are."""
        outputs = getattr(self.pipeline.datamanager, "train_dataparser_outputs", None)
        if outputs is not None:
            outputs.save_dataparser_transform = partial(_save_transform, outputs)
        super().train()

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Saves model, data state and optimizers; older files are removed once the new one is on the disk.

        Raises:
            RunError: it cannot be written; the files before are still there.
        """
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        pipeline = getattr(self.pipeline, "module", self.pipeline)
        state = {
            "step": step,
            "pipeline": pipeline.state_dict(),
            "optimizers": {key: value.state_dict() for key, value in self.optimizers.optimizers.items()},
            "schedulers": {key: value.state_dict() for key, value in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        atomic_torch_save(state, self.checkpoint_dir / f"step-{step:09d}.ckpt")
        if self.config.save_only_latest_checkpoint:
            for path in checkpoint_files(self.checkpoint_dir)[:-KEPT_CHECKPOINTS]:
                path.unlink(missing_ok=True)

    def _load_checkpoint(self) -> None:
        """As in nerfstudio, but from the file before the newest where that one was cut off.

        Raises:
            RunError: `load_dir` holds no checkpoint, or none that can be read.
        """
        config = self.config
        if config.load_dir is None or config.load_step is not None:
            super()._load_checkpoint()
            return
        self.config = replace(config, load_step=newest_readable(config.load_dir))
        try:
            super()._load_checkpoint()
        finally:
            self.config = config


@dataclass
class StreamTrainerConfig(EugenTrainerConfig):
    """nerfstudio's trainer, with checkpoints at intervals of time."""

    _target: type = field(default_factory=lambda: StreamTrainer)
    """Target class to instantiate."""
    seconds_per_save: float = 10.0
    """Seconds between checkpoints, in addition to `steps_per_save`; 0 for `steps_per_save` alone."""


class StreamTrainer(EugenTrainer):
    """`EugenTrainer` that saves on a timer too.

    A checkpoint holds the stream's state (`RGBDStreamDataManager`), so that `--load-dir` goes on in mid-sequence.
    """

    config: StreamTrainerConfig

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """As in nerfstudio; timed saving comes after all other callbacks of a step."""
        super().setup(test_mode)
        self._saved_at = time.monotonic()
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._save_when_due))

    def _save_when_due(self, step: int) -> None:
        interval = self.config.seconds_per_save
        if interval > 0 and time.monotonic() - self._saved_at >= interval:
            self.save_checkpoint(step)

    def save_checkpoint(self, step: int) -> None:
        """As in `EugenTrainer`; the clock starts anew."""
        super().save_checkpoint(step)
        self._saved_at = time.monotonic()


def _save_transform(outputs: DataparserOutputs, path: Path) -> None:
    _write_whole(path, partial(DataparserOutputs.save_dataparser_transform, outputs))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Raises `RunError` where a file cannot be written; an older one is kept then."""
    try:
        with atomic_path(path, replace=True) as beside:
            write(beside)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"cannot write {path}: {reason}; free some space or choose another --output-dir") from error


def newest_readable(folder: Path) -> int:
    """The step of the newest checkpoint in a folder that can be read; says which ones cannot.

    Raises:
        RunError: there is none.
    """
    try:
        return int(read_latest_checkpoint(folder)[1]["step"])
    except RunError as error:
        raise RunError(f"{error}; --load-dir takes the nerfstudio_models folder of a run") from error
