"""Tiny posed RGB-D sequences in every layout that is read, and what reading a spoilt one says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig

COUNT, WIDTH, HEIGHT = 4, 8, 6
LENS = (7.0, 7.5, 4.2, 2.9)
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def poses() -> list[np.ndarray]:
    """Camera-to-world with nerfstudio's axes."""
    found = []
    for index in range(COUNT):
        pose = np.eye(4)
        pose[:3, :3] = rotation(np.array([0.3, 1.0, -0.2 * index]), 0.4 + 0.5 * index)
        pose[:3, 3] = (0.1 * index, -0.2, 1.5 + index)
        found.append(pose)
    return found


def quaternion(matrix: np.ndarray) -> list[float]:
    """x, y, z, w from the eigenvector of Bar-Itzhack's matrix, another way than the reader's."""
    m = matrix
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1].tolist()


def save(color: Path, depth: Path, index: int) -> None:
    rng = np.random.default_rng(index)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(color)
    stored = rng.integers(500, 3000, (HEIGHT, WIDTH)).astype(np.uint16)
    stored[0, :2] = 0, 65535
    Image.fromarray(stored).save(depth)


def write_7scenes(root: Path) -> None:
    for index, pose in enumerate(poses()):
        name = f"frame-{5 * index:06d}"
        save(root / f"{name}.color.jpg", root / f"{name}.depth.png", index)
        np.savetxt(root / f"{name}.pose.txt", pose @ FLIP)
    np.savetxt(root / "camera-intrinsics.txt", [[LENS[0], 0, LENS[2]], [0, LENS[1], LENS[3]], [0, 0, 1]])


def write_transforms(root: Path) -> None:
    frames = []
    for index, pose in enumerate(poses()):
        save(root / f"c{index}.png", root / f"d{index}.png", index)
        names = {"file_path": f"c{index}.png", "depth_file_path": f"d{index}.png"}
        frames.append({**names, "transform_matrix": pose.tolist(), "timestamp": 100.0 + index / 6})
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), LENS, strict=True))
    (root / "transforms.json").write_text(json.dumps({**lens, "k1": 0.0, "frames": frames}))


def write_tum(root: Path) -> None:
    lists: dict[str, list[str]] = {"rgb": ["# time file"], "depth": [], "groundtruth": ["# time pose"]}
    for index, pose in enumerate(poses()):
        time = 1305031102.175304 + index / 6
        (root / "rgb").mkdir(exist_ok=True)
        (root / "depth").mkdir(exist_ok=True)
        save(root / f"rgb/{index}.png", root / f"depth/{index}.png", index)
        lists["rgb"].append(f"{time:.6f} rgb/{index}.png")
        lists["depth"].append(f"{time + 0.004:.6f} depth/{index}.png")
        opencv = pose @ FLIP
        numbers = [*opencv[:3, 3], *quaternion(opencv[:3, :3])]
        lists["groundtruth"].append(f"{time - 0.003:.6f} {' '.join(f'{v:.9f}' for v in numbers)}")
        lists["groundtruth"].append(f"{time + 0.05:.6f} 0 0 0 0 0 0 1")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_replica(root: Path) -> None:
    (root / "results").mkdir()
    rows = []
    for index, pose in enumerate(poses()):
        save(root / f"results/frame{5 * index:06d}.jpg", root / f"results/depth{5 * index:06d}.png", index)
        rows.append((pose @ FLIP).reshape(-1))
    np.savetxt(root / "traj.txt", rows)
    camera = {"w": WIDTH, "h": HEIGHT, "fx": LENS[0], "fy": LENS[1], "cx": LENS[2] - 0.5, "cy": LENS[3] - 0.5}
    (root / "cam_params.json").write_text(json.dumps({"camera": {**camera, "scale": 6553.5}}))


WRITERS: dict[str, tuple[Callable[[Path], None], float]] = {
    "7scenes": (write_7scenes, 1e-3),
    "transforms": (write_transforms, 1e-3),
    "tum": (write_tum, 1 / 5000),
    "replica": (write_replica, 1 / 6553.5),
}


def write(root: Path, layout: str) -> Path:
    root.mkdir()
    WRITERS[layout][0](root)
    return root


def message_of(path: Path, **options) -> str:
    """The one line with which a sequence is refused."""
    with pytest.raises(DataError) as caught:
        EugenRGBDDataParserConfig(data=path, **options).setup().get_dataparser_outputs("train")
    message = str(caught.value)
    assert "\n" not in message
    return message
