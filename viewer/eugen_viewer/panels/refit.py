"""Refits one layer with fewer features from moments gathered before, when a slider moves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from eugen_nerf.core import ConversionConfig, DenseLinear, EUGenLinear, FeatureLayer
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.core.least_squares import ridge_solution

RIDGE = 1e-6
"""Ridge of the fits. A conversion chooses it on held-out rays; on a layer's own values all small ones work alike."""


def fitted_layer(old: DenseLinear, moments: LayerMoments, path: Tensor, count: int) -> FeatureLayer:
    """An EUGen layer with some rows of a dense layer as features, its output weights from moments by Eq. (31).

    Args:
        old: `[l, d]`; a copy of it is returned if all rows are kept.
        moments: of its outputs.
        path: its rows, the most useful first, int64 `[l]`: m features use the first m.
        count: m.

    Raises:
        ConfigError: more features than rows, or none.
    """
    if count == old.out_features:
        return copy.deepcopy(old)
    layer = recipe_named("rows").new_layer(old, count, ConversionConfig().eugen, seed=0)
    assert isinstance(layer, EUGenLinear)
    chosen = path[:count]
    weight, bias = ridge_solution(moments.outputs.select(chosen), ridge=RIDGE)
    with torch.no_grad():
        layer.projection.copy_(old.weight[chosen.to(old.weight.device)])
        assert layer.projection_bias is not None
        layer.projection_bias.copy_(old.bias[chosen.to(old.weight.device)])
        layer.set_output(weight, bias)
    return layer.eval().requires_grad_(False)
