"""Norm columns that a trained network hardly uses, left out of its collapsed form: each costs a second matrix there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eugen_nerf.core.layers.stage import MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph


@dataclass(frozen=True)
class FoldedNorms:
    """What became of a graph's norm columns."""

    graph: CollapsedGraph
    dropped: int
    """Steps that read no norm any more: a constant stands for it, or its column was zero."""
    total: int
    """Steps that had a norm column."""


@torch.no_grad()
def fold_norms(graph: CollapsedGraph, samples: Sequence[Tensor], tolerance: float) -> FoldedNorms:
    """Puts the mean of an input's norm in the norm's place, step by step, wherever outputs hardly change.

    `|x| n` becomes a constant, which is added to the bias. An encoded point's norm, for one, is almost constant: its
    sines and cosines have unit squares together. A column of zeros, with which training starts and which Thm
    3.1 leaves, is left out whatever the tolerance: nothing changes by that.

    Args:
        graph: collapsed network.
        samples: `[n, d_i]` each, as the network will be asked.
        tolerance: largest change of an output that all replacements may make together, over the largest output; 0
            leaves the graph as it is, but for columns of zeros.
    """
    total = sum(stage.norm is not None for stage, _ in graph.steps)
    graph = replace(graph, steps=tuple((_without_zeros(stage), reads) for stage, reads in graph.steps))
    candidates = [i for i, (stage, _) in enumerate(graph.steps) if stage.norm is not None]
    zeros = total - len(candidates)
    if not candidates or tolerance <= 0:
        return FoldedNorms(graph, zeros, total)
    dtype = graph.tensors()[0].dtype
    inputs = [x.to(dtype) for x in samples]
    expected, values = graph(*inputs), list(inputs)
    limit = tolerance * max(float(y.abs().max()) for y in expected)
    norms = {}
    for i, (stage, reads) in enumerate(graph.steps):
        segments = [values[v] for v in reads]
        if stage.norm is not None:
            norms[i] = float(stage.input_norm(segments).mean())
        values.append(stage(segments))
    dropped = zeros
    for i in candidates:
        stage, reads = graph.steps[i]
        assert stage.norm is not None
        constant = norms[i] * stage.norm
        bias = constant if stage.bias is None else stage.bias + constant
        steps = list(graph.steps)
        steps[i] = (replace(stage, bias=bias, norm=None, factors=()), reads)
        tried = replace(graph, steps=tuple(steps))
        change = max(float((a - b).abs().max()) for a, b in zip(tried(*inputs), expected, strict=True))
        if change <= limit:  # not where it is not a number
            graph, dropped = tried, dropped + 1
    return FoldedNorms(graph, dropped, total)


def _without_zeros(stage: MergedStage) -> MergedStage:
    unused = stage.norm is not None and not bool(stage.norm.any())
    return replace(stage, norm=None, factors=()) if unused else stage
