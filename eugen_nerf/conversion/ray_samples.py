"""Samples to fit on: rays of the training views, a network's inputs along them, gradients of rendered colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.core import Batch
from eugen_nerf.core.distributed import is_mine
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.graph_model import GraphModel

RAYS_PER_BATCH = 64
COLOURS = ("rgb", "rgb_fine", "rgb_coarse")
"""A model's rendered colours, the final ones first; a coarse field is judged by the image that it renders itself."""


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


def training_views(datamanager: object) -> InputDataset:
    """A run's training views.

    Raises:
        RunError: a data manager that does not hold them.
    """
    views = getattr(datamanager, "train_dataset", None)
    if not isinstance(getattr(views, "cameras", None), Cameras):
        raise RunError(f"{type(datamanager).__name__} holds no training cameras; eugen-distill needs a ray-based run")
    return cast(InputDataset, views)


def network_inputs(model: GraphModel, cameras: Cameras, rays: Tensor, name: str) -> Callable[[], Iterator[Batch]]:
    """Batches of inputs of one field's network along rays, as `convert_graph` takes them.

    The samples are the ones evaluation takes, placed by the teacher. They are made anew on each pass, so memory does
    not grow with the number of rays. Half of a batch's mass is spread evenly over its samples, half by the teacher's
    rendering weights: what contributes to an image counts more, and what does not must still stay empty.

    Args:
        model: teacher, in evaluation mode.
        cameras: the training cameras.
        rays: from `choose_rays`.
        name: of the field.
    """
    device_cameras = cameras.to(model.device)

    def batches() -> Iterator[Batch]:
        for number, part in enumerate(rays.split(RAYS_PER_BATCH)):
            if not is_mine(number):
                continue
            with torch.no_grad():
                bundle = ray_bundle(device_cameras, part.to(model.device))
                if model.collider is not None:
                    bundle = model.collider(bundle)
                inputs, weights = model.field_samples(bundle, name)
                yield Batch(inputs, 0.5 + 0.5 * weights / weights.mean().clamp_min(1e-6), number=number)

    return batches


def gradient_inputs(model: GraphModel, cameras: Cameras, rays: Tensor, name: str) -> Callable[[], Iterator[Batch]]:
    """As `network_inputs`, with the gradients of rendered colours with respect to the network's outputs.

    A ray's colours are combined with random signs (Hutchinson's estimate of the sum over channels); its samples are
    those that rendering evaluates. A model that renders no images is judged by its output itself.

    Args:
        model: teacher, in evaluation mode; its outputs are `COLOURS`.
        cameras: the training cameras.
        rays: from `choose_rays`.
        name: of the field.
    """
    device_cameras = cameras.to(model.device)
    network = model.graph_fields()[name].network

    def outputs_alone() -> Iterator[Batch]:
        for batch in network_inputs(model, cameras, rays, name)():
            ones = tuple(batch.inputs[0].new_ones(len(batch.inputs[0]), network.width(v)) for v in network.outputs)
            yield batch._replace(cotangents=ones)

    if not model.renders_colours:
        return outputs_alone

    def batches() -> Iterator[Batch]:
        for number, part in enumerate(rays.split(RAYS_PER_BATCH)):
            if not is_mine(number):
                continue
            generator = torch.Generator().manual_seed(number)
            calls: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []

            def watch(_: object, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                leaves = tuple(v.detach().requires_grad_() for v in outputs)
                calls.append((tuple(x.detach().flatten(0, -2) for x in inputs), leaves))  # noqa: B023
                return leaves

            handle = network.register_forward_hook(watch)
            try:
                with torch.enable_grad():
                    colours = rendered_colours(model, ray_bundle(device_cameras, part.to(model.device)))
                    signs = [(torch.rand(v.shape, generator=generator) < 0.5).to(v) * 2 - 1 for v in colours]
                    leaves = [leaf for _, each in calls for leaf in each]
                    gradients = torch.autograd.grad(colours, leaves, signs, allow_unused=True)
            finally:
                handle.remove()
            filled = iter([torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)])
            for inputs, each in calls:
                cotangents = tuple(next(filled).flatten(0, -2) for _ in each)
                mass = torch.cat(cotangents, dim=-1).square().sum(dim=-1)
                yield Batch(inputs, 0.5 + 0.5 * mass / mass.mean().clamp_min(1e-12), cotangents, number)

    return batches


def ray_bundle(cameras: Cameras, rays: Tensor) -> RayBundle:
    """Rays through the middles of pixels `[rays, 3]` (camera, row, column), `[rays]`."""
    coords = rays[:, 1:].float() + 0.5  # rows and columns of pixel centres
    return cameras.generate_rays(camera_indices=rays[:, :1], coords=coords)


def rendered_colours(model: Model, bundle: RayBundle) -> list[Tensor]:
    """Colours that a model renders along rays: the final ones `[rays, 3]`, then those of a coarse field.

    Poses that the run has optimised are used, as in training: evaluation's own views have none, training views do.

    Raises:
        RunError: a model that renders no images.
    """
    optimizer = getattr(model, "camera_optimizer", None)
    if optimizer is not None and not model.training:
        optimizer.apply_to_raybundle(bundle)
    outputs = model.forward(bundle)
    colours = [outputs[key] for key in COLOURS if isinstance(outputs.get(key), Tensor)]
    if not colours:
        raise RunError(f"{type(model).__name__} renders no images: its outputs are {', '.join(outputs)}")
    return cast(list[Tensor], colours)


def blended(model: Model, pixels: Tensor) -> Tensor:
    """Pixels `[n, 3]` or, with alpha, `[n, 4]`, on the background that the model is compared before: `[n, 3]`."""
    renderer = model.renderer_rgb
    assert isinstance(renderer, RGBRenderer)
    return renderer.blend_background(pixels)
