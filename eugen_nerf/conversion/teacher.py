"""A run this project can convert: ours as they are, stock vanilla-nerf copied into a dense eugen-nerf model."""

from __future__ import annotations

import copy
from dataclasses import fields

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.field_components.mlp import MLP
from nerfstudio.fields.vanilla_nerf_field import NeRFField as StockField
from nerfstudio.models.vanilla_nerf import NeRFModel as StockModel
from torch import nn

from eugen_nerf.core.errors import RunError
from eugen_nerf.core.peers import DenseLinear
from eugen_nerf.data.manager import EugenDataManagerConfig
from eugen_nerf.fields.nerf import NeRFField, NeRFFieldConfig
from eugen_nerf.methods.base import GraphModel
from eugen_nerf.methods.nerf import EugenNerfModel, EugenNerfModelConfig
from eugen_nerf.methods.register import eugen_nerf
from eugen_nerf.methods.runs import Run


def teacher_of(run: Run) -> tuple[TrainerConfig, GraphModel]:
    """The run's model as a `GraphModel`, and a trainer configuration that describes it.

    Args:
        run: of any method of ours, or stock vanilla-nerf without temporal distortion.

    Raises:
        RunError: a run of another method.
    """
    model = run.pipeline.model
    if isinstance(model, GraphModel):
        return copy.deepcopy(run.config), model
    if type(model) is StockModel and model.temporal_distortion is None:
        return _from_stock(run, model)
    raise RunError(
        f"{run.path} is a run of {run.config.method_name}, which cannot be converted; "
        "eugen-distill takes runs of vanilla-nerf and of eugen methods (train one with --pipeline.model.variant dense)"
    )


def _from_stock(run: Run, stock: StockModel) -> tuple[TrainerConfig, EugenNerfModel]:
    config = copy.deepcopy(eugen_nerf.config)
    old = copy.deepcopy(run.config)
    for name in ("output_dir", "experiment_name", "data", "machine", "logging", "vis", "relative_model_dir"):
        setattr(config, name, getattr(old, name))
    shared = {f.name for f in fields(EugenDataManagerConfig)} - {"_target"}
    for f in fields(old.pipeline.datamanager):
        if f.name in shared:
            setattr(config.pipeline.datamanager, f.name, getattr(old.pipeline.datamanager, f.name))
    model_config = config.pipeline.model
    assert isinstance(model_config, EugenNerfModelConfig)
    model_config.variant = "dense"
    model_config.reset_near_plane = True  # the stock model's behaviour: the student renders as its teacher does
    model_config.network = _network_of(stock.field_fine)  # type: ignore[arg-type]
    for name in (
        "enable_collider",
        "collider_params",
        "loss_coefficients",
        "eval_num_rays_per_chunk",
        "num_coarse_samples",
        "num_importance_samples",
        "background_color",
    ):
        setattr(model_config, name, getattr(stock.config, name))
    model = model_config.setup(scene_box=stock.scene_box, num_train_data=stock.num_train_data).to(stock.device)
    assert isinstance(model, EugenNerfModel)
    for ours, theirs in ((model.field_coarse, stock.field_coarse), (model.field_fine, stock.field_fine)):
        _copy_field(ours, theirs)  # type: ignore[arg-type]
    return config, model.eval()


def _network_of(stock: StockField) -> NeRFFieldConfig:
    base, head = stock.mlp_base, stock.mlp_head
    assert isinstance(base, MLP)
    return NeRFFieldConfig(
        trunk_layers=base.num_layers,
        trunk_width=base.layer_width,
        skips=tuple(base.skip_connections or ()),
        head_layers=head.num_layers,
        head_width=head.layer_width,
        position_frequencies=stock.position_encoding.num_frequencies,  # type: ignore[arg-type]
        position_max_exponent=stock.position_encoding.max_freq,  # type: ignore[arg-type]
        direction_frequencies=stock.direction_encoding.num_frequencies,  # type: ignore[arg-type]
    )


@torch.no_grad()
def _copy_field(ours: NeRFField, stock: StockField) -> None:
    layers = [*stock.mlp_base.layers, stock.field_output_density.net, *stock.mlp_head.layers, stock.field_heads[0].net]
    for name, theirs in zip(ours.network.names, layers, strict=True):
        layer = ours.network.layer(name)
        assert isinstance(theirs, nn.Linear)
        assert isinstance(layer, DenseLinear)
        layer.weight.copy_(theirs.weight)
        layer.bias.copy_(theirs.bias)
