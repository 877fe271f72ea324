"""Data sets of a painted sphere seen from inside, so that the colour of every ray is known without a camera model.

Written with numpy and PIL alone; lenses follow OpenCV's published models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
RADIUS = 10.0
RIGHT = 3e-3
"""Mean error of colours along the right rays at most: 8 bits round by half of 1 / 255."""
LENS = {"w": 16, "h": 12, "fl_x": 14.0, "fl_y": 13.0, "cx": 7.5, "cy": 6.5}


def colours(origins: Array, directions: Array) -> Array:
    """Colour [N, 3] in [0, 1] where rays from inside meet the sphere."""
    directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    along = (origins * directions).sum(-1)
    distance = -along + np.sqrt(along**2 - (origins**2).sum(-1) + RADIUS**2)
    points = origins + distance[:, None] * directions
    waves = np.stack([points @ w for w in ((0.5, 0.2, -0.1), (-0.2, 0.4, 0.3), (0.1, -0.3, 0.5))], axis=-1)
    return 0.5 + 0.4 * np.sin(waves)


def poses(count: int) -> list[Array]:
    """Camera-to-world [4, 4] (x right, y up, looking along -z) on a wobbly ring, looking near the centre."""
    found = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        position = np.array([3 * math.cos(angle), 3 * math.sin(angle), 1.0 + 0.4 * math.sin(3 * i)])
        back = position - np.array([0.2, 0.1 * i, 0.0])
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=-1)
        pose[:3, 3] = position
        found.append(pose)
    return found


def picture(pose: Array, lens: dict[str, Any], kind: str = "pinhole", alpha: bool = False) -> Image.Image:
    """A photograph: pinhole (with k1, k2, p1, p2), fisheye (with k1, k2) or panorama."""
    width, height = lens["w"], lens["h"]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    if kind == "panorama":
        theta, phi = (x / width - 0.5) * 2 * math.pi, math.pi * y / height
        local = np.stack([np.sin(theta) * np.sin(phi), np.cos(phi), -np.cos(theta) * np.sin(phi)], axis=-1)
    else:
        x, y = (x - lens["cx"]) / lens["fl_x"], (y - lens["cy"]) / lens["fl_y"]
        k1, k2, p1, p2 = (lens.get(name, 0.0) for name in ("k1", "k2", "p1", "p2"))
        u, v = x.copy(), y.copy()
        for _ in range(200):  # fixed-point inversion of the distortion
            r = u * u + v * v
            radial = 1 + k1 * r + k2 * r * r
            u = (x - 2 * p1 * u * v - p2 * (r + 2 * u * u)) / radial
            v = (y - 2 * p2 * u * v - p1 * (r + 2 * v * v)) / radial
        if kind == "fisheye":
            theta = np.hypot(u, v)
            local = np.stack([u * np.sinc(theta / math.pi), -v * np.sinc(theta / math.pi), -np.cos(theta)], axis=-1)
        else:
            local = np.stack([u, -v, -np.ones_like(u)], axis=-1)
    directions = local.reshape(-1, 3) @ pose[:3, :3].T
    rgb = colours(np.broadcast_to(pose[:3, 3], directions.shape), directions).reshape(height, width, 3)
    pixels = (rgb * 255).round().astype(np.uint8)
    if alpha:
        pixels = np.concatenate([pixels, np.full((height, width, 1), 255, np.uint8)], axis=-1)
    return Image.fromarray(pixels)


Edit = Callable[[dict[str, Any], Path], Any]


def write_transforms(
    root: Path, edit: Edit | None = None, *, count: int = 10, kind: str = "pinhole", **lens: float
) -> Path:
    """A set in nerfstudio's format, `images/a0.png`, ...; `edit` changes its document and files before it is written.

    The files hold what the lens shows, whatever `edit` says of it.
    """
    (root / "images").mkdir(parents=True)
    full = {**LENS, **lens}
    frames = []
    for i, pose in enumerate(poses(count)):
        picture(pose, full, kind).save(root / f"images/a{i}.png")
        frames.append({"file_path": f"images/a{i}.png", "transform_matrix": pose.tolist()})
    document = {**full, "frames": frames}
    if edit is not None:
        edit(document, root)
    (root / "transforms.json").write_text(json.dumps(document))
    return root


def write_splits(root: Path, edit: Edit | None = None, *, alpha: bool = False, times: bool = False) -> Path:
    """A set in Blender's (or D-NeRF's) format with a lens of its own words; 5 training, 2 and 3 further views."""
    size, angle = 16, 0.9
    focal = 0.5 * size / math.tan(0.5 * angle)
    lens = {"w": size, "h": 12, "fl_x": focal, "fl_y": focal, "cx": 8.0, "cy": 6.0}
    views = iter(poses(10))
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        (root / split).mkdir(parents=True)
        frames = []
        for i in range(count):
            pose = next(views)
            picture(pose, lens, alpha=alpha).save(root / split / f"r_{i}.png")
            frame: dict[str, Any] = {"file_path": f"./{split}/r_{i}", "transform_matrix": pose.tolist()}
            frames.append({**frame, "time": i / (count - 1)} if times else frame)
        document = {"camera_angle_x": angle, "frames": frames}
        if edit is not None:
            edit(document, root)
        (root / f"transforms_{split}.json").write_text(json.dumps(document))
    return root


def write_colmap(
    root: Path,
    model: str = "PINHOLE 16 12 14.0 13.0 7.5 6.5",
    *,
    place: str = "sparse/0",
    kind: str = "pinhole",
    **k: float,
) -> Path:
    """A COLMAP reconstruction as text, without points."""
    (root / "images").mkdir(parents=True)
    (root / place).mkdir(parents=True)
    lines = []
    for i, pose in enumerate(poses(10)):
        picture(pose, {**LENS, **k}, kind).save(root / f"images/B{i}.PNG")
        opencv = pose @ np.diag([1.0, -1.0, -1.0, 1.0])
        inverse = np.linalg.inv(opencv)
        w, x, y, z = _quaternion(inverse[:3, :3])
        t = inverse[:3, 3]
        lines.append(f"{i + 1} {w!r} {x!r} {y!r} {z!r} {t[0]!r} {t[1]!r} {t[2]!r} 1 B{i}.PNG\n\n")
    text = "".join(lines).replace("np.float64(", "").replace(")", "")
    (root / place / "images.txt").write_text("# images\n" + text)
    (root / place / "cameras.txt").write_text(f"# cameras\n1 {model}\n")
    return root


def _quaternion(rotation: Array) -> Array:
    """Unit quaternion (w, x, y, z) of a rotation: the eigenvector of its Davenport matrix."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0, m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[0, 2] + m[2, 0]],
            [0, 0, m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]],
            [0, 0, 0, m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return np.linalg.eigh(k, UPLO="U")[1][:, -1]


def colour_error(manager: Any, steps: int = 4) -> float:
    """Largest mean error of a batch's colours against those of its rays, carried back to the data's coordinates."""
    outputs = manager.train_dataparser_outputs
    transform = np.eye(4)
    transform[:3] = outputs.dataparser_transform.double().numpy()
    back = np.linalg.inv(transform)
    worst = 0.0
    for step in range(steps):
        rays, batch = manager.next_train(step)
        origins = rays.origins.double().numpy() / float(outputs.dataparser_scale) @ back[:3, :3].T + back[:3, 3]
        directions = rays.directions.double().numpy() @ back[:3, :3].T
        error = np.abs(batch["image"].double().numpy()[:, :3] - colours(origins, directions))
        worst = max(worst, float(error.mean()))
    return worst
