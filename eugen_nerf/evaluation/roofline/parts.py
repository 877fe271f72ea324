"""Which part of a method an operation belongs to, by the functions that are being called."""

from __future__ import annotations

import functools
import sys

OTHER = "other"
PARTS = {
    "eugen_nerf.core.encodings.hash_grid": "grid",
    "eugen_nerf.fields.tcnn_grid": "grid",
    "eugen_nerf.core.layers.activations": "MLP",
    "eugen_nerf.core.networks.collapsed_graph": "MLP",
    "eugen_nerf.core.eugen": "MLP",
    "eugen_nerf.core.networks.layer_graph": "MLP",
    "eugen_nerf.core.layers.feature_layer": "MLP",
    "eugen_nerf.core.layers.baselines": "MLP",
    "eugen_nerf.core.layers.stage": "MLP",
    "eugen_nerf.core.rendering.contraction": "encoding",
    "eugen_nerf.core.encodings.point_encodings": "encoding",
    "eugen_nerf.core.encodings.integrated": "encoding",
    "eugen_nerf.core.encodings.multisample": "encoding",
    "eugen_nerf.fields": "encoding",
    "nerfstudio.field_components": "encoding",
    "eugen_nerf.core.rendering.sphere_tracing": "sampling and losses",
    "eugen_nerf.core.rendering.sdf_losses": "sampling and losses",
    "eugen_nerf.core.rendering.step_functions": "sampling and losses",
    "eugen_nerf.methods": "sampling and losses",
    "nerfstudio.model_components": "sampling and losses",
    "nerfstudio.model_components.renderers": "compositing",
    "nerfstudio.cameras.rays:get_weights": "compositing",
    "nerfstudio.engine.optimizers": "optimizer",
    "torch.optim": "optimizer",
    "eugen_nerf.data": "data",
    "nerfstudio.cameras.cameras": "data",
    "nerfstudio.model_components.ray_generators": "data",
}
"""Parts by packages, modules and functions of modules; the longest name that fits counts."""


def current_part() -> str:
    """The part that the innermost function listed in `PARTS` belongs to, or `OTHER`."""
    frame = sys._getframe(1)
    while frame is not None:
        part = _part_of(frame.f_globals.get("__name__", ""), frame.f_code.co_name)
        if part is not None:
            return part
        frame = frame.f_back  # type: ignore[assignment]
    return OTHER


@functools.cache
def _part_of(module: str, function: str) -> str | None:
    if f"{module}:{function}" in PARTS:
        return PARTS[f"{module}:{function}"]
    names = module.split(".")
    prefixes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((PARTS[prefix] for prefix in prefixes if prefix in PARTS), None)
