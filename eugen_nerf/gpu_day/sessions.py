"""nerfstudio's trainer for a preset on one of the carried data sets, in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.plugins.types import MethodSpecification

from eugen_nerf.data import rgbd_parser
from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.sizes import shrink
from eugen_nerf.methods.presets import dynamic as register_dynamic
from eugen_nerf.methods.presets import instant as register_instant
from eugen_nerf.methods.presets import signed_distance as register_sdf
from eugen_nerf.methods.presets import static as register
from eugen_nerf.methods.runs.loading import without_lpips

SETS = {
    "eugen-nerf": "lego",
    "eugen-ngp": "lego",
    "eugen-mipnerf360": "fox",
    "eugen-zipnerf": "garden",
    "eugen-dnerf": "dnerf-lego-tiny",
    "eugen-isdf": "7scenes-kitchen",
    "nerfacto": "fox",
    "vanilla-nerf": "lego",
}
"""The data set of each family; a preset's name begins with its family's."""
DEPTH_MAX = 4.0
"""Metres beyond which a Kinect's depths are left out."""
FAMILIES_OF_METHODS = tuple(name for name in SETS if name.startswith("eugen-"))


def plugin_variables() -> dict[str, str]:
    """Environment variables by which nerfstudio finds the methods and parsers of a checkout that is not installed."""

    def joined(modules: tuple[ModuleType, ...], kind: type, name_of: Callable[[Any, str], str]) -> str:
        return ",".join(
            f"{name_of(spec, name)}={module.__name__}:{name}"
            for module in modules
            for name, spec in vars(module).items()
            if isinstance(spec, kind)
        )

    modules = (register, register_instant, register_dynamic, register_sdf)
    return {
        "NERFSTUDIO_METHOD_CONFIGS": joined(modules, MethodSpecification, lambda spec, _: spec.config.method_name),
        "NERFSTUDIO_DATAPARSER_CONFIGS": joined(
            (rgbd_parser,), DataParserSpecification, lambda _, name: name.replace("_", "-")
        ),
    }


def methods() -> Mapping[str, TrainerConfig]:
    """All methods that nerfstudio knows, those of this checkout among them; never to be changed."""
    os.environ.update(plugin_variables())  # read once, when the module below is first imported
    from nerfstudio.configs.method_configs import all_methods

    return cast(Mapping[str, TrainerConfig], all_methods)


def presets() -> list[str]:
    """The presets of this checkout."""
    return [name for name in methods() if name.startswith("eugen-")]


def data_of(day: Day, preset: str) -> Path:
    """The data set that a preset is trained on."""
    return day.data / next(data for name, data in SETS.items() if preset.startswith(name))


def session(
    day: Day,
    preset: str,
    *,
    variant: str = "eugen",
    data: Path | None = None,
    change: Callable[[TrainerConfig], None] = lambda config: None,
) -> Trainer:
    """A trainer that is set up: nothing is logged, evaluated or saved while it trains.

    Args:
        day: the settings; a tiny day's networks and batches are tiny.
        preset: a method's name.
        variant: "dense" or "eugen", where it is a method of this checkout.
        data: another data set than the family's.
        change: makes changes to the configuration.
    """
    config: Any = deepcopy(methods()[preset])
    config.output_dir, config.experiment_name, config.timestamp = day.work / "runs", f"{preset}-{variant}", "day"
    config.vis = "tensorboard"
    config.machine.device_type, config.machine.seed = day.device, 0
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 10**9
    config.steps_per_save = 10**9
    config.logging.local_writer.enable = False
    config.logging.profiler = "none"
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.data = data or data_of(day, preset)
    if hasattr(manager.dataparser, "depth_max"):
        manager.dataparser.depth_max = DEPTH_MAX
    if hasattr(model, "variant"):
        model.variant = variant
    elif hasattr(model, "implementation"):
        model.implementation = "torch"  # without tinycudann
    if day.tiny:
        shrink(manager)
        shrink(model)
    change(config)
    torch.manual_seed(0)
    trainer = config.setup(local_rank=0, world_size=1)
    with without_lpips():
        trainer.setup(test_mode="val")
    trainer.pipeline.train()
    return trainer


def iterate(trainer: Trainer, step: int) -> torch.Tensor:
    """One training iteration as nerfstudio's loop makes it, but for logs; the loss."""
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    loss, _, _ = trainer.train_iteration(step)
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
    return loss.detach()


def shrunk_camera(trainer: Trainer, side: int) -> Cameras:
    """The first held-out camera with at most `side` pixels along its longer side, on the trainer's device."""
    dataset = trainer.pipeline.datamanager.eval_dataset
    assert dataset is not None
    camera = deepcopy(dataset.cameras[:1]).to(trainer.device)
    longer = float(torch.maximum(camera.width, camera.height).max())
    camera.rescale_output_resolution(min(1.0, side / longer))
    return camera
