"""Calls of the fields of a stock run along rays. nerfstudio calls their methods, so these are recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.models.base_model import Model
from torch import Tensor, nn

from eugen_nerf.core import Weighted
from eugen_nerf.methods.runs.training_rays import RAYS_PER_BATCH, ray_bundle


@dataclass(frozen=True)
class FieldCall:
    """One call of a field's method."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def record_field_calls(
    teacher: Model, names: Sequence[str], cameras: Cameras, rays: Tensor
) -> dict[str, list[Weighted | FieldCall]]:
    """The calls of each field along rays, with weights where it renders them.

    Args:
        teacher: in evaluation mode; unchanged.
        names: of its fields.
        cameras: the training cameras.
        rays: from `choose_rays`.
    """
    device_cameras = cameras.to(teacher.device)
    kept: dict[str, list[Weighted | FieldCall]] = {name: [] for name in names}
    with torch.no_grad():
        for part in rays.split(RAYS_PER_BATCH):
            with _recording(teacher, names) as recorded:
                teacher(ray_bundle(device_cameras, part.to(teacher.device)))
            for name, calls in recorded.items():
                kept[name] += [_weighted(call, output) for call, output in calls]
    return kept


@contextmanager
def _recording(model: Model, names: Sequence[str]) -> Iterator[dict[str, list[tuple[FieldCall, Any]]]]:
    """Within it, notes the calls of fields and their outputs.

    nerfstudio calls methods of fields, not the fields, so that hooks see nothing: the methods are covered.
    """
    recorded: dict[str, list[tuple[FieldCall, Any]]] = {name: [] for name in names}
    covered: list[tuple[nn.Module, str]] = []
    busy: set[str] = set()

    def cover(name: str, method: str) -> None:
        module = model.get_submodule(name)
        original = getattr(module, method)

        def note(*args: Any, **kwargs: Any) -> Any:
            if name in busy:  # forward calls get_density: once is enough
                return original(*args, **kwargs)
            busy.add(name)
            try:
                output = original(*args, **kwargs)
            finally:
                busy.discard(name)
            recorded[name].append((FieldCall(method, args, kwargs), output))
            return output

        setattr(module, method, note)
        covered.append((module, method))

    try:
        for name in names:
            for method in ("forward", "get_density"):
                cover(name, method)
        yield recorded
    finally:
        for module, method in covered:
            delattr(module, method)


def replay_call(module: nn.Module, call: FieldCall) -> Any:
    """Calls a field once more, and returns its output."""
    return getattr(module, call.method)(*call.args, **call.kwargs)


def _weighted(call: FieldCall, output: Any) -> Weighted | FieldCall:
    """A call of a field that renders, half of its mass spread by the rendering weights of its samples."""
    samples = call.args[0] if call.args else None
    density = output.get(FieldHeadNames.DENSITY) if isinstance(output, dict) else None
    if not (isinstance(samples, RaySamples) and isinstance(density, Tensor) and samples.deltas is not None):
        return call
    weights = samples.get_weights(density).flatten()
    return Weighted(call, 0.5 + 0.5 * weights / weights.mean().clamp_min(1e-6))
