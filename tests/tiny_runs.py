"""Tiny runs, trained in this process: two iterations of narrow networks on tiny images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig
    from nerfstudio.models.base_model import Model
    from nerfstudio.pipelines.base_pipeline import Pipeline
    from torch import Tensor


def render(model: Model, pipeline: Pipeline, view: int = 0) -> dict[str, Tensor]:
    """An evaluation view of a pipeline, by a model in evaluation mode."""
    camera = pipeline.datamanager.eval_dataset.cameras[view : view + 1]
    return model.eval().get_outputs_for_camera(camera)


@contextmanager
def batches_in_threads() -> Iterator[None]:
    """Within it nerfacto's batches are made in a thread: each process would import everything anew."""
    from nerfstudio.data.datamanagers import parallel_datamanager

    class InThread(parallel_datamanager.DataProcessor):  # type: ignore[misc, valid-type]
        def start(self) -> None:
            threading.Thread(target=self.run, daemon=True).start()

        def terminate(self) -> None:
            """The thread ends with the tests."""

        def join(self, timeout: float | None = None) -> None:
            """As above."""

    with mock.patch.object(parallel_datamanager, "DataProcessor", InThread):
        yield


@contextmanager
def few_cells() -> Iterator[None]:
    """Within it the grids of fast renderers are coarse: a hardly trained field is dense in millions of their cells."""
    from eugen_nerf.core.marching import density_grid
    from eugen_nerf.methods.rendering import grid_rendering

    with ExitStack() as stack:
        for name, cells in {"SURVEY": 8, "MOVING_SURVEY": 6}.items():
            stack.enter_context(mock.patch.object(density_grid, name, cells))
        for name, cells in {"CELLS": 12, "MOVING_CELLS": 8, "MOVING_SLICES": 3}.items():
            stack.enter_context(mock.patch.object(grid_rendering, name, cells))
        yield


def train_stock(
    data: Path,
    output: Path,
    *,
    method: str = "vanilla-nerf",
    seed: int = 0,
    iterations: int = 2,
    change: Callable[[TrainerConfig], None] | None = None,
) -> Path:
    """Train a tiny stock ``vanilla-nerf`` or ``dnerf``, or what `change` makes tiny, in this process.

    Returns its config.yml.
    """

    def shrink(config: TrainerConfig) -> None:
        if change is not None:
            change(config)
            return
        config.pipeline.model.num_coarse_samples = config.pipeline.model.num_importance_samples = 8

    return _train(method, data, output, seed, iterations, shrink)[0]


def train_eugen(
    data: Path, output: Path, *, method: str = "eugen-nerf-small", variant: str = "eugen", **model: Any
) -> tuple[Path, Trainer]:
    """Train two iterations of one of our methods in this process, narrow but with the layers it replaces.

    Returns its config.yml and the trainer, which holds the trained pipeline; `model` sets fields of the model config,
    `network__degree` that of the config inside it.
    """

    def shrink(config: TrainerConfig) -> None:
        settings = config.pipeline.model
        settings.variant = variant
        (shrink_ngp if method.startswith("eugen-ngp") else shrink_nerf)(settings)
        for name, value in model.items():
            *path, last = name.split("__")
            setattr(reduce(getattr, path, settings), last, value)

    return _train(method, data, output, 0, 2, shrink)


def shrink_nerf(settings: Any) -> None:
    """Makes the model of an eugen-nerf preset tiny in place."""
    settings.num_coarse_samples = settings.num_importance_samples = 8
    settings.occupancy_resolution = 32
    network = settings.network
    network.trunk_width, network.head_width = 32, 16
    network.num_features = (12,) * len(network.num_features)
    network.position_frequencies, network.position_max_exponent = 4, 3.0


def shrink_ngp(settings: Any) -> None:
    """Makes the model of an eugen-ngp preset tiny in place."""
    settings.grid_resolution, settings.grid_cells, settings.grid_interval = 16, 64, 1
    network = settings.network
    network.trunk_width, network.head_width = 24, 16
    network.num_features = (10,) * len(network.num_features)
    network.min_resolution, network.max_resolution, network.log2_table_size = 8, 32, 9


def train_dnerf(
    data: Path, output: Path, *, method: str = "eugen-dnerf-small", variant: str = "eugen", **model: Any
) -> tuple[Path, Trainer]:
    """Train two iterations of an eugen-dnerf preset, narrow but with the layers it replaces.

    Returns as `train_eugen`; `model` sets fields of the model config, `deformation__layers` that of one inside it.
    """

    def shrink(config: TrainerConfig) -> None:
        settings = config.pipeline.model
        settings.variant = variant
        shrink_dnerf(settings)
        for name, value in model.items():
            *path, last = name.split("__")
            setattr(reduce(getattr, path, settings), last, value)

    return _train(method, data, output, 0, 2, shrink)


