"""nerfstudio's data set for photographs, and its sampler of pixels with masks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSampler
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eugen_nerf.data.images.pixels import mask_pixels, photograph_pixels


class PhotographDataset(InputDataset):
    """`InputDataset` that reads the pixel formats of `pixels.py`.

    A photograph is rotated by its EXIF orientation if its camera's width and height are swapped against the stored
    image: such a camera was computed from the rotated image.
    """

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        """Pixels [H, W, 3 or 4]."""
        cameras = self._dataparser_outputs.cameras
        camera = (int(cameras.width[image_idx]), int(cameras.height[image_idx]))
        pixels = photograph_pixels(self.image_filenames[image_idx], camera=camera)
        return self._scaled(pixels, Image.Resampling.BILINEAR)

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """An image [H, W, 3 or 4], its mask bool [H, W, 1] if the data set has masks, and its index."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        data: dict[str, Any] = {"image_idx": image_idx, "image": image}
        masks = self._dataparser_outputs.mask_filenames
        if masks is not None:
            mask = mask_pixels(masks[image_idx]).astype(np.uint8)
            data["mask"] = torch.from_numpy(self._scaled(mask, Image.Resampling.NEAREST)).bool()[..., None]
            if self.mask_color:
                data["image"] = torch.where(data["mask"], image, torch.tensor(self.mask_color))
        return data | self.get_metadata(data)

    def _scaled(self, pixels: NDArray[np.uint8], method: Image.Resampling) -> NDArray[np.uint8]:
        """Pixels at the data set's scale."""
        if self.scale_factor == 1.0:
            return pixels
        height, width = (int(side * self.scale_factor) for side in pixels.shape[:2])
        return np.array(Image.fromarray(pixels).resize((width, height), resample=method))


class MaskedPixelSampler(PixelSampler):
    """nerfstudio's sampler, which also takes the mask of a single image, and masks with fewer pixels than a batch."""

    def rejection_sample_mask(
        self,
        mask: Tensor,
        num_samples: int,
        num_images: int,
        image_height: int,
        image_width: int,
        device: torch.device | str,
    ) -> Tensor:
        """Pixels [num_samples, 3] (image, row, column) of a mask [num_images, H, W, 1], drawn with replacement."""
        mask = mask.reshape(num_images, image_height, image_width).to(device)
        shape = torch.tensor(mask.shape, device=device)
        chosen = (torch.rand((num_samples, 3), device=device) * shape).long()
        for _ in range(self.config.max_num_iterations):
            out = ~mask[tuple(chosen.T)]
            count = int(out.sum())
            if not count:
                return chosen
            chosen[out] = (torch.rand((count, 3), device=device) * shape).long()
        out = ~mask[tuple(chosen.T)]  # few pixels are kept: draw from their list
        left = mask.nonzero()
        chosen[out] = left[torch.randint(len(left), (int(out.sum()),), device=device)]
        return chosen
