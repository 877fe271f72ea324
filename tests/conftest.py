"""Fixtures shared by the tests: a tiny Blender-format data set and a tiny trained stock run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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


def train_stock(data: Path, output: Path, *, seed: int = 0, iterations: int = 2) -> Path:
    """Train a tiny stock ``vanilla-nerf`` in this process; returns its config.yml."""
    from copy import deepcopy

    import torch
    from nerfstudio.configs.method_configs import all_methods

    from eugen_nerf.methods.runs import without_lpips

    config = deepcopy(all_methods["vanilla-nerf"])  # never the shared one
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
    config.save_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainer = config.setup(local_rank=0, world_size=1)
        with without_lpips():
            trainer.setup()
        trainer.train()
    return config.get_base_dir() / "config.yml"
