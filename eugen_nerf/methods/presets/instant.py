"""Specifications of the methods on hash grids for scenes that stand still. Imports no optional dependency."""

from __future__ import annotations

from dataclasses import replace

from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from eugen_nerf.methods.ngp import EugenNGPModelConfig
from eugen_nerf.methods.optimizers import Algorithm, FieldOptimizerConfig
from eugen_nerf.methods.presets.static import method_trainer
from eugen_nerf.methods.trainer import EugenTrainerConfig


def _grid_trainer(
    name: str,
    model: EugenNGPModelConfig,
    *,
    steps: int,
    rays: int,
    lr: float,
    grid_lr: float,
    algorithm: Algorithm = "adam",
) -> EugenTrainerConfig:
    """Blender's data, and a learning rate of its own for the table of features."""
    config = method_trainer(
        name, model, steps=steps, rays=rays, lr=lr, algorithm=algorithm, dataparser=BlenderDataParserConfig()
    )
    config.optimizers["grids"] = {
        "optimizer": FieldOptimizerConfig(lr=grid_lr, eps=1e-15),
        "scheduler": ExponentialDecaySchedulerConfig(lr_final=grid_lr / 50, max_steps=steps),
    }
    return config


_FULL = EugenNGPModelConfig()
_SMALL = replace(
    _FULL,
    network=replace(
        _FULL.network, min_resolution=20, max_resolution=320, log2_table_size=17, start="linear", train_merged=True
    ),
    occupancy="hull",
)

eugen_ngp = MethodSpecification(
    config=_grid_trainer("eugen-ngp", _FULL, steps=20_000, rays=8192, lr=5e-3, grid_lr=1e-2),
    description="A field on hash grids with EUGen layers, or its dense twin by --pipeline.model.variant dense.",
)
eugen_ngp_small = MethodSpecification(
    config=_grid_trainer("eugen-ngp-small", _SMALL, steps=4000, rays=1024, lr=2e-2, grid_lr=1e-2, algorithm="muon"),
    description="eugen-ngp small enough to train on a CPU; carves empty space from the images' alpha first.",
)
