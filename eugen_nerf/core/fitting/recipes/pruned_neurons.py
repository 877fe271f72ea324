"""Pruning alone, to compare with: the neurons that count most, and nothing of the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eugen_nerf.core.distributed import summed
from eugen_nerf.core.eugen import EUGenLinear
from eugen_nerf.core.fitting.importance import LayerMoments, neuron_worth
from eugen_nerf.core.fitting.layer_batches import Replay
from eugen_nerf.core.fitting.output_fit import relative_error
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig, FitResult
from eugen_nerf.core.fitting.recipes.teacher_rows import NeuronRecipe
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer


@dataclass(frozen=True)
class PrunedNeurons(NeuronRecipe):
    """Neurons are kept as they are: no row is solved for again, none stands for another."""

    def error_curve(self, moments: LayerMoments) -> Tensor:
        """What is dropped is lost; what one neuron drops is taken to be unrelated to what another does."""
        return moments.curve(pruned=True)

    @torch.no_grad()
    def fit(
        self, layer: FeatureLayer, old: DenseLinear, replay: Replay, metric: Tensor, config: ConversionConfig
    ) -> FitResult:
        """Keeps the neurons whose mean square times what the metric makes of it is largest."""
        assert isinstance(layer, EUGenLinear)
        energy = torch.zeros(old.out_features, dtype=torch.float64, device=old.weight.device)
        for batch in replay():
            if not batch.held_out:
                square = batch.y.double().square()
                energy += (square if batch.weights is None else square * batch.weights[:, None]).sum(dim=0)
        chosen = neuron_worth(summed(energy), metric).argsort(descending=True)[: layer.config.num_features]
        weight = torch.zeros_like(layer.weight)
        weight[chosen, torch.arange(len(chosen), device=weight.device)] = 1
        layer.set_output(weight, torch.zeros_like(old.bias))
        layer.projection.copy_(old.weight[chosen])
        assert layer.projection_bias is not None
        layer.projection_bias.copy_(old.bias[chosen])
        return FitResult(relative_error(layer, replay), 0.0)
