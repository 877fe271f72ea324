"""Fixtures shared by the tests: a tiny Blender-format data set, and tiny trained runs on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

# the networks here are tiny: more threads only get in each other's way (torch reads it on its first import)
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig


def _look_at_origin(azimuth: float, height: float = 0.5, distance: float = 4.0) -> list[list[float]]:
    """Camera-to-world matrix [4, 4] (x right, y up, looking along -z) on a circle round the origin."""
    position = distance * np.array([np.cos(azimuth), np.sin(azimuth), height]) / np.hypot(1.0, height)
    back = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(back, right), back, position
    return pose.tolist()


@pytest.fixture(scope="session")
def tiny_blender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Blender-format data set: 4 training, 2 validation and 3 test views, 16x16 RGBA of a shaded disc."""
    root = tmp_path_factory.mktemp("tiny_blender")
    grid = (np.arange(16) + 0.5) / 8 - 1
    x, y = np.meshgrid(grid, grid)
    alpha = np.clip((0.7 - np.hypot(x, y)) * 8, 0, 1)
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        (root / split).mkdir()
        frames = []
        for view in range(count):
            azimuth = 2 * np.pi * view / count + {"train": 0.0, "val": 0.2, "test": 0.4}[split]
            colour = np.stack([0.5 + 0.5 * np.cos(azimuth + phase + x) for phase in (0, 2, 4)], axis=-1)
            rgba = np.concatenate([colour, alpha[..., None]], axis=-1)
            Image.fromarray((rgba * 255).round().astype(np.uint8)).save(root / split / f"r_{view}.png")
            frames.append({"file_path": f"./{split}/r_{view}", "transform_matrix": _look_at_origin(azimuth)})
        meta = {"camera_angle_x": 0.7, "frames": frames}
        (root / f"transforms_{split}.json").write_text(json.dumps(meta))
    return root


@pytest.fixture(scope="session")
def tiny_stock_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a stock ``vanilla-nerf`` run: two iterations of 32 rays with 8 + 8 samples, on the CPU."""
    return train_stock(tiny_blender, tmp_path_factory.mktemp("stock_run"))


@pytest.fixture(scope="session")
def second_stock_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_stock_run`, from another seed."""
    return train_stock(tiny_blender, tmp_path_factory.mktemp("second_stock_run"), seed=1)


@pytest.fixture(scope="session")
def tiny_eugen_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of an ``eugen-nerf-small`` run, two iterations with a narrow network, on the CPU."""
    return train_eugen(tiny_blender, tmp_path_factory.mktemp("eugen_run"))[0]


@pytest.fixture(scope="session")
def tiny_dense_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_eugen_run`, its dense twin."""
    return train_eugen(tiny_blender, tmp_path_factory.mktemp("dense_run"), variant="dense")[0]


@pytest.fixture(scope="session")
def train_tiny(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Trainer]]:
    """`train_eugen` on the tiny data set, into a folder of its own each time."""

    def train(**settings: Any) -> tuple[Path, Trainer]:
        return train_eugen(tiny_blender, tmp_path_factory.mktemp("tiny_run"), **settings)

    return train


def train_stock(data: Path, output: Path, *, seed: int = 0, iterations: int = 2) -> Path:
    """Train a tiny stock ``vanilla-nerf`` in this process; returns its config.yml."""
    return _train("vanilla-nerf", data, output, seed, iterations, lambda config: None)[0]


def train_eugen(
    data: Path, output: Path, *, method: str = "eugen-nerf-small", variant: str = "eugen", **model: Any
) -> tuple[Path, Trainer]:
    """Train two iterations of one of our methods in this process, narrow but with the layers it replaces.

    Returns its config.yml and the trainer, which holds the trained pipeline; `model` sets fields of the model config.
    """

    def shrink(config: TrainerConfig) -> None:
        settings = config.pipeline.model
        settings.variant = variant
        network = settings.network
        network.trunk_width, network.head_width = 32, 16
        network.num_features = (12,) * len(network.num_features)
        network.position_frequencies, network.position_max_exponent = 4, 3.0
        for name, value in model.items():
            setattr(settings, name, value)

    return _train(method, data, output, 0, 2, shrink)


def _train(
    method: str, data: Path, output: Path, seed: int, iterations: int, change: Callable[[TrainerConfig], None]
) -> tuple[Path, Trainer]:
    import random
    from copy import deepcopy

    import torch
    from nerfstudio.configs.method_configs import all_methods

    from eugen_nerf.methods.runs import without_lpips

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
    config.pipeline.model.num_coarse_samples = config.pipeline.model.num_importance_samples = 8
    change(config)
    config.save_config()
    state = random.getstate()  # nerfstudio draws from both
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        trainer = config.setup(local_rank=0, world_size=1)
        with without_lpips():
            trainer.setup()
        trainer.train()
    random.setstate(state)
    return config.get_base_dir() / "config.yml", trainer
