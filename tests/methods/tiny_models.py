"""Tiny models of the methods in contracted space, and rays for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from tiny_runs import shrink_unbounded

from eugen_nerf.fields.zipnerf import ZipNeRFField
from eugen_nerf.methods.mipnerf360 import MipNeRF360ModelConfig
from eugen_nerf.methods.unbounded_model import UnboundedModel, UnboundedModelConfig
from eugen_nerf.methods.zipnerf import ZipNeRFModelConfig

NEAR, FAR = 0.2, 100.0
CONFIGS = {"mip": MipNeRF360ModelConfig, "zip": ZipNeRFModelConfig}


def make_rays(count: int = 5) -> RayBundle:
    """Rays from near the centre in all directions, without planes where a collider sets them."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return RayBundle(
        origins=torch.randn(count, 3, generator=generator) * 0.1,
        directions=directions,
        pixel_area=torch.full((count, 1), 1e-4),
        camera_indices=torch.zeros(count, 1, dtype=torch.long),
        nears=torch.full((count, 1), NEAR),
        fars=torch.full((count, 1), FAR),
    )


def make_config(name: str, **changes: Any) -> UnboundedModelConfig:
    """The default configuration of `mip` or `zip`, tiny; `changes` are made afterwards."""
    config = CONFIGS[name]()
    shrink_unbounded(config)
    return replace(config, **changes)


def make_model(name: str, **changes: Any) -> UnboundedModel:
    """A model whose grids hold something: at the start they hold next to nothing."""
    torch.manual_seed(0)
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model: UnboundedModel = make_config(name, **changes).setup(scene_box=box, num_train_data=1)
    for field in model.graph_fields().values():
        if isinstance(field, ZipNeRFField):
            torch.nn.init.normal_(field.grid.table, std=0.05)
    return model
