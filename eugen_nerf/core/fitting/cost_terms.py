"""Multiply-adds of a collapsed network as a function of the features of its layers.

The cost is a sum of terms, each a product of the widths of two layers that read one another (and of constants).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.networks.layer_graph import LayerGraph


@dataclass(frozen=True)
class Term:
    """Multiply-adds of one layer: `rows * (sum of widths read + constant)`, and what deferred linear layers add."""

    rows: str | int
    """Outputs: a number, or a layer whose features are to be chosen."""
    reads: tuple[str, ...]
    """Layers whose features are to be chosen, one entry for each time that they are read."""
    constant: int
    """Width of all else that is read."""
    deferred: tuple[tuple[str | int, int], ...] = ()
    """Linear layers of some width that are merged into this one, with what each one reads: a layer, or a number of
    features."""

    def scope(self) -> set[str]:
        """Layers whose features it depends on."""
        return {
            name for name in (self.rows, *self.reads, *(source for source, _ in self.deferred)) if isinstance(name, str)
        }

    def cost(self, widths: Mapping[str, int]) -> int:
        """Multiply-adds with these features."""
        rows = widths[self.rows] if isinstance(self.rows, str) else self.rows
        cost = rows * (sum(widths[name] for name in self.reads) + self.constant)
        for source, width in self.deferred:  # merged into its consumer where that is cheaper, else formed
            features = widths[source] if isinstance(source, str) else source
            cost += min(rows * features, width * (features + rows))
        return cost


def network_terms(graph: LayerGraph, names: Sequence[str]) -> list[Term]:
    """What a collapsed network costs, as a function of the features of the layers called `names`.

    Args:
        graph: of dense layers, and perhaps of EUGen layers that stay as they are.
        names: of dense layers.

    Raises:
        ConfigError: a layer whose cost follows other rules.
    """
    inputs = len(graph.input_widths)
    terms = []
    for value, name in enumerate(graph.names, start=inputs):
        rows = name if name in names else _rows(graph, name)
        if _is_deferred(graph, value):
            continue
        reads: list[str] = []
        constant, deferred = 0, []
        for v in graph.reads[name]:
            if v >= inputs and _is_deferred(graph, v):
                (producer,) = graph.reads[graph.names[v - inputs]]
                deferred.append((_features(graph, producer, names), graph.width(v)))
                continue
            features = _features(graph, v, names)
            if isinstance(features, str):
                reads.append(features)
            else:
                constant += features
        terms.append(Term(rows, tuple(reads), constant, tuple(deferred)))
    return terms


def _rows(graph: LayerGraph, name: str) -> int:
    """Rows of the one matrix that a layer which stays as it is multiplies by.

    Raises:
        ConfigError: it has several, or its consumers need more than its features.
    """
    layer = graph.layer(name)
    if isinstance(layer, DenseLinear):
        return layer.out_features
    (stage, affine), *more = layer.pieces()
    if more or layer.uses_norm or affine.weight is None or stage.num_features > layer.out_features:
        raise ConfigError(
            f"layer {name!r} is {type(layer).__name__}, whose cost does not follow from widths alone: features are "
            "allocated to dense layers, beside EUGen layers without a norm and with no more features than outputs"
        )
    return stage.weight.shape[0]


def _features(graph: LayerGraph, value: int, names: Sequence[str]) -> str | int:
    """What the consumers of a value read: a layer's features that are to be chosen, by name, or a number of them."""
    if value < len(graph.input_widths):
        return graph.width(value)
    name = graph.names[value - len(graph.input_widths)]
    layer = graph.layer(name)
    if name in names:
        return name
    return layer.out_features if isinstance(layer, DenseLinear) else layer.pieces()[0][0].num_features


def _is_deferred(graph: LayerGraph, value: int) -> bool:
    """Whether a value is that of a linear layer that is not run but merged into its one consumer."""
    name = graph.names[value - len(graph.input_widths)]
    layer = graph.layer(name)
    if not (isinstance(layer, DenseLinear) and layer.function == "identity") or value in graph.outputs:
        return False
    return sum(value in graph.reads[other] for other in graph.names) == 1
