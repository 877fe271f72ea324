"""Photographs as nerfstudio's data set hands them out, and pixels drawn from them."""

from __future__ import annotations

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor


class PhotographDataset(InputDataset):
    """`InputDataset` that turns a photograph by its EXIF orientation where the camera counts that in.

    A camera that is as wide as the stored picture is high, and the reverse, was computed from the turned one.
    """

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        """Pixels [H, W, 3 or 4]."""
        cameras = self._dataparser_outputs.cameras
        camera = (int(cameras.width[image_idx]), int(cameras.height[image_idx]))
        with Image.open(self.image_filenames[image_idx]) as stored:
            if stored.size == camera or stored.size[::-1] != camera:
                return super().get_numpy_image(image_idx)
            image = ImageOps.exif_transpose(stored)
        if self.scale_factor != 1.0:
            size = (int(image.width * self.scale_factor), int(image.height * self.scale_factor))
            image = image.resize(size, resample=Image.Resampling.BILINEAR)
        pixels = np.array(image, dtype=np.uint8)
        return pixels[:, :, None].repeat(3, axis=2) if pixels.ndim == 2 else pixels


class MaskedPixelSampler(PixelSampler):
    """nerfstudio's sampler, but for masks of a single image, and of fewer pixels than a batch has."""

    def rejection_sample_mask(
        self,
        mask: Tensor,
        num_samples: int,
        num_images: int,
        image_height: int,
        image_width: int,
        device: torch.device | str,
    ) -> Tensor:
        """Pixels [num_samples, 3] (image, row, column) of a mask [num_images, H, W, 1], perhaps one twice."""
        mask = mask.reshape(num_images, image_height, image_width).to(device)
        shape = torch.tensor(mask.shape, device=device)
        chosen = (torch.rand((num_samples, 3), device=device) * shape).long()
        for _ in range(self.config.max_num_iterations):
            out = ~mask[tuple(chosen.T)]
            count = int(out.sum())
            if not count:
                return chosen
            chosen[out] = (torch.rand((count, 3), device=device) * shape).long()
        out = ~mask[tuple(chosen.T)]  # few pixels are left in: list them
        left = mask.nonzero()
        chosen[out] = left[torch.randint(len(left), (int(out.sum()),), device=device)]
        return chosen
