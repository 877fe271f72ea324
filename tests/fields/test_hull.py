"""The visual hull of a sphere whose masks come from ray-sphere intersections in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.visual_hull import dataset_alphas, visual_hull

BOX = torch.tensor([[-1.5, -1.5, -1.2], [1.5, 1.5, 1.8]])
CENTRE, RADIUS = np.array([0.3, -0.2, 0.25]), 0.6
SIZE, FOCAL = (60, 72), (75.0, 70.0)  # rows, columns; x, y


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera to world `[3, 4]`: x right, y up, looking along -z."""
    back = (position - target) / np.linalg.norm(position - target)
    up = np.array([0.0, 1.0, 0.0]) if abs(back[2]) > 0.99 else np.array([0.0, 0.0, 1.0])
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, position], axis=1)


def ring_and_top(distance: float = 4.0, count: int = 8) -> list[np.ndarray]:
    angles = 2 * np.pi * np.arange(count) / count
    positions = [distance * np.array([np.cos(a), np.sin(a), 0.3]) for a in angles]
    return [look_at(p, np.zeros(3)) for p in [*positions, np.array([0.0, 0.0, distance])]]


def mask(pose: np.ndarray) -> np.ndarray:
    """Which pixel centres' rays hit the sphere in front of the camera: `|o + t d - c| = r` has a root t > 0."""
    rows, columns = np.meshgrid(*(np.arange(n) + 0.5 for n in SIZE), indexing="ij")
    local = np.stack([(columns - SIZE[1] / 2) / FOCAL[0], -(rows - SIZE[0] / 2) / FOCAL[1], -np.ones(SIZE)], axis=-1)
    directions = local @ pose[:, :3].T
    offset = pose[:, 3] - CENTRE
    a, b, c = (directions**2).sum(-1), 2 * directions @ offset, offset @ offset - RADIUS**2
    inside = b**2 - 4 * a * c
    return (inside > 0) & (-b + np.sqrt(np.maximum(inside, 0)) > 0)


def hull(poses: list[np.ndarray], resolution: int) -> np.ndarray:
    cameras = Cameras(
        torch.tensor(np.array(poses), dtype=torch.float32), FOCAL[0], FOCAL[1], SIZE[1] / 2, SIZE[0] / 2,
        width=SIZE[1], height=SIZE[0],
    )  # fmt: skip
    alphas = [torch.from_numpy(mask(pose).astype(np.float32)) for pose in poses]
    return visual_hull(cameras, alphas, BOX, resolution).numpy()


def cell_centres(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = BOX.double().numpy()
    axes = [low[k] + (high[k] - low[k]) * (np.arange(resolution) + 0.5) / resolution for k in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), (high - low) / resolution


@pytest.mark.parametrize("resolution", [8, 24, 32])
def test_no_cell_that_the_sphere_touches_is_cut_off(resolution: int) -> None:
    kept = hull(ring_and_top(), resolution)
    centres, size = cell_centres(resolution)
    assert kept[np.linalg.norm(centres - CENTRE, axis=-1) < RADIUS].all()
    nearest = np.clip(CENTRE, centres - size / 2, centres + size / 2)  # of the cell's points, to the sphere's centre
    assert kept[np.linalg.norm(nearest - CENTRE, axis=-1) < RADIUS].all()


def test_the_hull_is_not_much_larger_than_the_sphere() -> None:
    kept = hull(ring_and_top(5.0), 64)  # far enough for each camera to see the whole box
    centres, size = cell_centres(64)
    assert kept.sum() * size.prod() < 2.7 * (4 / 3 * np.pi * RADIUS**3)
    np.testing.assert_allclose(centres[kept].mean(axis=0), CENTRE, atol=0.07)  # mirrored axes would put it elsewhere


def test_more_views_never_add_a_cell() -> None:
    poses = ring_and_top()
    few, many = hull(poses[:3], 24), hull(poses, 24)
    assert few.sum() > many.sum()
    assert not (many & ~few).any()


def test_what_no_camera_sees_is_kept() -> None:
    away = look_at(np.array([4.0, 0.0, 0.0]), np.array([8.0, 0.0, 0.0]))
    assert hull([away], 8).all()


@pytest.mark.parametrize("distance", [2.4, 3.0])
def test_cameras_close_to_the_cells_cut_nothing_off(distance: float) -> None:
    poses = [look_at(CENTRE + distance * d, CENTRE) for d in np.vstack([np.eye(3), -np.eye(3)])]
    kept = hull(poses, 20)
    assert kept.mean() < 0.9
    centres, size = cell_centres(20)
    nearest = np.clip(CENTRE, centres - size / 2, centres + size / 2)
    assert kept[np.linalg.norm(nearest - CENTRE, axis=-1) < RADIUS].all()


def test_an_image_without_alpha_is_refused() -> None:
    class Images:
        image_filenames = [Path("first.png"), Path("second.png")]

        def __len__(self) -> int:
            return 2

        def get_numpy_image(self, index: int) -> np.ndarray:
            return np.full((2, 3, 4 - index), 51, dtype=np.uint8)

    with pytest.raises(DataError, match=r"^second\.png has no alpha channel.*--pipeline\.model\.occupancy none$"):
        list(dataset_alphas(Images()))
    Images.__len__ = lambda self: 1
    (alpha,) = dataset_alphas(Images())
    assert alpha.shape == (2, 3)
    assert torch.equal(alpha, torch.full((2, 3), 51, dtype=torch.uint8))
