"""Inference plans for a bundle's networks, made from what they are given in its own test views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.choices import Backend, PlanDtype
from eugen_nerf.core.inference.plan import InferencePlan, make_plan
from eugen_nerf.core.inference.plan_backends import has_other_gpu, machine_plan
from eugen_nerf.core.timing import medians, time_interleaved

VIEWS = 4
"""Test views that are looked at, at most."""
HEIGHT = 48
"""Rows of their images, at most."""
SAMPLES = 4096
"""Inputs of a network on which its plan's deviation is measured, at most."""
MIN_PSNR = 50.0
"""dB to the image in float32, below which products stay float32. An image of 30 dB to photographs loses up to
0.05 dB at 49.4, where the two errors have nothing to do with each other."""


@torch.no_grad()
def plan_bundle(field: BundledField, *, adapters: bool = True) -> dict[str, InferencePlan]:
    """Gives the networks of a bundle that renders, proposals among them, the plans that are fastest on its device.

    Products are bfloat16 where the device multiplies it fast and images of test views hardly change (`MIN_PSNR`).
    Networks whose inputs no test view shows, and those of float64, stay as they are, and so do gradients.

    Args:
        field: on the device that it is to run on; it is changed.
        adapters: whether a GPU that torch cannot use may evaluate networks on the CPU (backend wgpu): it does where
            images of test views are rendered faster so. One in software is never taken.

    Returns:
        The plans by the networks' module names.

    Raises:
        ConfigError: the bundle cannot be rendered.

    Examples:
        Needs a bundle of a trained run, which `eugen-distill` writes:

        >>> from eugen_nerf.core import load_bundle, plan_bundle
        >>> field = load_bundle("fox")  # doctest: +SKIP
        >>> plan_bundle(field)["network"].dtype  # doctest: +SKIP
        'bfloat16'
        >>> image = field.render(field.cameras[0]).colour  # doctest: +SKIP
    """
    field.rendered_scene()
    networks = {name: part for name, part in field.named_modules() if isinstance(part, BundledGraph)}
    for network in networks.values():
        network.plan = None
    cameras = [c.resized(min(HEIGHT, c.height)) for c in field.cameras[:: max(1, len(field.cameras) // VIEWS)][:VIEWS]]
    inputs, exact = _inputs_in(field, cameras, networks)
    device = next(field.buffers()).device
    backend, dtype = machine_plan(device)
    plans = _plan(networks, inputs, backend, dtype)
    if dtype != "float32" and plans and _psnr(exact, _images(field, cameras)) < MIN_PSNR:
        plans = _plan(networks, inputs, backend, "float32")
    if adapters and has_other_gpu(device):
        plans = _faster(field, cameras, networks, plans, _plan(networks, inputs, "wgpu", "float32"))
    return plans


def _faster(
    field: BundledField,
    cameras: Sequence[PinholeCamera],
    networks: dict[str, BundledGraph],
    *choices: dict[str, InferencePlan],
) -> dict[str, InferencePlan]:
    """Those plans, of the same networks, by which images are rendered in the least time; the networks have them."""

    def set_plans(number: int) -> None:
        for name, plan in choices[number].items():
            networks[name].plan = plan

    def render(number: int) -> None:
        set_plans(number)
        _images(field, cameras)

    ways = {str(number): partial(render, number) for number in range(len(choices))}
    seconds = medians(time_interleaved(ways, warmup=1, repeats=3, device="cpu"))
    best = int(min(seconds, key=lambda name: seconds[name]))
    set_plans(best)
    return choices[best]


def _images(field: BundledField, cameras: Sequence[PinholeCamera]) -> list[Tensor]:
    return [field.render(camera).colour for camera in cameras]


def _inputs_in(
    field: BundledField, cameras: Sequence[PinholeCamera], networks: dict[str, BundledGraph]
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """What networks are given while cameras are rendered, `[n, d_i]` each, and the images."""
    calls: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in networks}

    def note(name: str, _: object, inputs: tuple[Tensor, ...]) -> None:
        if not any(x.requires_grad for x in inputs):
            rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
            chosen = slice(None, None, max(1, len(rows[0]) // SAMPLES))
            calls[name].append(tuple(x[chosen].clone() for x in rows))

    hooks = [n.register_forward_pre_hook(partial(note, name)) for name, n in networks.items()]
    try:
        images = _images(field, cameras)
    finally:
        for hook in hooks:
            hook.remove()
    found = {name: [torch.cat(values) for values in zip(*given, strict=True)] for name, given in calls.items() if given}
    strides = {name: max(1, len(values[0]) // SAMPLES) for name, values in found.items()}
    return {name: [x[:: strides[name]] for x in values] for name, values in found.items() if len(values[0])}, images


def _plan(
    networks: dict[str, BundledGraph], inputs: dict[str, list[Tensor]], backend: Backend, dtype: PlanDtype
) -> dict[str, InferencePlan]:
    plans = {}
    for name, rows in inputs.items():
        if networks[name].dtype != torch.float64:
            plans[name] = networks[name].plan = make_plan(networks[name], rows, backend=backend, dtype=dtype)
    return plans


def _psnr(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """dB of one set of images to another; infinite where they are equal."""
    error = torch.cat([(a - b).square().flatten() for a, b in zip(first, second, strict=True)]).mean()
    return -10 * math.log10(float(error)) if error > 0 else math.inf
