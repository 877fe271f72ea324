"""Specifications of the methods for dynamic scenes. Imports no optional dependency."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from eugen_nerf.data.curriculum import CurriculumDataManagerConfig
from eugen_nerf.fields.deformation import DeformationFieldConfig
from eugen_nerf.fields.hash import HashFieldConfig
from eugen_nerf.fields.nerf import NeRFFieldConfig
from eugen_nerf.methods.dnerf import EugenDNerfModelConfig
from eugen_nerf.methods.optimizers import FieldOptimizerConfig
from eugen_nerf.methods.presets.static import method_trainer
from eugen_nerf.methods.trainer import EugenTrainerConfig


def _dynamic_trainer(
    name: str, model: EugenDNerfModelConfig, *, steps: int, rays: int, lr: float, deformation_lr: float, reveal: int
) -> EugenTrainerConfig:
    """D-NeRF's data, revealed in the order of time, and a learning rate of its own for the deformation.

    EUGen layers start as smooth as dense ones: a rough deformation tears its scene apart, and a rough scene gives the
    deformation no direction to move in. Rates rise slowly over a sixth of the steps, at most 500: on black, empty space
    everywhere is a minimum that the first steps must not fall into.
    """
    model = replace(
        model,
        deformation=replace(model.deformation, start="linear"),
        network=replace(model.network, start="linear"),
    )
    manager = partial(CurriculumDataManagerConfig, reveal_steps=reveal)
    config = method_trainer(
        name, model, steps=steps, rays=rays, lr=lr, dataparser=DNeRFDataParserConfig(), manager=manager
    )
    config.optimizers = {
        group: {
            "optimizer": FieldOptimizerConfig(lr=rate, eps=1e-8),
            "scheduler": ExponentialDecaySchedulerConfig(
                lr_final=rate / 20, max_steps=steps, warmup_steps=min(500, steps // 6), lr_pre_warmup=rate / 200
            ),
        }
        for group, rate in (("fields", lr), ("temporal_distortion", deformation_lr))
    }
    return config


_FULL = EugenDNerfModelConfig()
_SMALL_DEFORMATION = DeformationFieldConfig(
    trunk_layers=4,
    trunk_width=128,
    skips=(2,),
    position_frequencies=4,
    position_max_exponent=2.0,
    time_frequencies=4,
    time_max_exponent=2.0,
    num_features=(64,),
)
_SMALL = EugenDNerfModelConfig(
    deformation=_SMALL_DEFORMATION,
    network=NeRFFieldConfig(
        trunk_layers=4,
        trunk_width=128,
        skips=(2,),
        head_layers=1,
        head_width=64,
        position_frequencies=6,
        position_max_exponent=4.0,
        num_features=(64,),
    ),
    num_coarse_samples=32,
    num_importance_samples=32,
)
# as the paper's hash-grid D-NeRF, EUGen in the deformation alone: in the small canonical head too, it lost 4 dB more
_HASH = EugenDNerfModelConfig(network=HashFieldConfig(layers=("none",)))
_HASH_SMALL = EugenDNerfModelConfig(
    deformation=_SMALL_DEFORMATION,
    network=HashFieldConfig(layers=("none",), max_resolution=256, log2_table_size=16, features_per_level=2),
    num_coarse_samples=32,
    num_importance_samples=32,
)

eugen_dnerf = MethodSpecification(
    config=_dynamic_trainer(
        "eugen-dnerf", _FULL, steps=200_000, rays=1024, lr=5e-4, deformation_lr=5e-4, reveal=10_000
    ),
    description="D-NeRF with EUGen layers, or its dense twin by --pipeline.model.variant dense.",
)
eugen_dnerf_small = MethodSpecification(
    config=_dynamic_trainer(
        "eugen-dnerf-small", _SMALL, steps=3000, rays=256, lr=4e-3, deformation_lr=1e-3, reveal=1600
    ),
    description="eugen-dnerf small enough to train on a CPU.",
)
eugen_dnerf_hash = MethodSpecification(
    config=_dynamic_trainer(
        "eugen-dnerf-hash", _HASH, steps=30_000, rays=4096, lr=1e-2, deformation_lr=5e-4, reveal=5000
    ),
    description="D-NeRF whose canonical fields are hash grids.",
)
eugen_dnerf_hash_small = MethodSpecification(
    config=_dynamic_trainer(
        "eugen-dnerf-hash-small", _HASH_SMALL, steps=3000, rays=256, lr=1e-2, deformation_lr=1e-3, reveal=1600
    ),
    description="eugen-dnerf-hash small enough to train on a CPU.",
)
