"""What the fields of a stock run are asked along rays. nerfstudio calls their methods, so these are listened to."""

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

from eugen_nerf.conversion.ray_samples import RAYS_PER_BATCH, ray_bundle
from eugen_nerf.core import Weighted


@dataclass(frozen=True)
class Question:
    """What a field was asked."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def ask_fields(
    teacher: Model, names: Sequence[str], cameras: Cameras, rays: Tensor
) -> dict[str, list[Weighted | Question]]:
    """What each field is asked along rays, with weights where it renders them.

    Args:
        teacher: in evaluation mode; unchanged.
        names: of its fields.
        cameras: the training cameras.
        rays: from `choose_rays`.
    """
    device_cameras = cameras.to(teacher.device)
    kept: dict[str, list[Weighted | Question]] = {name: [] for name in names}
    with torch.no_grad():
        for part in rays.split(RAYS_PER_BATCH):
            with _listening(teacher, names) as heard:
                teacher(ray_bundle(device_cameras, part.to(teacher.device)))
            for name, questions in heard.items():
                kept[name] += [_weighted(question, answer) for question, answer in questions]
    return kept


@contextmanager
def _listening(model: Model, names: Sequence[str]) -> Iterator[dict[str, list[tuple[Question, Any]]]]:
    """Within it, notes what fields are asked and what they answer.

    nerfstudio calls methods of fields, not the fields, so that hooks see nothing: the methods are covered.
    """
    heard: dict[str, list[tuple[Question, Any]]] = {name: [] for name in names}
    covered: list[tuple[nn.Module, str]] = []
    busy: set[str] = set()

    def cover(name: str, method: str) -> None:
        module = model.get_submodule(name)
        original = getattr(module, method)

        def note(*args: Any, **kwargs: Any) -> Any:
            if name in busy:  # forward asks get_density: once is enough
                return original(*args, **kwargs)
            busy.add(name)
            try:
                answer = original(*args, **kwargs)
            finally:
                busy.discard(name)
            heard[name].append((Question(method, args, kwargs), answer))
            return answer

        setattr(module, method, note)
        covered.append((module, method))

    try:
        for name in names:
            for method in ("forward", "get_density"):
                cover(name, method)
        yield heard
    finally:
        for module, method in covered:
            delattr(module, method)


def ask(module: nn.Module, question: Question) -> Any:
    """A field's answer."""
    return getattr(module, question.method)(*question.args, **question.kwargs)


def _weighted(question: Question, answer: Any) -> Weighted | Question:
    """A question to a field that renders, half of its mass spread by the rendering weights of its samples."""
    samples = question.args[0] if question.args else None
    density = answer.get(FieldHeadNames.DENSITY) if isinstance(answer, dict) else None
    if not (isinstance(samples, RaySamples) and isinstance(density, Tensor) and samples.deltas is not None):
        return question
    weights = samples.get_weights(density).flatten()
    return Weighted(question, 0.5 + 0.5 * weights / weights.mean().clamp_min(1e-6))