def shrink_dnerf(settings: Any) -> None:
    """Makes the model of an eugen-dnerf preset tiny in place."""
    settings.num_coarse_samples = settings.num_importance_samples = 8
    network, deformation = settings.network, settings.deformation
    for part in (network, deformation):
        part.trunk_width = 24
        part.num_features = (10,) * len(part.num_features)
    deformation.position_frequencies, deformation.position_max_exponent = 3, 2.0
    deformation.time_frequencies, deformation.time_max_exponent = 2, 1.0
    network.head_width = 16
    if hasattr(network, "log2_table_size"):
        network.max_resolution, network.log2_table_size = 64, 9
    else:
        network.position_frequencies, network.position_max_exponent = 4, 3.0


def train_unbounded(
    data: Path,
    output: Path,
    *,
    method: str,
    variant: str = "eugen",
    proposal_variant: str = "dense",
    watch: Callable[[Trainer], None] = lambda trainer: None,
    **model: Any,
) -> tuple[Path, Trainer]:
    """Train two iterations of an eugen-mipnerf360 or eugen-zipnerf preset: narrow, few samples, the layers it replaces.

    Returns as `train_eugen`; `watch` is called with the trainer before its first step. `model` sets fields of the model
    config, `network__degree` that of the config inside it.
    """

    def shrink(config: TrainerConfig) -> None:
        if not (data / "transforms.json").is_file():
            from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

            config.pipeline.datamanager.dataparser = BlenderDataParserConfig()
        settings = config.pipeline.model
        settings.variant, settings.proposal_variant = variant, proposal_variant
        shrink_unbounded(settings)
        for name, value in model.items():
            *path, last = name.split("__")
            setattr(reduce(getattr, path, settings), last, value)

    return _train(method, data, output, 0, 2, shrink, watch)


def shrink_unbounded(settings: Any) -> None:
    """Makes the model of a preset tiny in place, with the layers and options that it has."""
    settings.num_proposal_samples, settings.num_samples = (8, 7), 6
    network, proposal = settings.network, settings.proposal
    network.trunk_width, network.bottleneck_width, network.head_width = 24, 16, 16
    network.num_features = (10,) * len(network.num_features)
    proposal.trunk_width, proposal.num_features = 16, (8,) * len(proposal.num_features)
    if hasattr(settings, "proposal_resolutions"):
        network.max_resolution, settings.proposal_resolutions = 64, (32, 64)
        network.log2_table_size = proposal.log2_table_size = 10
    else:
        network.position_frequencies, proposal.position_frequencies = 4, 3


def tiny_config(method: str, data: Path, output: Path, seed: int, iterations: int) -> TrainerConfig:
    """A method's configuration for few steps of few rays on the CPU; its model is as large as it was."""
    from copy import deepcopy

    from nerfstudio.configs.method_configs import all_methods

    config = deepcopy(all_methods[method])  # never the shared one
    config.output_dir, config.experiment_name, config.timestamp = output, "tiny", f"run{seed}"
    config.vis = "tensorboard"  # "viewer" would start a server
    config.machine.device_type, config.machine.seed = "cpu", seed
    config.max_num_iterations, config.steps_per_save = iterations, 1000
    config.logging.steps_per_log = 1000
    config.logging.local_writer.enable = False
    config.logging.profiler = "none"
    config.pipeline.datamanager.data = data
    config.pipeline.datamanager.train_num_rays_per_batch = 32
    config.pipeline.datamanager.eval_num_rays_per_batch = 32
    return config


def _train(
    method: str,
    data: Path,
    output: Path,
    seed: int,
    iterations: int,
    change: Callable[[TrainerConfig], None],
    watch: Callable[[Trainer], None] = lambda trainer: None,
) -> tuple[Path, Trainer]:
    import random

    import torch

    from eugen_nerf.methods.runs.loading import without_lpips

    config = tiny_config(method, data, output, seed, iterations)
    change(config)
    config.save_config()
    state = random.getstate()  # nerfstudio draws from both
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        trainer = config.setup(local_rank=0, world_size=1)
        with without_lpips():
            trainer.setup()
        watch(trainer)
        trainer.train()
    random.setstate(state)
    return config.get_base_dir() / "config.yml", trainer
