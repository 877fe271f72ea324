"""Photographs of a corner of a room, warped by homographies: what they show and where they were taken is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
WIDTH, HEIGHT, FOCAL = 240, 180, 210.0
COUNT = 12


def true_poses() -> Array:
    """Camera to world [n, 4, 4], x right, y up, looking along -z: on an arc before the corner at the origin, z up."""
    poses = np.tile(np.eye(4), (COUNT, 1, 1))
    for number, pose in enumerate(poses):
        angle = np.pi / 4 + 0.7 * (number / (COUNT - 1) - 0.5)
        centre = np.array([7.5 * np.cos(angle), 7.5 * np.sin(angle), 3.0 + 0.8 * np.sin(2.0 * number)])
        back = centre - np.array([1.0, 1.0, 1.2])
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        pose[:3] = np.stack([right, np.cross(back, right), back, centre], axis=1)
    return poses


def write_corner(folder: Path) -> Path:
    """Photographs of a floor and two walls, each 4 m wide with a pattern of its own, by one homography a plane."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    lens = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    patterns = []
    for _ in range(3):
        layers = [
            cv2.resize(noise.uniform(0, 255, (n, n, 3)), (512, 512), interpolation=cv2.INTER_CUBIC)
            for n in (16, 48, 128)
        ]
        patterns.append(np.clip(sum(layers) / 1.5 - 127, 0, 255).astype(np.uint8))
    spans = [(np.eye(3)[:, a], np.eye(3)[:, b]) for a, b in ((0, 1), (1, 2), (2, 0))]
    for number, pose in enumerate(true_poses()):
        world_to_camera = (pose[:3, :3] * [1.0, -1.0, -1.0]).T
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for pattern, (u, v) in zip(patterns, spans, strict=True):
            plane = np.stack([4 / 512 * u, 4 / 512 * v, -pose[:3, 3]], axis=1)
            homography = lens @ world_to_camera @ plane
            size = (WIDTH, HEIGHT)
            drawn = cv2.warpPerspective(pattern, homography, size, flags=cv2.INTER_LINEAR)
            mask = cv2.warpPerspective(np.ones((512, 512), np.uint8), homography, size, flags=cv2.INTER_NEAREST)
            image = np.where(mask[..., None] > 0, drawn, image)
        Image.fromarray(image).save(folder / f"view_{number:02d}.png")
    return folder
