"""What each layer of a network would lose with fewer features, from one pass over the data.

The moments of a layer's own outputs say how well some of its neurons stand for all of them. What an output is worth
follows from the gradients of an objective, such as rendered colours: `E[g g^T]`, g the gradient with respect to the
layer's outputs (the Gauss-Newton, or Fisher, metric). Both are sums over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eugen_nerf.core.distributed import summed
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.least_squares import MomentSums, greedy_path
from eugen_nerf.core.networks.layer_graph import LayerGraph


class Batch(NamedTuple):
    """Inputs of a graph for some samples.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import Batch
        >>> batch = Batch((torch.rand(64, 63), torch.rand(64, 27)), weights=torch.ones(64))
        >>> [x.shape for x in batch.inputs]
        [torch.Size([64, 63]), torch.Size([64, 27])]
    """

    inputs: tuple[Tensor, ...]
    """`[n, d_i]` each."""
    weights: Tensor | None = None
    """How much each sample counts, `[n]`; all alike where None."""
    cotangents: tuple[Tensor, ...] | None = None
    """Derivatives of the objective with respect to each of the graph's outputs, `[n, l_i]`; where it has several
    channels, of one random combination of them with signs +1 and -1. None where there is no objective."""
    number: int | None = None
    """Place in the order of all processes' batches; the place in this process's where None."""


Batches = Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class LayerMoments:
    """What one pass over the data says of a layer."""

    outputs: MomentSums
    """Moments of the layer's outputs against themselves."""
    metric: Tensor
    """M `[t, l]`, float64: an error e of the outputs counts as `|M e|^2`."""

    def curve(self, *, pruned: bool = False) -> Tensor:
        """Error that the best m features leave, for m = 0, 1, ..., l along the nested path: float64 `[l + 1]`, falling.

        It is the mean over samples of `|M e|^2`; with a metric of derivatives, an estimate of the objective's squared
        change.

        Args:
            pruned: the others are dropped and none stands for another; what one drops is taken to be unrelated to what
                another does.
        """
        width = self.outputs.gram.shape[0] - 1
        if pruned:
            gains = neuron_worth(self.outputs.gram.diagonal()[:width], self.metric).sort(descending=True).values
        else:
            gains = greedy_path(self.outputs, width, self.metric)[1]
        gains = gains / max(self.outputs.mass, 1e-300)
        return torch.cat([gains.flip(0).cumsum(0).flip(0), gains.new_zeros(1)])


def neuron_worth(energy: Tensor, metric: Tensor) -> Tensor:
    """What each neuron alone counts for, `[l]`: its sum of squares `[l]` times what a metric `[t, l]` makes of it."""
    return energy * metric.to(energy).square().sum(dim=0)


def gather_moments(
    graph: LayerGraph, batches: Batches, names: Sequence[str], progress: Callable[[], None] = lambda: None
) -> dict[str, LayerMoments]:
    """Moments of the layers called `names`, in one pass.

    Where batches have no cotangents, an error counts by what the layers that consume it make of it.

    Args:
        graph: trained network.
        batches: see `Batch`.
        names: of hidden layers.
        progress: called after every batch.

    Raises:
        ConfigError: no samples, or values that are not finite.
    """
    moments = {name: MomentSums(*[graph.layer(name).out_features] * 2) for name in names}
    fisher = {name: torch.zeros(*[graph.layer(name).out_features] * 2, dtype=torch.float64) for name in names}
    count = 0
    for batch in batches():
        values = values_and_gradients(graph, batch, names)
        count += len(batch.inputs[0])
        for name, (value, gradient) in values.items():
            moments[name].add(value, value, batch.weights)
            if gradient is not None:
                exact = gradient.double()
                fisher[name] += (exact.T @ exact).cpu()
        progress()
    count = int(summed(torch.tensor(count)))
    if not count:
        raise ConfigError("no samples to learn from: take a larger fraction of the rays")
    found = {}
    for name in names:
        metric = summed(fisher[name])
        metric = square_root(metric / count) if metric.any() else consumer_matrix(graph, name)
        found[name] = LayerMoments(moments[name].summed(), metric)
    return found


def values_and_gradients(
    graph: LayerGraph, batch: Batch, names: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Outputs `[n, l]` of layers, and the objective's gradients by them (None where the batch has none)."""
    if batch.cotangents is None:
        with torch.no_grad():
            values = graph.values(*batch.inputs, upto=max(names, key=graph.names.index))
        return {name: (values[name], None) for name in names}
    with torch.enable_grad():
        # inputs with gradients let frozen networks be differentiated
        values = graph.values(*(x.detach().requires_grad_() for x in batch.inputs))
        every = list(values.values())
        width = len(graph.input_widths)
        outputs = [every[v - width] for v in graph.outputs]
        gradients = torch.autograd.grad(
            outputs, [values[name] for name in names], list(batch.cotangents), allow_unused=True
        )
    return {
        name: (values[name].detach(), torch.zeros_like(values[name]) if g is None else g)
        for name, g in zip(names, gradients, strict=True)
    }


def consumer_matrix(graph: LayerGraph, name: str) -> Tensor:
    """Stacked matrices of the layers that consume an output, `[t, l]`: an error counts as much as they amplify it."""
    value = len(graph.input_widths) + graph.names.index(name)
    parts = []
    for consumer in graph.names:
        start = 0
        for v in graph.reads[consumer]:
            width = graph.width(v)
            if v == value:
                parts.append(graph.layer(consumer).pieces()[0][0].weight.detach()[:, start : start + width])
            start += width
    return torch.cat(parts).double() if parts else torch.eye(graph.width(value), dtype=torch.float64)


def square_root(metric: Tensor) -> Tensor:
    """M with `M^T M` equal to a positive semidefinite matrix `[l, l]`, without directions that count for nothing."""
    values, vectors = torch.linalg.eigh(metric)
    kept = values > values[-1] * 1e-12
    return (values[kept].sqrt() * vectors[:, kept]).T
