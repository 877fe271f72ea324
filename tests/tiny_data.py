"""Tiny data sets, written in the formats that nerfstudio's parsers read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
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


def write_blender(root: Path) -> Path:
    """A Blender-format data set: 4 training, 2 validation and 3 test views, 16x16 RGBA of a shaded disc."""
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


def write_nerfstudio(root: Path) -> Path:
    """A set in nerfstudio's format: 5 training, 2 validation, 3 test views, 16 x 12 RGB, one lens with distortion."""
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


def write_dnerf(root: Path) -> Path:
    """A D-NeRF-format data set: 6 training, 2 validation, 3 test views, 16x16 RGB on black of a disc that moves."""
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
