"""Fixtures shared by the tests: tiny data sets in two formats, and tiny trained runs on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import train_dnerf, train_eugen, train_stock, train_unbounded

# the networks here are tiny: more threads only get in each other's way (torch reads it on its first import)
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer


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
def tiny_nerfstudio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in nerfstudio's format: 5 training, 2 validation, 3 test views, 16 x 12 RGB, one lens with distortion."""
    root = tmp_path_factory.mktemp("tiny_nerfstudio")
    (root / "images").mkdir()
    x, y = np.meshgrid((np.arange(16) + 0.5) / 8 - 1, (np.arange(12) + 0.5) / 6 - 1)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    frames = []
    for view in range(10):
        azimuth = 2 * np.pi * view / 10
        name = f"images/frame_{view:02d}.png"
        colour = np.stack([0.5 + 0.4 * np.cos(azimuth + k + 2 * x - y) for k in (0, 2, 4)], axis=-1)
        Image.fromarray((colour * 255).round().astype(np.uint8)).save(root / name)
        frames.append({"file_path": name, "transform_matrix": _look_at_origin(azimuth)})
        splits["train" if view % 2 == 0 else "val" if view in (3, 7) else "test"].append(name)
    lens = {"camera_model": "OPENCV", "k1": 0.05, "k2": -0.01, "p1": 1e-3, "p2": -2e-3}
    size = {"fl_x": 20.0, "fl_y": 21.0, "cx": 8.5, "cy": 5.5, "w": 16, "h": 12}
    meta = {**lens, **size, "frames": frames, **{f"{split}_filenames": names for split, names in splits.items()}}
    (root / "transforms.json").write_text(json.dumps(meta))
    return root


@pytest.fixture(scope="session")
def tiny_dnerf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A D-NeRF-format data set: 6 training, 2 validation, 3 test views, 16x16 RGB on black of a disc that moves."""
    root = tmp_path_factory.mktemp("tiny_dnerf")
    grid = (np.arange(16) + 0.5) / 8 - 1
    x, y = np.meshgrid(grid, grid)
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        (root / split).mkdir()
        frames = []
        for view in range(count):
            time, azimuth = view / (count - 1), 2.4 * view + {"train": 0.0, "val": 0.2, "test": 0.4}[split]
            alpha = np.clip((0.45 - np.hypot(x - 0.5 * time + 0.25, y)) * 8, 0, 1)
            colour = np.stack([0.5 + 0.5 * np.cos(azimuth + phase + x) for phase in (0, 2, 4)], axis=-1)
            Image.fromarray((colour * alpha[..., None] * 255).round().astype(np.uint8)).save(
                root / split / f"r_{view}.png"
            )
            pose = _look_at_origin(azimuth)
            frames.append({"file_path": f"./{split}/r_{view}", "transform_matrix": pose, "time": time})
        meta = {"camera_angle_x": 0.7, "frames": frames}
        (root / f"transforms_{split}.json").write_text(json.dumps(meta))
    return root


@pytest.fixture(scope="session")
def tiny_stock_dnerf_run(tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a stock ``dnerf`` run: two iterations, on the CPU."""
    return train_stock(tiny_dnerf, tmp_path_factory.mktemp("stock_dnerf_run"), method="dnerf")


@pytest.fixture(scope="session")
def tiny_dense_dnerf_run(tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a dense ``eugen-dnerf-small`` run, two iterations with narrow networks, on the CPU."""
    return train_dnerf(tiny_dnerf, tmp_path_factory.mktemp("dense_dnerf_run"), variant="dense")[0]


@pytest.fixture(scope="session")
def train_tiny_dnerf(tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Trainer]]:
    """`train_dnerf` on the tiny dynamic data set, into a folder of its own each time."""

    def train(**settings: Any) -> tuple[Path, Trainer]:
        return train_dnerf(tiny_dnerf, tmp_path_factory.mktemp("tiny_dnerf_run"), **settings)

    return train


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


@pytest.fixture(scope="session")
def train_tiny_unbounded(
    tiny_blender: Path, tiny_nerfstudio: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Trainer]]:
    """`train_unbounded` on the set in nerfstudio's format, or on the Blender one where asked; a folder each time."""

    def train(*, blender: bool = False, **settings: Any) -> tuple[Path, Trainer]:
        data = tiny_blender if blender else tiny_nerfstudio
        return train_unbounded(data, tmp_path_factory.mktemp("tiny_unbounded"), **settings)

    return train
