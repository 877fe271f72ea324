"""Multiply-adds of a query of a field, counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from eugen_nerf.fields.query_timing import random_queries


def macs_per_query(field: nn.Module, device: str | torch.device) -> tuple[int | None, str]:
    """Multiply-adds of matrix products for one query (density and colour) of a field.

    Returns:
        (number, how it was counted): the field's own ``macs_per_query()`` where it has one, else the sum over the
        ``nn.Linear`` layers that a real query of 8 points runs through; (None, reason) where there is neither.
    """
    own = getattr(field, "macs_per_query", getattr(field, "multiply_adds", None))  # the latter of a bundle's
    if callable(own):
        return int(own()), "the field's own count"
    points, total = 8, 0

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Linear)
        total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in field.modules() if isinstance(layer, nn.Linear)]
    try:
        with torch.inference_mode():
            field(random_queries(points, seed=0, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    if total == 0:
        return None, "not counted: the field has no nn.Linear layer and no macs_per_query()"
    return total // points, "counted at the nn.Linear layers of a query"
