"""The visual hull against a cell-by-cell loop, its work in numbers of elements, and what it says of useless images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch.utils._python_dispatch import TorchDispatchMode

from eugen_nerf.core.errors import DataError
from eugen_nerf.data import visual_hull as hull
from eugen_nerf.data.visual_hull import carve, visual_hull

BOX = np.array([[-1.0, -0.9, -0.8], [1.1, 1.0, 0.9]])
AABB = torch.tensor(BOX, dtype=torch.float32)
WIDTH, HEIGHT = 23, 17
CELLS = 60


def poses(count: int, seed: int, distance: float = 3.0) -> np.ndarray:
    """Camera-to-world `[N, 3, 4]`, looking at points near the origin from random sides."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        position = rng.normal(size=3)
        position *= distance / np.linalg.norm(position)
        back = position - 0.3 * rng.normal(size=3)
        back /= np.linalg.norm(back)
        right = np.cross([0.1, 0.2, 1.0], back)
        right /= np.linalg.norm(right)
        found.append(np.stack([right, np.cross(back, right), back, position], axis=1))
    return np.array(found)


def cameras(places: np.ndarray, size: tuple[int, int] = (WIDTH, HEIGHT), focal: float = 20.0, **more) -> Cameras:
    width, height = size
    return Cameras(
        torch.tensor(places, dtype=torch.float32), focal, 0.95 * focal, 0.52 * width, 0.47 * height,
        width=width, height=height, **more,
    )  # fmt: skip


def by_loop(places: np.ndarray, alphas: list[np.ndarray], resolution: int, focal: float = 20.0) -> np.ndarray:
    """The stated meaning, one cell, corner and pixel after the other, in double precision."""
    kept = np.ones((resolution,) * 3, dtype=bool)
    size = (BOX[1] - BOX[0]) / resolution
    for index in np.ndindex(kept.shape):
        corners = BOX[0] + (np.array(index) + np.array(list(np.ndindex(2, 2, 2)))) * size
        for pose, alpha in zip(places, alphas, strict=True):
            local = np.array([pose[:, :3].T @ (corner - pose[:, 3]) for corner in corners])
            if (local[:, 2] >= 0).any():
                continue
            u = 0.52 * WIDTH + focal * local[:, 0] / -local[:, 2]
            v = 0.47 * HEIGHT - 0.95 * focal * local[:, 1] / -local[:, 2]
            if u.min() < 0 or v.min() < 0 or u.max() >= WIDTH or v.max() >= HEIGHT:
                continue
            rows = [r for r in range(HEIGHT) if np.floor(v.min()) - 1 <= r <= np.floor(v.max()) + 1]
            columns = [c for c in range(WIDTH) if np.floor(u.min()) - 1 <= c <= np.floor(u.max()) + 1]
            if not any(alpha[r, c] for r in rows for c in columns):
                kept[index] = False
    return kept


@pytest.mark.parametrize(("resolution", "distance", "seed"), [(5, 3.0, 0), (6, 1.6, 2), (7, 4.0, 5)])
def test_each_cell_is_as_a_loop_finds_it(
    monkeypatch: pytest.MonkeyPatch, resolution: int, distance: float, seed: int
) -> None:
    places = poses(4, seed, distance)
    rng = np.random.default_rng(seed)
    alphas = []
    for share in (0.01, 0.02, 0.01, 0.1):
        alpha = (rng.random((HEIGHT, WIDTH)) < share).astype(np.uint8)  # 1 of 255: all but transparent, yet not fully
        alphas.append(alpha)
    expected = by_loop(places, alphas, resolution)
    assert 0.02 < expected.mean() < 0.99
    for cells in (1 << 20, 60):  # in one piece, and in slabs
        monkeypatch.setattr(hull, "MAX_CELLS", cells)
        found = visual_hull(cameras(places), map(torch.from_numpy, alphas), AABB, resolution)
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("model", [CameraType.PERSPECTIVE, CameraType.FISHEYE])
def test_a_bent_lens_cuts_off_nothing_that_it_shows(model: CameraType) -> None:
    """A small ball drawn where OpenCV projects it to: its cells stay; without the lens some of them would go."""
    places, ball, size, focal = poses(6, 7, 2.6), np.array([0.6, -0.55, 0.4]), (480, 400), 200.0
    k1, k2, p1, p2 = (-0.5, 0.3, 0.004, -0.003) if model == CameraType.PERSPECTIVE else (-0.1, 0.02, 0.0, 0.0)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5000, 3))
    points *= (0.05 * rng.random(5000) ** (1 / 3) / np.linalg.norm(points, axis=-1))[:, None]
    matrix = np.array([[focal, 0, 0.52 * size[0] - 0.5], [0, 0.95 * focal, 0.47 * size[1] - 0.5], [0, 0, 1]])
    alphas = []
    for pose in places:
        local = ((ball + points - pose[:, 3]) @ pose[:, :3]) * (1.0, -1.0, -1.0)
        if model == CameraType.PERSPECTIVE:
            pixels = cv2.projectPoints(local, np.zeros(3), np.zeros(3), matrix, np.array([k1, k2, p1, p2]))[0]
        else:
            bent = np.array([k1, k2, 0.0, 0.0])
            pixels = cv2.fisheye.projectPoints(local[:, None], np.zeros(3), np.zeros(3), matrix, bent)[0]
        columns, rows = np.rint(pixels.reshape(-1, 2)).astype(int).T
        alphas.append(torch.zeros(size[::-1], dtype=torch.uint8))
        alphas[-1][rows, columns] = 255
    params = torch.tensor([k1, k2, 0.0, 0.0, p1, p2])
    bent_cameras = cameras(places, size, focal, distortion_params=params, camera_type=model)
    kept = visual_hull(bent_cameras, alphas, AABB, CELLS).numpy()
    side = (BOX[1] - BOX[0]) / CELLS
    axes = [BOX[0][k] + side[k] * (np.arange(CELLS) + 0.5) for k in range(3)]
    away = np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) - ball, axis=-1)
    assert kept[away < 0.05].all()
    assert kept.mean() < 0.1
    assert not visual_hull(cameras(places, size, focal), alphas, AABB, CELLS).numpy()[away < 0.05].all()


