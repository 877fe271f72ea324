"""Every registered preset trained for a few steps on the pretended device, narrow but as deep as it is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pretend import Counts, pretend_cuda
from tiny_data import write_blender, write_dnerf, write_nerfstudio
from tiny_rgbd import write_sequence

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig

FAMILIES = {
    "nerf": "blender",
    "ngp": "blender",
    "mipnerf360": "nerfstudio",
    "zipnerf": "nerfstudio",
    "dnerf": "dnerf",
    "isdf": "rgbd",
}
"""The data that the methods of a family train on here."""
RAYS, WIDTH, STEPS = 32, 32, 3
COUNTED = 1
"""The step that is counted: the first allocates what later ones keep, the last evaluates."""


def presets() -> list[str]:
    """All methods that this package registers."""
    from nerfstudio.configs.method_configs import all_methods

    return sorted(name for name in all_methods if name.startswith("eugen-"))


def write_data(root: Path) -> dict[str, Path]:
    """One tiny data set of each kind, by its name in `FAMILIES`."""
    writers: dict[str, Callable[[Path], Path]] = {
        "blender": write_blender,
        "nerfstudio": write_nerfstudio,
        "dnerf": write_dnerf,
        "rgbd": lambda folder: write_sequence(folder, np.linspace(0, 2, 10)),
    }
    found = {}
    for name, write in writers.items():
        (root / name).mkdir(parents=True)
        found[name] = write(root / name)
    return found


def preset_config(preset: str, variant: str, data: dict[str, Path], output: Path) -> TrainerConfig:
    """A preset as it is registered, but for widths, rays, samples and the size of tables.

    A table holds so little that every level of a grid is hashed, which takes a launch more than an indexed level does.
    """
    from nerfstudio.configs.method_configs import all_methods

    config = deepcopy(all_methods[preset])  # never the shared one
    config.output_dir, config.experiment_name, config.timestamp = output, f"{preset}-{variant}", "run"
    config.vis = "tensorboard"  # "viewer" would start a server
    config.machine.device_type, config.machine.seed = "cuda", 0
    config.max_num_iterations, config.steps_per_save = STEPS, 1000
    config.steps_per_eval_batch = config.steps_per_eval_image = STEPS - 1
    config.logging.steps_per_log, config.logging.profiler = 1000, "none"
    config.logging.local_writer.enable = False
    manager = config.pipeline.datamanager
    manager.data = data[FAMILIES[preset.split("-")[1]]]
    manager.train_num_rays_per_batch = manager.eval_num_rays_per_batch = RAYS
    config.pipeline.model.variant = variant
    if hasattr(manager, "check_rays"):
        manager.check_rays, manager.window, manager.frame_rate, manager.normal_step = RAYS, 3, 10.0, 1
    _make_narrow(config.pipeline.model)
    return config


def _make_narrow(model: Any) -> None:
    sizes = {"num_coarse_samples": 4, "num_importance_samples": 4, "num_samples": 4, "occupancy_resolution": 8}
    sizes |= {"num_stratified_samples": 3, "num_surface_samples": 3, "grid_resolution": 8, "grid_cells": 32}
    for name in sizes.keys() & vars(model).keys():
        setattr(model, name, sizes[name])
    if hasattr(model, "num_proposal_samples"):
        model.num_proposal_samples = (6, 5)
    for network in (getattr(model, name, None) for name in ("network", "proposal", "deformation")):
        if network is None:
            continue
        network.num_features = (4,) * len(network.num_features)
        for name in ("trunk_width", "head_width", "bottleneck_width"):
            if getattr(network, name, 0):
                setattr(network, name, WIDTH)
        if hasattr(network, "log2_table_size"):
            network.log2_table_size = 8


@contextmanager
def no_lpips() -> Iterator[None]:
    """Within it no weights of LPIPS are looked for."""
    from eugen_nerf.methods.runs.loading import without_lpips

    with without_lpips(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def train_preset(preset: str, variant: str, data: dict[str, Path], output: Path) -> tuple[Trainer, Counts]:
    """Trains a preset by nerfstudio's trainer, evaluates a batch and an image, and saves a checkpoint.

    Returns the trainer, and what the step `COUNTED` took with all of its callbacks. Not to be called under a pretence.
    """
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    config = preset_config(preset, variant, data, output)
    config.save_config()
    step_counts = Counts()
    with pretend_cuda() as counts, no_lpips():
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()

        def begin(step: int) -> None:
            counts.reset()

        def end(step: int) -> None:
            if step == COUNTED:
                vars(step_counts).update(vars(counts))  # a reset makes new counters

        where = TrainingCallbackLocation
        trainer.callbacks.insert(0, TrainingCallback([where.BEFORE_TRAIN_ITERATION], begin))
        trainer.callbacks.append(TrainingCallback([where.AFTER_TRAIN_ITERATION], end))
        trainer.train()
    return trainer, step_counts
