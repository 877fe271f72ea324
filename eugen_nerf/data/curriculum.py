"""Images of a moving scene, revealed in the order of their times, as the curriculum of D-NeRF (arXiv 2011.13961)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.data.manager import EugenDataManager, EugenDataManagerConfig

FIRST_IMAGES = 3
"""Fewest images at the start: one alone says nothing of a shape."""
FIRST_SHARE = 0.1
"""Share of the images, the earliest, that is there from the start."""
HOLD_SHARE = 0.25
"""Share of the steps of the curriculum before further images follow: what moves can be followed only once the scene
that it moves in is learned."""


@dataclass
class CurriculumDataManagerConfig(EugenDataManagerConfig):
    """A data manager for scenes that move."""

    _target: type = field(default_factory=lambda: CurriculumDataManager)
    """Target class to instantiate."""
    reveal_steps: int = 0
    """Step at which all training images are revealed; before, they are in the order of their times, the earliest tenth
    alone for a quarter of those steps. 0: all are there from the start."""


class CurriculumDataManager(EugenDataManager):
    """`EugenDataManager` that draws the first steps' rays from the earliest images.

    A deformation finds a small movement by gradient descent, and none at all once its objects no longer overlap: from a
    scene that is learned at time 0, it follows what moves as later images appear.

    Raises:
        ConfigError: images that are not all kept in memory, or a negative number of steps.
        DataError: images without times.
    """

    @property
    def reveal_steps(self) -> int:
        """As configured; 0 for runs that were trained before there was a curriculum, whose configuration is another."""
        return self.config.reveal_steps if isinstance(self.config, CurriculumDataManagerConfig) else 0

    def setup_train(self) -> None:
        """As nerfstudio's; images that are revealed by and by are sorted by time once."""
        if self.reveal_steps < 0:
            raise ConfigError(f"reveal_steps is {self.reveal_steps}; take 0 (all at once) or more")
        super().setup_train()
        if self.reveal_steps == 0:
            return
        images, times = self.train_image_dataloader.cached_collated_batch, self.train_dataset.cameras.times
        if times is None:
            raise DataError("the images have no times to be revealed by: take data with `time`, or reveal_steps 0")
        if images is None:
            raise ConfigError(
                "images are revealed out of memory: leave train_num_images_to_sample_from at -1, or take reveal_steps 0"
            )
        order = torch.argsort(times.flatten().cpu()[images["image_idx"].cpu()], stable=True)
        self.train_image_dataloader.cached_collated_batch = {key: _taken(v, order) for key, v in images.items()}

    def revealed(self, step: int) -> int:
        """Number of images, the earliest first, that a step draws its rays from."""
        count = len(self.train_dataset)
        if step >= self.reveal_steps:
            return count
        held = HOLD_SHARE * self.reveal_steps
        later = max(0.0, step - held) / (self.reveal_steps - held)
        return min(count, max(FIRST_IMAGES, int(count * (FIRST_SHARE + (1.0 - FIRST_SHARE) * later))))

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """A batch of rays of the revealed images, and what was seen along them."""
        count = self.revealed(step)
        if count == len(self.train_dataset):
            return super().next_train(step)
        self.train_count += 1
        images = {key: values[:count] for key, values in next(self.iter_train_image_dataloader).items()}
        assert self.train_pixel_sampler is not None
        batch = self.train_pixel_sampler.sample(images)
        return self.train_ray_generator(batch["indices"]), self.sent(batch)


def _taken(values: Tensor | list[Tensor], order: Tensor) -> Tensor | list[Tensor]:
    """Entries in an order; images of different sizes come as a list."""
    return values[order.to(values.device)] if isinstance(values, Tensor) else [values[i] for i in order.tolist()]
