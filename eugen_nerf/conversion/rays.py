"""Samples to fit on: rays of the training views, and the network inputs the teacher asks along them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from torch import Tensor

from eugen_nerf.core.convert import Batch
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.base import GraphModel

RAYS_PER_BATCH = 64


def choose_rays(cameras: Cameras, fraction: float, limit: int, seed: int) -> Tensor:
    """Pixels of the training views, drawn without replacement.

    Args:
        cameras: the training cameras.
        fraction: of all their pixels, in (0, 1].
        limit: largest number of rays.
        seed: of the draw.

    Returns:
        int64 `[rays, 3]`: camera, row, column, in random order.

    Raises:
        ConfigError: a fraction outside (0, 1], or so few rays that none could be held out.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"the fraction of rays must be in (0, 1], got {fraction}")
    sizes = (cameras.height.flatten() * cameras.width.flatten()).long().cpu()
    total = int(sizes.sum())
    count = min(limit, round(fraction * total))
    if count < 5 * RAYS_PER_BATCH:
        raise ConfigError(
            f"{count} rays ({fraction:g} of {total} pixels, at most {limit}) are too few to fit and to hold some out; "
            f"take at least {5 * RAYS_PER_BATCH} by a larger --ray-fraction or --max-rays"
        )
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(total, generator=generator)[:count]
    ends = sizes.cumsum(0)
    camera = torch.searchsorted(ends, flat, right=True)
    pixel = flat - (ends - sizes)[camera]
    width = cameras.width.flatten().cpu()[camera].long()
    return torch.stack([camera, pixel // width, pixel % width], dim=1)


def training_cameras(datamanager: object) -> Cameras:
    """The cameras of a run's training views.

    Raises:
        RunError: a data manager that does not hold them.
    """
    if not isinstance(datamanager, VanillaDataManager):
        raise RunError(f"{type(datamanager).__name__} holds no training cameras; eugen-distill needs a ray-based run")
    return datamanager.train_dataset.cameras


def network_inputs(model: GraphModel, cameras: Cameras, rays: Tensor, name: str) -> Callable[[], Iterator[Batch]]:
    """Batches of what the network of one field is asked along rays, as `convert_graph` takes them.

    The samples are the ones evaluation takes, placed by the teacher. They are made anew on each pass, so memory does
    not grow with the number of rays. Half of a batch's mass is spread evenly over its samples, half by the teacher's
    rendering weights: what is seen counts more, and what is not seen must still stay empty.

    Args:
        model: teacher, in evaluation mode.
        cameras: the training cameras.
        rays: from `choose_rays`.
        name: of the field.
    """
    device_cameras = cameras.to(model.device)

    def batches() -> Iterator[Batch]:
        for part in rays.split(RAYS_PER_BATCH):
            with torch.no_grad():
                bundle = _bundle(device_cameras, part.to(model.device))
                if model.collider is not None:
                    bundle = model.collider(bundle)
                inputs, weights = model.field_samples(bundle, name)
                yield Batch(inputs, 0.5 + 0.5 * weights / weights.mean().clamp_min(1e-6))

    return batches


def _bundle(cameras: Cameras, rays: Tensor) -> RayBundle:
    coords = rays[:, 1:].float() + 0.5  # rows and columns of pixel centres
    return cameras.generate_rays(camera_indices=rays[:, :1], coords=coords)
