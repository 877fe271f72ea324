"""Specifications of the signed distance methods, as `static.py` and `dynamic.py` hold the others."""

from __future__ import annotations

from dataclasses import replace

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from eugen_nerf.data.rgbd_parser import EugenRGBDDataParserConfig
from eugen_nerf.data.stream import RGBDStreamConfig
from eugen_nerf.fields.isdf import ISDFFieldConfig
from eugen_nerf.methods.isdf import ISDFModelConfig
from eugen_nerf.methods.optimizers import FieldOptimizerConfig
from eugen_nerf.methods.trainer import StreamTrainerConfig


def _trainer(name: str, stream: RGBDStreamConfig, model: ISDFModelConfig, *, steps: int) -> StreamTrainerConfig:
    return StreamTrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_save=2000,
        steps_per_eval_batch=500,
        steps_per_eval_image=1000,
        steps_per_eval_all_images=1_000_000,
        pipeline=VanillaPipelineConfig(datamanager=stream, model=model),
        optimizers={"fields": {"optimizer": FieldOptimizerConfig(lr=1.3e-3, weight_decay=0.012), "scheduler": None}},
        viewer=ViewerConfig(num_rays_per_chunk=1 << 14, websocket_host="127.0.0.1"),
        vis="viewer",
    )


_STREAM = RGBDStreamConfig(dataparser=EugenRGBDDataParserConfig(), eval_num_rays_per_batch=1000)
_MODEL = ISDFModelConfig()

eugen_isdf = MethodSpecification(
    config=_trainer("eugen-isdf", _STREAM, _MODEL, steps=2000),
    description="iSDF with EUGen layers, or its dense twin by --pipeline.model.variant dense.",
)
eugen_isdf_small = MethodSpecification(
    config=_trainer(
        "eugen-isdf-small",
        replace(
            _STREAM,
            frame_rate=10.0,
            steps_on_frame=5,
            steps_on_keyframe=20,
            steps_on_first=60,
            train_num_rays_per_batch=200,
            eval_num_rays_per_batch=200,
            check_rays=200,
        ),
        replace(
            _MODEL,
            network=ISDFFieldConfig(trunk_width=128, num_features=(64,), input_scale=0.25),
            num_stratified_samples=11,
            num_surface_samples=5,
            # so few rays seldom meet the nearest surface: their tangent planes say more
            bounds="normal",
        ),
        steps=1000,
    ),
    description="eugen-isdf small enough to follow a camera on a CPU.",
)
