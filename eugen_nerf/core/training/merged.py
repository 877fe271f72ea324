"""EUGen layers trained as what they collapse to: every output map multiplied into its consumers from the start.

Without the norm column, a layer's output `A phi` reaches the rest of the network through products `G A` alone
(App. B.1 of arXiv 2410.09771). Where the layer has no more features than outputs, every matrix is such a product, so a
network of merged matrices computes the same functions from half of the numbers; and an optimizer sees the matrix that
acts, not two factors whose steps multiply.
"""

from __future__ import annotations

import torch
from torch import nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenLinear
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.layers.stage import Affine, Stage
from eugen_nerf.core.networks.collapsed_graph import cast_affine, cast_stage
from eugen_nerf.core.networks.layer_graph import LayerGraph


class MergedLayer(FeatureLayer):
    """The features of an EUGen layer, `Phi(prod_j (G_j x + b_j))`, without an output map of its own.

    Args:
        in_features: width of its producers' features.
        stage: the projections and functions; without the norm column.
    """

    def __init__(self, in_features: int, stage: Stage) -> None:
        super().__init__(in_features, stage.num_features)
        self.degree, self.shared, self.phi, self.product = stage.degree, stage.shared, stage.phi, stage.product
        self.weight = nn.Parameter(stage.weight.detach().clone())
        self.bias = None if stage.bias is None else nn.Parameter(stage.bias.detach().clone())

    def pieces(self) -> list[tuple[Stage, Affine]]:
        """One stage; its features are the output."""
        stage = Stage(self.weight, self.bias, None, self.degree, self.shared, self.phi, product=self.product)
        return [(stage, Affine())]


@torch.no_grad()
def merged_for_training(graph: LayerGraph) -> LayerGraph:
    """A network of the same outputs in which the output maps of EUGen layers are merged into their consumers.

    Names and wiring stay. Weights are new parameters that start at the graph's.

    Args:
        graph: of dense and EUGen layers; layers that are merged already stay so.

    Raises:
        ConfigError: other layers, a fixed G, the norm column, or an EUGen layer that is an output.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import DenseLinear, EUGenConfig, EUGenLinear, LayerGraph, merged_for_training
        >>> config = EUGenConfig(num_features=4, norm=False)
        >>> layers = {"hidden": EUGenLinear(3, 16, config), "out": DenseLinear(16, 2, "identity")}
        >>> graph = LayerGraph(layers, {"hidden": [0], "out": ["hidden"]}, (3,), ["out"])
        >>> merged, x = merged_for_training(graph), torch.rand(5, 3)
        >>> torch.allclose(merged(x)[0], graph(x)[0], atol=1e-5)
        True
        >>> [sum(p.numel() for p in network.parameters()) for network in (graph, merged)]
        [130, 26]
    """
    if (reason := unmergeable_reason(graph)) is not None:
        raise ConfigError(reason)
    inputs = len(graph.input_widths)
    layers: dict[str, FeatureLayer] = {}
    maps, widths = [Affine()] * inputs, list(graph.input_widths)
    for name in graph.names:
        layer = graph.layer(name)
        (stage, affine), reads = layer.pieces()[0], graph.reads[name]
        exact = cast_stage(stage, torch.float64)
        product = exact.merge([maps[v] for v in reads], [graph.width(v) for v in reads])
        merged = cast_stage(product, stage.weight.dtype)
        in_features = sum(widths[v] for v in reads)
        if isinstance(layer, DenseLinear):
            dense = DenseLinear(in_features, layer.out_features, layer.function).to(stage.weight)
            dense.weight.copy_(merged.weight)
            assert merged.bias is not None
            dense.bias.copy_(merged.bias)
            layers[name], widths, maps = dense, [*widths, layer.out_features], [*maps, Affine()]
        else:
            layers[name] = MergedLayer(in_features, merged)
            widths, maps = [*widths, stage.num_features], [*maps, cast_affine(affine, torch.float64)]
    outputs = [graph.names[v - inputs] for v in graph.outputs]
    wiring = {name: list(graph.reads[name]) for name in graph.names}
    return LayerGraph(layers, wiring, graph.input_widths, outputs)


def unmergeable_reason(graph: LayerGraph) -> str | None:
    """One line that says why a network has no merged form; None where it has one."""
    for value, name in enumerate(graph.names, start=len(graph.input_widths)):
        layer = graph.layer(name)
        if isinstance(layer, DenseLinear | MergedLayer):
            continue
        if not isinstance(layer, EUGenLinear):
            return f"layer {name!r} is {type(layer).__name__}: only dense and EUGen layers are trained merged"
        if value in graph.outputs:
            return f"layer {name!r} is an output of the network: its output map has no consumer to merge into"
        if layer.uses_norm or not layer.config.train_projection:
            what = "the norm of their input" if layer.uses_norm else "a fixed G"
            return f"layer {name!r}: EUGen layers with {what} have no merged form"
    return None
