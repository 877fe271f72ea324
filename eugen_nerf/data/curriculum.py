"""Curriculum of D-NeRF (arXiv 2011.13961): images of a moving scene are revealed in the order of their times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.manager import EugenDataManager, EugenDataManagerConfig

FIRST_IMAGES = 3
"""Minimum number of images at the start: a single one does not determine a shape."""
FIRST_SHARE = 0.1
"""Share of the images, the earliest ones, that is available from the start."""
HOLD_SHARE = 0.25
"""Share of the curriculum's steps before further images follow. Motion can be learned only after the scene in which it
happens."""


@dataclass
class CurriculumDataManagerConfig(EugenDataManagerConfig):
    """A data manager for dynamic scenes."""

    _target: type = field(default_factory=lambda: CurriculumDataManager)
    """Target class to instantiate."""
    reveal_steps: int = 0
    """Step at which all training images are revealed. Before it they are revealed in the order of their times; for a
    quarter of these steps only the earliest tenth is used. 0: all are used from the start."""


class CurriculumDataManager(EugenDataManager):
    """`EugenDataManager` that draws the first steps' rays from the earliest images.

    Gradient descent finds a deformation only while an object overlaps its position in the canonical scene. So the scene
    is learned at time 0 first, and the deformation follows the motion as later images are revealed.

    Raises:
        ConfigError: images that are not all kept in memory, or a negative number of steps.
        DataError: images without times.
    """

    @property
    def reveal_steps(self) -> int:
        """As configured; 0 for runs trained before the curriculum existed, whose config class has no such field."""
        return self.config.reveal_steps if isinstance(self.config, CurriculumDataManagerConfig) else 0

    def setup_train(self) -> None:
        """As nerfstudio's; images that are revealed gradually are sorted by time once."""
        if self.reveal_steps < 0:
            raise ConfigError(f"reveal_steps is {self.reveal_steps}; set 0 (all at once) or more")
        super().setup_train()
        if self.reveal_steps == 0:
            return
        images, times = self.train_image_dataloader.cached_collated_batch, self.train_dataset.cameras.times
        if times is None:
            raise DataError(
                "images are revealed by time, but they have none: use data with `time`, or set reveal_steps to 0"
            )
        if images is None:
            raise ConfigError(
                "images are revealed from memory: leave train_num_images_to_sample_from at -1, or set reveal_steps to 0"
            )
        order = torch.argsort(times.flatten().cpu()[images["image_idx"].cpu()], stable=True)
        self.train_image_dataloader.cached_collated_batch = {key: _reordered(v, order) for key, v in images.items()}

    def revealed(self, step: int) -> int:
        """Number of images, the earliest first, from which a step draws its rays."""
        count = len(self.train_dataset)
        if step >= self.reveal_steps:
            return count
        held = HOLD_SHARE * self.reveal_steps
        later = max(0.0, step - held) / (self.reveal_steps - held)
        return min(count, max(FIRST_IMAGES, int(count * (FIRST_SHARE + (1.0 - FIRST_SHARE) * later))))

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """A batch of rays through the revealed images, and their pixels."""
        count = self.revealed(step)
        if count == len(self.train_dataset):
            return super().next_train(step)
        self.train_count += 1
        images = {key: values[:count] for key, values in next(self.iter_train_image_dataloader).items()}
        assert self.train_pixel_sampler is not None
        batch = self.train_pixel_sampler.sample(images)
        return self.train_ray_generator(batch["indices"]), self.send_to_device(batch)


def _reordered(values: Tensor | list[Tensor], order: Tensor) -> Tensor | list[Tensor]:
    """Entries in a new order; images of different sizes are a list."""
    return values[order.to(values.device)] if isinstance(values, Tensor) else [values[i] for i in order.tolist()]
