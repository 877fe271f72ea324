"""Stock vanilla-nerf and dnerf as teachers: a copy as a dense model of ours, and the trainer that describes it."""

from __future__ import annotations

import copy
from dataclasses import fields

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.vanilla_nerf import NeRFModel as StockModel

from eugen_nerf.data.manager import EugenDataManagerConfig
from eugen_nerf.methods.nerf import EugenNerfModel, EugenNerfModelConfig
from eugen_nerf.methods.presets.dynamic import eugen_dnerf
from eugen_nerf.methods.presets.static import eugen_nerf
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.stock.nerf_copy import describe_copy, nerf_copy


def copy_stock(run: Run, stock: StockModel) -> tuple[TrainerConfig, EugenNerfModel]:
    """A dense model of ours that renders as the stock one does, and a trainer configuration that describes it.

    Args:
        run: the stock run; unchanged.
        stock: its model, one that `is_stock_nerf`.
    """
    config = copy.deepcopy((eugen_nerf if stock.temporal_distortion is None else eugen_dnerf).config)
    old = copy.deepcopy(run.config)
    for name in ("output_dir", "experiment_name", "data", "machine", "logging", "vis", "relative_model_dir"):
        setattr(config, name, getattr(old, name))
    shared = {f.name for f in fields(EugenDataManagerConfig)} - {"_target"}
    for f in fields(old.pipeline.datamanager):
        if f.name in shared:
            setattr(config.pipeline.datamanager, f.name, getattr(old.pipeline.datamanager, f.name))
    model_config = config.pipeline.model
    assert isinstance(model_config, EugenNerfModelConfig)
    describe_copy(stock, model_config)
    return config, nerf_copy(stock, model_config)
