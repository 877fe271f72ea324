"""Weights of low rank, to compare with: no neuron is chosen, a matrix is cut by its singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from eugen_nerf.core.eugen import EUGenConfig
from eugen_nerf.core.fitting.layer_batches import Replay
from eugen_nerf.core.fitting.output_fit import relative_error
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig, FitResult, Recipe
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import MomentSums


@dataclass(frozen=True)
class LowRank(Recipe):
    """The weights cut to a rank, and the bias as it was."""

    layer_kind: ClassVar[Literal["eugen", "lowrank"]] = "lowrank"
    allocates: ClassVar[Literal["neurons", "ranks", "evenly"]] = "ranks"
    aware: bool
    """Whether what is cut is `W C^(1/2)`, C the second moments of the inputs, so that the error of the pre-activations
    is least; else W itself."""

    def new_layer(self, old: DenseLinear, count: int, eugen: EUGenConfig, *, seed: int) -> LowRankLinear:
        """A layer of rank `count`; nothing of it is random."""
        return LowRankLinear(old.in_features, old.out_features, count, old.function).to(old.weight)

    @torch.no_grad()
    def fit(
        self, layer: FeatureLayer, old: DenseLinear, replay: Replay, metric: Tensor, config: ConversionConfig
    ) -> FitResult:
        """Takes the largest singular values; the metric chooses nothing here."""
        assert isinstance(layer, LowRankLinear)
        root = torch.eye(old.in_features, dtype=torch.float64)
        if self.aware:
            moments = MomentSums(old.in_features, 1, bias=False)
            for batch in replay():
                if not batch.held_out:
                    moments.add(batch.x, batch.y[:, :1], batch.weights)
            root = symmetric_root(moments.summed().gram)
        u, s, v = torch.linalg.svd(old.weight.double().cpu() @ root, full_matrices=False)
        rank = layer.down.shape[0]
        layer.up.copy_(u[:, :rank] * s[:rank])
        layer.down.copy_(v[:rank] @ torch.linalg.inv(root))
        layer.bias.copy_(old.bias)
        return FitResult(relative_error(layer, replay), 0.0)

    def left_over(self, weight: Tensor, gram: Tensor) -> Tensor:
        """Mean square of the pre-activations' error for ranks 0, 1, ..., min(d, l): float64, falling.

        Args:
            weight: W `[l, d]`, float64.
            gram: mean second moments C of the inputs, `[d, d]`.
        """
        if self.aware:
            gains = torch.linalg.svdvals(weight @ symmetric_root(gram)).square()
        else:
            _, s, v = torch.linalg.svd(weight, full_matrices=False)
            gains = s.square() * ((v @ gram) * v).sum(dim=1)
        return torch.cat([gains.flip(0).cumsum(0).flip(0), gains.new_zeros(1)])


def symmetric_root(gram: Tensor) -> Tensor:
    """C^(1/2) of second moments C `[d, d]`; directions in which inputs never move count a little, for its inverse."""
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp_min(values[-1] * 1e-12).sqrt()) @ vectors.T
