"""What else a dense layer can be turned into without gradients, to compare with: low rank, and pruning alone."""

from __future__ import annotations

import torch
from torch import Tensor

from eugen_nerf.core.distributed import summed
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenLinear
from eugen_nerf.core.fitting.importance import neuron_worth
from eugen_nerf.core.fitting.layer_batches import HOLD_OUT_EVERY, Replay
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.least_squares import MomentSums


@torch.no_grad()
def fit_low_rank(layer: LowRankLinear, old: DenseLinear, replay: Replay, *, aware: bool) -> float:
    """The weights cut to the layer's rank, and the bias as it was; returns the relative error on held-out samples.

    Args:
        layer: of some rank; changed.
        old: the dense layer.
        replay: its pairs.
        aware: whether what is cut is `W C^(1/2)`, C the second moments of the inputs, so that the error of the
            pre-activations is least; else W itself.
    """
    root = torch.eye(old.in_features, dtype=torch.float64)
    if aware:
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
    return relative_error(layer, replay)


def symmetric_root(gram: Tensor) -> Tensor:
    """C^(1/2) of second moments C `[d, d]`; directions in which inputs never move count a little, for its inverse."""
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp_min(values[-1] * 1e-12).sqrt()) @ vectors.T


@torch.no_grad()
def fit_pruned(layer: EUGenLinear, old: DenseLinear, replay: Replay, metric: Tensor) -> float:
    """Keeps the neurons that count most and nothing of the others: no row is solved for again, none stands for another.

    A neuron counts by its mean square times what the metric makes of it.

    Args:
        layer: from `projection_layer`; changed.
        old: the dense layer.
        replay: its pairs.
        metric: `[t, l]`; an error e of the outputs counts as `|metric e|^2`.

    Returns:
        The relative error on held-out samples.
    """
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
    return relative_error(layer, replay)


@torch.no_grad()
def relative_error(layer: FeatureLayer, replay: Replay) -> float:
    """Squared error on held-out samples over the variation of the targets there.

    Raises:
        ConfigError: no held-out samples.
    """
    variation: MomentSums | None = None
    error = torch.zeros((), dtype=torch.float64)
    for batch in replay():
        if batch.held_out:
            square = (layer(batch.x) - batch.y).double().square().sum(dim=1)
            error += (square if batch.weights is None else square * batch.weights).sum().cpu()
            variation = variation or MomentSums(0, batch.y.shape[1])
            variation.add(batch.x[:, :0], batch.y, batch.weights)
    if variation is None:
        raise ConfigError(f"too few samples to convert a layer: at least {HOLD_OUT_EVERY} batches are needed")
    return float(summed(error)) / max(variation.summed().variation(), 1e-300)
