"""Rays through measured pixels of depth images, and surface normals by finite differences."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from numpy.typing import NDArray
from torch import Tensor

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.rgbd.rgbd_images import load_color, load_depth_of

METADATA_KEYS = (
    "depth_filenames", "depth_unit_scale_factor", "depth_invalid", "depth_max", "timestamps", "depth_masks", "lenses",
)  # fmt: skip


class RGBDDataset(InputDataset):
    """Images with depth: items also hold `depth_image` `[h, w, 1]` along the optical axis, metres, NaN where unknown.

    Raises:
        DataError: the parser provides no depth.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        missing = [key for key in METADATA_KEYS if key not in dataparser_outputs.metadata]
        if missing:
            raise DataError(
                f"the data parser provides no {', '.join(missing)}: this method needs depth images; use the data "
                "parser eugen-rgbd"
            )
        super().__init__(dataparser_outputs, scale_factor)

    def depth(self, index: int) -> Tensor:
        """Depth along the optical axis, float32 `[h, w]` in metres, NaN where unknown; of the size of the camera.

        Raises:
            DataError: the file is damaged.
        """
        depth = load_depth_of(self.metadata, index)
        # nearest pixel: interpolation across an edge would invent a surface
        return torch.from_numpy(cv2.resize(depth, self._size(index), interpolation=cv2.INTER_NEAREST_EXACT))

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        """A colour image `[h, w, 3 or 4]` of the depth image's pixels, as a pinhole camera shows it."""
        path = self.image_filenames[image_idx]
        return load_color(path, self._size(image_idx), self.metadata["lenses"][image_idx])

    def _size(self, index: int) -> tuple[int, int]:
        """Width and height of a camera's images."""
        return int(self.cameras.width[index]), int(self.cameras.height[index])

    def get_metadata(self, data: dict) -> dict[str, Tensor]:
        """The depth image of an item."""
        return {"depth_image": self.depth(data["image_idx"])[..., None]}


@dataclass(frozen=True)
class DepthFrame:
    """A depth image and its valid pixels."""

    depth: Tensor  # float32 [h, w], metres along the optical axis, NaN where unknown
    valid: Tensor  # int32 [n], flat indices of pixels with a depth

    @classmethod
    def of(cls, depth: Tensor) -> DepthFrame:
        """The frame of a depth image."""
        return cls(depth, depth.flatten().isfinite().nonzero()[:, 0].int())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Pixels with a depth, int64 `[count, 2]` rows and columns, drawn uniformly with replacement."""
        places = torch.randint(len(self.valid), (count,), generator=generator).to(self.valid.device)
        flat = self.valid[places].long()
        return torch.stack([flat // self.depth.shape[1], flat % self.depth.shape[1]], dim=-1)


def depth_normals(depth: Tensor, pixels: Tensor, directions: Tensor, camera: Cameras, step: int) -> Tensor:
    """Unit normals towards the camera at pixels of a depth image.

    Along each axis, the central difference is used if the two one-sided differences agree, else the shorter of the two:
    a difference across an edge belongs to no surface.

    Args:
        depth: `[h, w]`, metres along the optical axis, NaN where unknown.
        pixels: int64 `[R, 2]`, rows and columns.
        directions: `[R, 3]`, from the camera through the pixels in the world, of the length of one metre of depth.
        camera: one pinhole camera.
        step: distance of the neighbours, pixels.

    Returns:
        `[R, 3]` in the world, NaN for a pixel without a valid neighbour along one of the axes.
    """
    pose = camera.camera_to_worlds
    right, down = pose[:, 0] / camera.fx, -pose[:, 1] / camera.fy
    here = directions * depth[pixels[:, 0], pixels[:, 1]][:, None]
    differences = []
    for axis, shift in ((1, right), (0, down)):
        sides = []
        for sign in (1, -1):
            at = pixels.clone()
            at[:, axis] += sign * step
            inside = (at[:, axis] >= 0) & (at[:, axis] < depth.shape[axis])
            at[:, axis].clamp_(0, depth.shape[axis] - 1)
            z = torch.where(inside, depth[at[:, 0], at[:, 1]], torch.nan)
            sides.append(sign * ((directions + sign * step * shift) * z[:, None] - here))
        differences.append(_smoother(*sides))
    normals = torch.linalg.cross(*differences, dim=-1)
    normals = normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.where((normals * directions).sum(-1, keepdim=True) > 0, -normals, normals)


def _smoother(forward: Tensor, backward: Tensor) -> Tensor:
    """The mean of two differences `[R, 3]` that agree, else the shorter one, else the known one."""
    a, b = forward.norm(dim=-1, keepdim=True), backward.norm(dim=-1, keepdim=True)
    continues = (forward - backward).norm(dim=-1, keepdim=True) < 0.5 * torch.minimum(a, b)
    nearer = torch.where((a <= b) | b.isnan(), forward, backward)
    return torch.where(continues, 0.5 * (forward + backward), nearer)
