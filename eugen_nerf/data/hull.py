"""The visual hull of an object photographed on a transparent background: where it can possibly be."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from eugen_nerf.core.errors import DataError


def dataset_alphas(dataset: InputDataset) -> list[Tensor]:
    """Alpha channel of each image, `[H, W]` in [0, 1].

    Raises:
        DataError: an image without an alpha channel.
    """
    alphas = []
    for i in range(len(dataset)):
        image = dataset.get_numpy_image(i)
        if image.shape[-1] != 4:
            raise DataError(
                f"{dataset.image_filenames[i]} has no alpha channel, and a visual hull is carved from alpha: "
                "use RGBA images or --pipeline.model.occupancy none"
            )
        alphas.append(torch.from_numpy(image[..., 3].astype(np.float32) / 255))
    return alphas


def visual_hull(cameras: Cameras, alphas: list[Tensor], aabb: Tensor, resolution: int) -> Tensor:
    """Cells that no image shows to be empty.

    A cell is kept when in every view its centre falls outside the image or within half a cell's diagonal of a pixel
    that is not fully transparent: conservative, so nothing visible is cut off. Pinhole cameras without distortion.

    Args:
        cameras: one for each image, OpenGL convention (looking along -z).
        alphas: `[H, W]` each.
        aabb: box corners, `[2, 3]`.
        resolution: cells along each side.

    Returns:
        bool `[resolution, resolution, resolution]`, indexed x, y, z.
    """
    axes = [torch.linspace(0.5, resolution - 0.5, resolution) / resolution for _ in range(3)]
    size = (aabb[1] - aabb[0]).cpu()
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3) * size + aabb[0].cpu()
    half_diagonal = 0.5 * math.sqrt(float(((size / resolution) ** 2).sum()))
    kept = torch.ones(len(centres), dtype=torch.bool)
    for i, alpha in enumerate(alphas):
        pose = cameras.camera_to_worlds[i].cpu()
        local = (centres - pose[:, 3]) @ pose[:, :3]
        depth = -local[:, 2]
        fx, fy = float(cameras.fx[i]), float(cameras.fy[i])
        ahead = depth > half_diagonal
        z = depth.clamp_min(half_diagonal)
        column = torch.floor(local[:, 0] / z * fx + float(cameras.cx[i])).long()
        row = torch.floor(-local[:, 1] / z * fy + float(cameras.cy[i])).long()
        height, width = alpha.shape
        seen = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        radius = math.ceil(half_diagonal * max(fx, fy) / float(depth.min().clamp_min(2 * half_diagonal))) + 1
        spread = F.max_pool2d(alpha[None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]
        hit = spread[row.clamp(0, height - 1), column.clamp(0, width - 1)] > 0
        kept &= ~seen | hit
    return kept.reshape(resolution, resolution, resolution)
