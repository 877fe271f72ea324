"""Tiny data sets under the names of the real ones, for a dry run: a disc, still and moving, and the walls of a room.

Formulas alone make them: `eugen_nerf.data` renders by a library that a machine with a GPU need not have.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
"""Pixels along each side of an image."""
COUNTS = {"train": 4, "val": 1, "test": 2}
"""Views of each split."""
FRAMES = 10
"""Of the room."""
FIELD_OF_VIEW = 0.7
"""Radians, of the Blender-format sets."""
HALF = np.array([1.6, 1.4, 1.1])
"""Half the room's sides, metres; its centre is the origin."""
Array = NDArray[np.float64]


def write_tiny_sets(folder: Path) -> None:
    """lego, dnerf-lego-tiny, fox, garden and 7scenes-kitchen."""
    write_blender(folder / "lego", moving=False)
    write_blender(folder / "dnerf-lego-tiny", moving=True)
    for name in ("fox", "garden"):
        write_capture(folder / name)
    write_room(folder / "7scenes-kitchen")


def write_blender(target: Path, *, moving: bool) -> None:
    """Views of a disc in the Blender format: RGBA, or of one that moves, with times, RGB on black as D-NeRF's."""
    for split, count in COUNTS.items():
        (target / split).mkdir(parents=True)
        frames = []
        for view in range(count):
            time = view / max(1, count - 1)
            image = disc(0.5 * time - 0.25 if moving else 0.0, view)
            name = f"./{split}/r_{view}"
            pixels = image[..., :3] * (image[..., 3:] / 255) if moving else image
            Image.fromarray(pixels.astype(np.uint8)).save(target / f"{name}.png")
            frame = {"file_path": name, "transform_matrix": pose_at(view + len(split), distance=4.0).tolist()}
            frames.append(frame | ({"time": time} if moving else {}))
        document = {"camera_angle_x": FIELD_OF_VIEW, "frames": frames}
        (target / f"transforms_{split}.json").write_text(json.dumps(document), encoding="utf8")


def write_capture(target: Path) -> None:
    """Views of a disc in nerfstudio's format, through a lens with distortion."""
    (target / "images").mkdir(parents=True)
    frames, names = [], {split: [f"images/{split}_{view}.png" for view in range(n)] for split, n in COUNTS.items()}
    for view, name in enumerate(name for split in names.values() for name in split):
        Image.fromarray(disc(0.0, view)[..., :3]).save(target / name)
        frames.append({"file_path": name, "transform_matrix": pose_at(view, distance=4.0).tolist()})
    lens = {"camera_model": "OPENCV", "k1": 0.01, "k2": 0.0, "p1": 0.0, "p2": 0.0, "w": SIDE, "h": SIDE}
    lens |= {"fl_x": 1.4 * SIDE, "fl_y": 1.4 * SIDE, "cx": SIDE / 2, "cy": SIDE / 2}
    splits = {f"{split}_filenames": files for split, files in names.items()}
    (target / "transforms.json").write_text(json.dumps({**lens, **splits, "frames": frames}), encoding="utf8")


def write_room(target: Path) -> None:
    """Depth in millimetres of a box's walls, by a camera that turns inside it."""
    target.mkdir(parents=True)
    frames, focal = [], 0.7 * SIDE
    for index in range(FRAMES):
        pose = pose_at(0.3 * index, distance=0.5)
        depth = depth_of_walls(pose, focal)
        names = f"color_{index}.png", f"depth_{index}.png"
        Image.fromarray(np.repeat((60 * depth).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)).save(
            target / names[0]
        )
        Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(target / names[1])
        files = {"file_path": names[0], "depth_file_path": names[1], "timestamp": index / 10}
        frames.append({**files, "transform_matrix": pose.tolist()})
    lens = {
        "camera_model": "PINHOLE",
        "fl_x": focal,
        "fl_y": focal,
        "cx": SIDE / 2,
        "cy": SIDE / 2,
        "w": SIDE,
        "h": SIDE,
    }
    document = {**lens, "depth_unit_scale_factor": 0.001, "frames": frames}
    (target / "transforms.json").write_text(json.dumps(document), encoding="utf8")


def disc(shift: float, view: int) -> NDArray[np.uint8]:
    """RGBA `[SIDE, SIDE, 4]` of a coloured disc, `shift` to the right."""
    grid = 2 * (np.arange(SIDE) + 0.5) / SIDE - 1
    x, y = np.meshgrid(grid, grid)
    colour = [0.5 + 0.5 * np.cos(view + phase + x) for phase in (0, 2, 4)]
    alpha = np.clip(8 * (0.6 - np.hypot(x - shift, y)), 0, 1)
    return (255 * np.stack([*colour, alpha], axis=-1)).round().astype(np.uint8)


def pose_at(angle: float, *, distance: float) -> Array:
    """Camera-to-world `[4, 4]` on a circle, looking at its centre."""
    position = distance * np.array([np.cos(angle), np.sin(angle), 0.5]) / np.hypot(1, 0.5)
    back = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return pose


def depth_of_walls(pose: Array, focal: float) -> Array:
    """Depth along the optical axis, metres `[SIDE, SIDE]`, from inside the box."""
    grid = (np.arange(SIDE) + 0.5 - SIDE / 2) / focal
    x, y = np.meshgrid(grid, grid)
    directions = np.stack([x, -y, -np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    depth: Array = ((np.sign(directions) * HALF - pose[:3, 3]) / directions).min(axis=-1)
    return depth
