"""Samples to fit on: a network's inputs along rays of the training views, and gradients of rendered colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from eugen_nerf.core import Batch
from eugen_nerf.core.distributed import is_mine
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.training_rays import RAYS_PER_BATCH, ray_bundle, rendered_colours


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
