"""One layer with fewer features, from moments that were gathered before: what a slider does."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from eugen_nerf.core.eugen import EUGenLinear
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.fitting.recipes import ConversionConfig, projection_layer
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import ridge_solution

RIDGE = 1e-6
"""Of the fits. A conversion chooses it by held-out rays; on a layer's own values small ones do alike."""


def fitted_layer(old: DenseLinear, moments: LayerMoments, path: Tensor, count: int) -> FeatureLayer:
    """A dense layer with some of its rows as features, and Eq. (31) from moments for what they make of its outputs.

    Args:
        old: `[l, d]`; returned itself where all its rows are wanted.
        moments: of its outputs against themselves.
        path: its rows, the most useful first, int64 `[l]`: the first m are those of m features.
        count: m.

    Raises:
        ConfigError: more features than rows, or none.
    """
    if count == old.out_features:
        return copy.deepcopy(old)
    layer = projection_layer(old, count, ConversionConfig(), seed=0)
    assert isinstance(layer, EUGenLinear)
    chosen = path[:count]
    weight, bias = ridge_solution(moments.outputs.select(chosen), ridge=RIDGE)
    with torch.no_grad():
        layer.projection.copy_(old.weight[chosen.to(old.weight.device)])
        assert layer.projection_bias is not None
        layer.projection_bias.copy_(old.bias[chosen.to(old.weight.device)])
        layer.set_output(weight, bias)
    return layer.eval().requires_grad_(False)
