"""A tiny posed depth sequence whose signed distance is known exactly: a camera turns inside a box round a sphere."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer

HALF = np.array([1.6, 1.4, 1.1])
"""Half the room's sides, metres; its centre is the origin."""
CENTRE, RADIUS = np.array([0.1, -0.1, -0.4]), 0.45
"""Of the sphere in it."""
SIZE = (32, 24)
"""Width and height of the images."""
FOCAL = 20.0
FPS = 10.0


def true_distance(points: np.ndarray) -> np.ndarray:
    """Signed distance `[...]` at points `[..., 3]` inside the room, metres."""
    walls = (HALF - np.abs(points)).min(axis=-1)
    return np.minimum(walls, np.linalg.norm(points - CENTRE, axis=-1) - RADIUS)


def pose_at(angle: float) -> np.ndarray:
    """Camera-to-world `[4, 4]` on a circle in the room, looking inward and down past its centre."""
    position = np.array([1.1 * np.cos(angle), 0.95 * np.sin(angle), 0.45])
    back = position - np.array([-0.3 * np.cos(angle), -0.3 * np.sin(angle), -0.35])
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(back, right), back, position
    return pose


def depth_from(pose: np.ndarray) -> np.ndarray:
    """Depth along the optical axis, float64 `[h, w]` in metres: the nearer of the sphere and the walls."""
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5 - SIZE[0] / 2, np.arange(SIZE[1]) + 0.5 - SIZE[1] / 2)
    local = np.stack([x / FOCAL, -y / FOCAL, -np.ones_like(x)], axis=-1)
    d, o = local @ pose[:3, :3].T, pose[:3, 3]
    walls = ((np.sign(d) * HALF - o) / d).min(axis=-1)
    a, b, c = (d * d).sum(-1), d @ (o - CENTRE), ((o - CENTRE) ** 2).sum() - RADIUS**2
    root = b * b - a * c
    ball = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    return np.minimum(walls, np.where(ball > 0, ball, np.inf))


def write_sequence(root: Path, angles: np.ndarray, *, blind: tuple[int, ...] = ()) -> Path:
    """Writes a sequence in the layout of nerfstudio's transforms.json; frames in `blind` have no valid depth."""
    root.mkdir(parents=True, exist_ok=True)
    frames = []
    for index, angle in enumerate(angles):
        pose = pose_at(float(angle))
        depth = np.zeros(SIZE[::-1]) if index in blind else depth_from(pose)
        Image.fromarray(np.round(depth * 1000).astype(np.uint16)).save(root / f"depth_{index:03d}.png")
        grey = np.clip(255 - 60 * depth, 0, 255).astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, axis=-1)).save(root / f"color_{index:03d}.png")
        frames.append(
            {
                "file_path": f"color_{index:03d}.png",
                "depth_file_path": f"depth_{index:03d}.png",
                "transform_matrix": pose.tolist(),
                "timestamp": index / FPS,
            }
        )
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2, "w": SIZE[0], "h": SIZE[1]}
    document = {"camera_model": "PINHOLE", "depth_unit_scale_factor": 0.001, **lens, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(document))
    return root


def isdf_trainer(
    data: Path,
    output: Path,
    *,
    iterations: int,
    method: str = "eugen-isdf-small",
    variant: str = "eugen",
    change: Callable[[Any], None] = lambda config: None,
) -> Trainer:
    """A trainer of one of the signed distance presets with a narrow network, set up but not trained."""
    config = isdf_config(data, output, iterations=iterations, method=method)
    config.pipeline.model.variant = variant
    change(config)
    config.save_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
    return trainer


def few_rays(config: Any) -> None:
    """Steps of 100 rays: enough for a surface that is shown or compared."""
    config.pipeline.datamanager.train_num_rays_per_batch = config.pipeline.datamanager.check_rays = 100


def isdf_config(data: Path, output: Path, *, iterations: int, method: str = "eugen-isdf-small") -> Any:
    """The configuration of one of the signed distance presets with a narrow network, for the CPU."""
    from nerfstudio.configs.method_configs import all_methods

    config = deepcopy(all_methods[method])  # never the shared one
    config.output_dir, config.experiment_name, config.timestamp = output, "tiny", "run"
    config.vis = "tensorboard"
    config.machine.device_type, config.machine.seed = "cpu", 0
    config.max_num_iterations = iterations
    config.logging.steps_per_log = 10_000
    config.logging.local_writer.enable = False
    config.logging.profiler = "none"
    config.steps_per_eval_batch = config.steps_per_eval_image = 10_000
    stream, model = config.pipeline.datamanager, config.pipeline.model
    stream.data = data
    stream.frame_rate, stream.steps_on_frame, stream.steps_on_keyframe, stream.steps_on_first = FPS, 2, 4, 8
    stream.normal_step = 1
    model.network.trunk_width, model.network.num_features = 64, (32,)
    return config
