"""Samples to fit on: rays of the training views, and the network inputs the teacher asks along them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core.convert import Batch
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.fields.nerf import NeRFField
from eugen_nerf.fields.occupancy import query_occupied
from eugen_nerf.methods.nerf import EugenNerfModel

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


def network_inputs(
    model: EugenNerfModel, cameras: Cameras, rays: Tensor, which: Literal["coarse", "fine"]
) -> Callable[[], Iterator[Batch]]:
    """Batches of what the coarse or fine network is asked along rays, as `convert_graph` takes them.

    The samples are the ones evaluation takes: bin centres for the coarse field, the teacher's coarse weights for the
    fine one, empty cells left out. They are made anew on each pass, so memory does not grow with the number of rays.
    Half of a batch's mass is spread evenly over its samples, half by the teacher's rendering weights: what is seen
    counts more, and what is not seen must still stay empty.

    Args:
        model: teacher, in evaluation mode.
        cameras: the training cameras.
        rays: from `choose_rays`.
        which: whose inputs.
    """
    field: NeRFField = getattr(model, f"field_{which}")
    device_cameras = cameras.to(model.device)

    def batches() -> Iterator[Batch]:
        for part in rays.split(RAYS_PER_BATCH):
            with torch.no_grad():
                samples, weights = _samples(model, _bundle(device_cameras, part.to(model.device)), which)
                yield Batch(field.encode(samples), 0.5 + 0.5 * weights / weights.mean().clamp_min(1e-6))

    return batches


def _bundle(cameras: Cameras, rays: Tensor) -> RayBundle:
    coords = rays[:, 1:].float() + 0.5  # rows and columns of pixel centres
    return cameras.generate_rays(camera_indices=rays[:, :1], coords=coords)


def _samples(model: EugenNerfModel, bundle: RayBundle, which: str) -> tuple[RaySamples, Tensor]:
    """Samples `[n]` and the teacher's rendering weights there, `[n]`."""
    if model.collider is not None:
        bundle = model.collider(bundle)
    samples, outputs, weights = model.sample_coarse(bundle)
    if which == "fine":
        samples = model.sampler_pdf(bundle, samples, weights)
        outputs = query_occupied(model.field_fine, samples, model.occupancy)
        weights = samples.get_weights(outputs[FieldHeadNames.DENSITY])
    if model.occupancy is None:
        return samples.flatten(), weights.flatten()
    mask = model.occupancy.occupied(samples.frustums.get_positions())
    # an empty batch breaks nerfstudio's encodings; one sample of empty space does no harm to a fit
    mask[0, 0] |= ~mask.any()
    return samples[mask], weights[..., 0][mask]
