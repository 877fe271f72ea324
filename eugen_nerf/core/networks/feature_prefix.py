"""The first features of every hidden layer of a collapsed network: one set of weights, networks of every width.

A network that is trained with a share drawn at each step has its features in order of use (Kusupati et al. 2022,
arXiv 2205.13147, of a representation; Devvrit et al. 2023, arXiv 2310.07707, of hidden layers): it can be evaluated at
each of these shares, and is then a network that could have been built so narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph, Step


def kept_features(features: int, share: float) -> int:
    """How many of a layer's m features of each degree a share of them is: to the nearest, at least 1."""
    return max(1, round(share * features))


def check_share(share: float) -> None:
    """Refuses a share of no features or of more than all.

    Raises:
        ConfigError: it is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a share of features is above 0 and at most 1, got {share}")


def feature_prefix(graph: CollapsedGraph, input_widths: Sequence[int], share: float) -> CollapsedGraph:
    """The graph with the first features of each degree of every hidden step, differentiable in the graph's tensors.

    Steps without a function and steps that are outputs keep their rows: those have the width of something else.

    Args:
        graph: any that has no diagonal blocks.
        input_widths: width of each input.
        share: of the features, above 0 and at most 1.

    Raises:
        ConfigError: another share, or diagonal blocks, whose outputs take turns.
    """
    check_share(share)
    if any(stage.groups > 1 for stage, _ in graph.steps):
        raise ConfigError("diagonal blocks (Monarch) have no prefix of features: take another kind of layer")
    whole = {value for value, affine in graph.outputs if affine.weight is None}
    # for each value the blocks of features that it has (one a degree), their number in a block, and how many are kept
    blocks: list[tuple[int, int, int]] = [(1, width, width) for width in input_widths]
    steps: list[Step] = []
    for stage, reads in graph.steps:
        features = stage.num_features // stage.degree
        keeps = stage.linear or len(blocks) in whole
        kept = features if keeps else kept_features(features, share)
        steps.append((_prefix_of(stage, [blocks[v] for v in reads], features, kept), reads))
        blocks.append((stage.degree, features, kept))
    outputs = tuple((v, _read_prefix(affine, blocks[v])) for v, affine in graph.outputs)
    return CollapsedGraph(tuple(steps), outputs)


def _prefix_of(stage: MergedStage, reads: Sequence[tuple[int, int, int]], features: int, kept: int) -> MergedStage:
    def rows(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.unflatten(0, (-1, features))[:, :kept].flatten(0, 1)

    parts = stage.weight.split([count * size for count, size, _ in reads], dim=1)
    columns = [_columns(part, read) for part, read in zip(parts, reads, strict=True)]
    weight = rows(columns[0] if len(columns) == 1 else torch.cat(columns, dim=1))
    assert weight is not None
    pairs = zip(stage.factors, reads, strict=True) if stage.factors else ()
    factors = tuple(None if f is None else (_columns(f[0], read), f[1]) for f, read in pairs)
    return replace(stage, weight=weight, bias=rows(stage.bias), norm=rows(stage.norm), factors=factors)


def _read_prefix(affine: Affine, read: tuple[int, int, int]) -> Affine:
    return affine if affine.weight is None else Affine(_columns(affine.weight, read), affine.bias)


def _columns(matrix: Tensor, read: tuple[int, int, int]) -> Tensor:
    """The columns `[l, count * kept]` of the features that are kept, of `[l, count * size]`."""
    count, size, kept = read
    return matrix if kept == size else matrix.unflatten(1, (count, size))[:, :, :kept].flatten(1)
