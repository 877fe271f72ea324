"""What each dense layer of a network would lose at a lower rank, from one pass over the data.

With the same rank in every layer a baseline would be weak: EUGen layers get their features by what they are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from eugen_nerf.core.distributed import summed
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.importance import Batches, consumer_matrix, values_and_gradients
from eugen_nerf.core.fitting.recipes.low_rank import LowRank
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.least_squares import MomentSums
from eugen_nerf.core.networks.layer_graph import LayerGraph


def rank_curves(
    graph: LayerGraph,
    batches: Batches,
    names: Sequence[str],
    recipe: LowRank,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Error that each rank leaves, for ranks 0, 1, ..., min(d, l): float64, by layer, a sum over samples.

    It is the squared error of the pre-activations times how much a pre-activation's error counts on average: the square
    of the objective's derivative, or, where batches have no cotangents, what the layers that consume the output make
    of it.

    Args:
        graph: trained network.
        batches: see `Batch`.
        names: of dense layers.
        recipe: how weights are cut.
        progress: called after every batch.

    Raises:
        ConfigError: no samples, values that are not finite, or a layer that is not dense.
    """
    layers: dict[str, DenseLinear] = {}
    for name in names:
        layer = graph.layer(name)
        if not isinstance(layer, DenseLinear):
            raise ConfigError(f"layer {name!r} is {type(layer).__name__}; ranks are allocated to dense networks")
        layers[name] = layer
    inputs = {name: MomentSums(layer.in_features, 1, bias=False) for name, layer in layers.items()}
    worth = {name: torch.zeros(layer.out_features, dtype=torch.float64) for name, layer in layers.items()}
    for batch in batches():
        outputs = values_and_gradients(graph, batch, names)
        with torch.no_grad():
            values = [*batch.inputs, *graph.values(*batch.inputs).values()]
        for name, layer in layers.items():
            x = graph.gather(name, values)
            inputs[name].add(x, x[:, :1], batch.weights)
            gradient = outputs[name][1]
            square = consumer_matrix(graph, name).square().sum(dim=0).to(x) if gradient is None else gradient.square()
            worth[name] += (square * _slope(layer, x).square()).double().sum(dim=0).cpu()
        progress()
    curves = {}
    for name, layer in layers.items():
        moments = inputs[name].summed()
        if not moments.count:
            raise ConfigError("no samples to learn from: take a larger fraction of the rays")
        left = recipe.left_over(layer.weight.detach().double().cpu(), moments.gram / moments.mass)
        curves[name] = left * float(summed(worth[name]).mean())
    return curves


def _slope(layer: DenseLinear, x: Tensor) -> Tensor:
    """Derivatives of a layer's outputs by its pre-activations, for inputs `[n, d]`."""
    u = linear(x, layer.weight.detach(), layer.bias.detach()).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(activation(layer.function)(u).sum(), u)
    return slope
