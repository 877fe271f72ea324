"""What a conversion needs of a trained run, whatever its fields are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from eugen_nerf.conversion.budget.field_preview import Preview
from eugen_nerf.conversion.conversion_settings import DistillConfig, Plan
from eugen_nerf.conversion.run_writer import FieldReport, set_output_dir
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import choose_rays, training_views

CHECK_RAYS = 4096
"""Rays that are compared with photographs; none of them is fitted to."""
FieldProgress = Callable[[str, str], None]
"""Called with a field, and with the layer or the stage that is done."""
Metrics = Mapping[str, Mapping[str, Tensor]]
"""By field and layer M `[t, l]`: an error e of the outputs counts as `|M e|^2` when neurons are chosen."""


def no_progress(which: str, what: str) -> None:
    """Takes no note of progress."""


class Student(NamedTuple):
    """A converted run before it is written."""

    trainer: TrainerConfig
    """Describes it, and where it will lie."""
    model: Any
    """In evaluation mode, on the teacher's device."""
    reports: list[FieldReport]
    """Of each field that was changed."""


class RankCurves(NamedTuple):
    """What layers would lose at lower ranks."""

    curves: dict[str, dict[str, Tensor]]
    """Error for ranks 0, 1, ..., min(d, l), by group and layer: float64."""
    groups: dict[str, tuple[str, ...]]
    """Fields that share their settings and so their ranks, by the one that counts for the cost."""


class Teacher(ABC):
    """A run that is converted once or, for a budget, more often; it is not changed.

    Args:
        run: loaded with its training views.
        config: what to replace, how, on which rays, and where the student will be written.
        model: the run's, or a copy of it in another form.
        trainer: describes the model; a copy, whose place becomes the student's.

    Raises:
        ConfigError: an unknown recipe, or too few rays.
        RunError: a place that is taken, or a run without training views.
    """

    def __init__(self, run: Run, config: DistillConfig, model: Any, trainer: TrainerConfig) -> None:
        self.run, self.config, self.model, self.trainer = run, config, model, trainer
        self.recipe = recipe_named(config.conversion.recipe)
        set_output_dir(trainer, config)
        self.cameras: Cameras = training_views(run.pipeline.datamanager).cameras
        self.rays = choose_rays(self.cameras, config.ray_fraction, config.max_rays, config.seed)

    @property
    def renders_images(self) -> bool:
        """Whether there are photographs to compare with."""
        return True

    @abstractmethod
    def memory_line(self) -> str:
        """What fitting will hold in memory, in words: known before it starts."""

    @abstractmethod
    def configured_plan(self) -> Plan:
        """Numbers of features by field and layer, as they are configured.

        Raises:
            ConfigError: patterns that match nothing, or numbers that make no sense.
        """

    @abstractmethod
    def metrics(self, plan: Plan, progress: FieldProgress = no_progress) -> Metrics:
        """How the neurons of a plan's layers are chosen; empty where the layers that read them decide.

        Args:
            plan: from `configured_plan`.
            progress: called with the field of every batch.
        """

    @abstractmethod
    def preview(self, progress: FieldProgress = no_progress) -> Preview:
        """What every layer would lose with fewer features, and the undominated choices for every cost.

        Args:
            progress: called with the field of every batch.

        Raises:
            ConfigError: no layer to convert, layers whose cost is not known, or a recipe that chooses no neurons.
        """

    @abstractmethod
    def convert(self, plan: Plan, progress: FieldProgress = no_progress, metrics: Metrics | None = None) -> Student:
        """Fits the layers of a plan.

        Args:
            plan: numbers of features by field and layer.
            progress: called with the field and the layer that is done.
            metrics: how neurons are chosen; by the layers that read them where missing.

        Raises:
            ConfigError: numbers of features that a layer cannot have, or too few samples.
        """

    def narrower(self, student: Student) -> TrainerConfig | None:
        """How a plainly narrower network of a student's multiply-adds is trained anew; None where no method has one."""
        return None

    @abstractmethod
    def sketch(self, plan: Plan) -> Any:
        """A model of the student's shape, weights aside."""

    def layer_sizes(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Inputs and outputs of every layer that a budget may replace, by field; for recipes without a preview.

        Raises:
            ConfigError: no layer to convert, or fields that are no graphs of layers.
        """
        raise self._no_graphs()

    def rank_curves(self, progress: FieldProgress = no_progress) -> RankCurves:
        """What every layer would lose at every rank; for recipes that allocate ranks.

        Args:
            progress: called with every field that is done.

        Raises:
            ConfigError: as `layer_sizes`.
        """
        raise self._no_graphs()

    def _no_graphs(self) -> ConfigError:
        return ConfigError(
            f"a budget for --recipe {self.recipe.name} needs fields that are graphs of layers: give --num-features, or "
            "leave --recipe out"
        )

    @abstractmethod
    def forget(self) -> None:
        """Removes what was kept on disk for a conversion that is stopped: the student is written."""

    def check_rays(self) -> Tensor:
        """Rays that are compared with photographs: behind those that are fitted to, in the same random order.

        Raises:
            ConfigError: every pixel is fitted to.
        """
        used = len(self.rays)
        rays = choose_rays(self.cameras, 1.0, used + CHECK_RAYS, self.config.seed)[used:]
        if not len(rays):
            raise ConfigError("every pixel is fitted to and none is left to check with: take a smaller --ray-fraction")
        return rays

    def training_rays(self, limit: int = 1 << 21) -> Tensor:
        """Rays for calibration: all but those of `check_rays`, at most `limit`."""
        used = len(self.rays)
        every = choose_rays(self.cameras, 1.0, limit, self.config.seed)
        return torch.cat([every[:used], every[used + CHECK_RAYS :]])
