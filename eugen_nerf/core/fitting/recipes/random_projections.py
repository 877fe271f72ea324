"""G drawn at random, as in the paper; A solved for by Eq. (31)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.layer_batches import Replay
from eugen_nerf.core.fitting.output_fit import empty_layer, output_moments, train_layer
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig, FitResult, Recipe
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import MomentSums, best_ridge

_LEAST_SPREAD = 1e-3
"""Of the inputs' largest, what the spread of a direction counts for at least when inputs are whitened."""


@dataclass(frozen=True)
class RandomProjections(Recipe):
    """Random features of any degree."""

    whitened: bool
    """Whether they are drawn for inputs made equally wide in all directions, as the data says."""

    @property
    def keeps_plain_linears(self) -> bool:
        """G is drawn for the inputs as they are."""
        return not self.whitened

    def new_layer(self, old: DenseLinear, count: int, eugen: EUGenConfig, *, seed: int) -> EUGenLinear:
        """A layer with G drawn."""
        limit = 4 * max(old.in_features, old.out_features)
        if not 1 <= count <= limit:
            raise ConfigError(
                f"{count} features make no sense for a layer {old.out_features} wide; choose 1 to {limit}"
            )
        return empty_layer(old, count, eugen, seed)

    def fit(
        self, layer: FeatureLayer, old: DenseLinear, replay: Replay, metric: Tensor, config: ConversionConfig
    ) -> FitResult:
        """Whitens where that is wanted, then solves Eq. (31); the metric chooses nothing here."""
        assert isinstance(layer, EUGenLinear)
        if self.whitened:
            _whiten(layer, replay)
        fit, held_out = output_moments(layer.features, layer.weight.shape[1], old, replay)
        weight, bias, ridge, error = best_ridge(fit, held_out)
        layer.set_output(weight, bias)
        if config.train_steps:
            error = train_layer(layer, replay, config, held_out)
        return FitResult(error, ridge)


@torch.no_grad()
def _whiten(layer: EUGenLinear, replay: Replay) -> None:
    """Turns G x into G C^(-1/2) (x - mean), C the covariance of the inputs; the norm's column stays as it was drawn."""
    moments = MomentSums(layer.in_features, 1)
    for batch in replay():
        if not batch.held_out:
            moments.add(batch.x, batch.y[:, :1], batch.weights)
    gram = moments.summed().gram
    mean = gram[:-1, -1] / gram[-1, -1]
    values, vectors = torch.linalg.eigh(gram[:-1, :-1] / gram[-1, -1] - torch.outer(mean, mean))
    spread = values.clamp_min(0).sqrt()
    spread = spread.clamp_min(max(float(spread[-1]) * _LEAST_SPREAD, 1e-300))
    blocks = layer.projection.double().cpu() @ (vectors / spread) @ vectors.T
    layer.projection.copy_(blocks)
    if layer.projection_bias is not None:
        layer.projection_bias.sub_((blocks @ mean).to(layer.projection_bias))
