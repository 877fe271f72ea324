"""Stock vanilla-nerf and dnerf copied, weight by weight, into dense models of ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeGuard

import torch
from nerfstudio.field_components.mlp import MLP
from nerfstudio.field_components.temporal_distortions import DNeRFDistortion
from nerfstudio.fields.vanilla_nerf_field import NeRFField as StockField
from nerfstudio.models.vanilla_nerf import NeRFModel as StockModel
from torch import nn

from eugen_nerf.core import DenseLinear, LayerGraph
from eugen_nerf.fields.deformation import DeformationFieldConfig
from eugen_nerf.fields.nerf import NeRFFieldConfig
from eugen_nerf.methods.dnerf import EugenDNerfModel, EugenDNerfModelConfig
from eugen_nerf.methods.nerf import EugenNerfModel, EugenNerfModelConfig

SHARED = (
    "enable_collider",
    "collider_params",
    "loss_coefficients",
    "eval_num_rays_per_chunk",
    "num_coarse_samples",
    "num_importance_samples",
    "background_color",
)
"""Settings of a model that are called the same in both."""


def is_stock_nerf(model: nn.Module) -> TypeGuard[StockModel]:
    """Whether a model is stock vanilla-nerf or dnerf."""
    if type(model) is not StockModel:
        return False
    distortion = model.temporal_distortion
    return distortion is None or isinstance(distortion, DNeRFDistortion)


def describe_copy(stock: StockModel, settings: EugenNerfModelConfig) -> None:
    """Makes a configuration that of the stock model's copy, in place.

    Args:
        stock: one that `is_stock_nerf`.
        settings: of `eugen-dnerf` where the stock model moves.
    """
    settings.variant = "dense"
    settings.reset_near_plane = True  # the stock model's behaviour: the copy renders as it does
    settings.network = _network_of(stock.field_fine)  # type: ignore[arg-type]
    for name in SHARED:
        setattr(settings, name, getattr(stock.config, name))
    distortion = stock.temporal_distortion
    if distortion is not None:
        assert isinstance(distortion, DNeRFDistortion)
        assert isinstance(settings, EugenDNerfModelConfig)
        settings.deformation = _deformation_of(distortion)


def nerf_copy(stock: StockModel, settings: EugenNerfModelConfig | None = None) -> EugenNerfModel:
    """A dense model of ours that renders as the stock one does, in evaluation mode.

    Args:
        stock: one that `is_stock_nerf`.
        settings: that `describe_copy` made; made here by default.
    """
    distortion = stock.temporal_distortion
    if settings is None:
        settings = EugenNerfModelConfig() if distortion is None else EugenDNerfModelConfig()
        describe_copy(stock, settings)
    # the configuration may be changed to that of a student later, the model's own stays
    own = copy.deepcopy(settings)
    model = own.setup(scene_box=stock.scene_box, num_train_data=stock.num_train_data).to(stock.device)
    assert isinstance(model, EugenNerfModel)
    for ours, theirs in ((model.field_coarse, stock.field_coarse), (model.field_fine, stock.field_fine)):
        copy_layers(ours.network, _layers_of(theirs))  # type: ignore[arg-type]
    if isinstance(model, EugenDNerfModel):
        assert isinstance(distortion, DNeRFDistortion)
        copy_layers(model.deformation.network, [*distortion.mlp_deform.layers])
    return model.eval()


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


def _deformation_of(stock: DNeRFDistortion) -> DeformationFieldConfig:
    """Its last layer is our offset's; stock D-NeRF does not hold time 0 in place."""
    network = stock.mlp_deform
    return DeformationFieldConfig(
        trunk_layers=network.num_layers - 1,
        trunk_width=network.layer_width,
        skips=tuple(i for i in network.skip_connections or () if i < network.num_layers - 1),
        position_frequencies=stock.position_encoding.num_frequencies,  # type: ignore[arg-type]
        position_max_exponent=stock.position_encoding.max_freq,  # type: ignore[arg-type]
        time_frequencies=stock.temporal_encoding.num_frequencies,  # type: ignore[arg-type]
        time_max_exponent=stock.temporal_encoding.max_freq,  # type: ignore[arg-type]
        anchored=False,
    )


def _layers_of(stock: StockField) -> list[nn.Module]:
    """The linear layers in the order of our network's names."""
    return [*stock.mlp_base.layers, stock.field_output_density.net, *stock.mlp_head.layers, stock.field_heads[0].net]


@torch.no_grad()
def copy_layers(ours: LayerGraph, stock: Sequence[nn.Module]) -> None:
    """Copies weights and biases of linear layers into dense layers of the same sizes, in order."""
    for name, theirs in zip(ours.names, stock, strict=True):
        layer = ours.layer(name)
        assert isinstance(theirs, nn.Linear)
        assert isinstance(layer, DenseLinear)
        layer.weight.copy_(theirs.weight)
        layer.bias.copy_(theirs.bias)