class Work(TorchDispatchMode):
    """Elements that operations read and write; a pooled or convolved output counts each element of its window."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        work = sum(t.numel() for t in tensors)
        if "pool" in func.__name__:
            work *= int(np.prod(args[1]))
        assert "conv" not in func.__name__
        self.elements += work
        return out


def test_work_grows_with_pixels_and_not_with_the_pixels_of_a_cell() -> None:
    def work(scale: int, resolution: int = 12) -> int:
        size = (40 * scale, 30 * scale)
        alphas = [torch.zeros(size[::-1], dtype=torch.uint8) for _ in range(2)]
        for alpha in alphas:
            alpha[10 * scale : 20 * scale, 15 * scale : 25 * scale] = 255
        with Work() as counted:
            visual_hull(cameras(poses(2, 0, 4.0), size, 45.0 * scale), alphas, AABB, resolution)
        return counted.elements

    pixels = 2 * 40 * 30
    one, two, four, eight = (work(scale) for scale in (1, 2, 4, 8))
    for fewer, more, scale in ((one, two, 2), (two, four, 4), (four, eight, 8)):
        added = pixels * (scale**2 - (scale // 2) ** 2)
        assert 0.8 * added < more - fewer < 40 * added  # a bounded number of visits a pixel, however large the image
    cells = 2 * (24**3 - 12**3)
    assert work(1, 24) - one < 300 * cells


class Images:
    """A data set of RGBA images `[H, W, 4]` in memory."""

    def __init__(self, alphas: list[np.ndarray], cameras: Cameras) -> None:
        self.alphas, self.cameras = alphas, cameras
        self.image_filenames = [Path(f"{i}.png") for i in range(len(alphas))]

    def __len__(self) -> int:
        return len(self.alphas)

    def get_numpy_image(self, index: int) -> np.ndarray:
        return np.repeat(self.alphas[index][..., None], 4, axis=2)


def test_a_hull_of_everything_or_nothing_is_said() -> None:
    places, said = poses(3, 0), []
    opaque = [np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)] * 3
    cells = carve(Images(opaque, cameras(places)), AABB, 6, said.append)
    assert cells.all()
    assert said[0].startswith("visual hull: 100 % of 6^3 cells kept, ")
    assert said[1].startswith("warning: the visual hull carves nothing")
    assert len(said) == 2
    clear = [np.zeros((HEIGHT, WIDTH), dtype=np.uint8)] * 3
    with pytest.raises(
        DataError, match=r"^the visual hull of 3 images keeps no cell of the scene box .*occupancy none"
    ):
        carve(Images(clear, cameras(places, focal=9.0)), AABB, 6, said.append)


def test_progress_is_said_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr(hull.time, "monotonic", lambda: float(next(clock)))
    opaque = [np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)] * 3
    said: list[str] = []
    carve(Images(opaque, cameras(poses(3, 0))), AABB, 4, said.append)
    assert [line for line in said if " of 3 images, " in line]


def test_what_cannot_be_carved_is_one_line() -> None:
    places, alpha = poses(1, 0), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    wide = cameras(places, camera_type=CameraType.EQUIRECTANGULAR)
    with pytest.raises(DataError, match=r"training image 0 has a lens of type EQUIRECTANGULAR: .*occupancy none"):
        carve(Images([alpha], wide), AABB, 4, print)
    with pytest.raises(DataError, match="training image 0 is 23x16 pixels where its camera has 23x17"):
        carve(Images([alpha[1:]], cameras(places)), AABB, 4, print)
