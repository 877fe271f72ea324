"""The default device of a training, and how long the training would take on a CPU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import torch
from nerfstudio.configs.base_config import MachineConfig

from eugen_nerf.core.durations import duration
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.graph_model import GraphModel

if TYPE_CHECKING:
    from nerfstudio.pipelines.base_pipeline import VanillaPipeline

DeviceType = Literal["cpu", "cuda", "mps"]
TRIAL_RAYS = (16, 80)
"""Rays of the two trial passes whose difference is the cost of a ray."""


def available_device() -> DeviceType:
    """CUDA where torch can use a GPU, else the CPU.

    Apple's MPS has no float64, which collapsed networks are formed in, so it is used only if named.
    """
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_machine() -> MachineConfig:
    """nerfstudio's settings of a machine, for `available_device`."""
    return MachineConfig(device_type=available_device())


def is_usable(device_type: str) -> bool:
    """Whether torch can train on a kind of device here."""
    if device_type == "cuda":
        return torch.cuda.is_available()
    return device_type != "mps" or torch.backends.mps.is_available()


def check_usable(device_type: str) -> None:
    """Raises `ConfigError` for a kind of device that torch cannot train on here."""
    if not is_usable(device_type):
        raise ConfigError(
            f"--machine.device-type {device_type}: torch finds no such device here; leave the option out to train on "
            f"this machine's own ({available_device()})"
        )


def step_seconds(pipeline: VanillaPipeline, rays: int) -> float | None:
    """The least seconds of a training step on the CPU, from passes of few rays of the first training view.

    Two passes of different sizes separate the cost of a step from the cost of its rays. Further losses and the
    optimizer's step are left out: they made a quarter to a half of measured steps. Neither parameters nor any stream of
    random numbers are changed.

    Args:
        pipeline: a pipeline on the CPU, before its first step.
        rays: of one step.

    Returns:
        Seconds, or None for models that are not of this package.
    """
    model = pipeline.model
    if not isinstance(model, GraphModel):
        return None
    dataset = pipeline.datamanager.train_dataset
    assert dataset is not None
    seconds = []
    with torch.random.fork_rng(devices=()):
        for count in (TRIAL_RAYS[0], *TRIAL_RAYS):  # the first pass sets up threads and memory
            start = time.perf_counter()
            model.trial_loss(dataset.cameras, count).backward()
            seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    few, many = seconds[1:]
    return few + max(0.0, many - few) / (TRIAL_RAYS[1] - TRIAL_RAYS[0]) * max(0, rays - TRIAL_RAYS[0])


def small_preset(method: str) -> str | None:
    """The preset that is made for a CPU; None where `method` is one itself."""
    return None if method.endswith("-small") else f"{method.removesuffix('-paper')}-small"


def long_training_line(pipeline: VanillaPipeline, method: str, steps: int) -> str | None:
    """How long a full-size preset would take on this CPU, and which preset to take instead; None for small presets."""
    small = small_preset(method)
    if small is None:
        return None
    instead = f"{small} is made for a CPU"
    seconds = step_seconds(pipeline, pipeline.datamanager.get_train_rays_per_batch())
    if seconds is None:
        return f"{method} is made for a GPU; {instead}"
    return f"{steps:,} steps of {method} would take at least {duration(seconds * steps)} on this CPU: {instead}"
