"""Norm columns that a trained network hardly uses, folded into biases: each costs a second matrix when collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eugen_nerf.core.layers.stage import MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph


@dataclass(frozen=True)
class FoldedNorms:
    """A graph with fewer norm columns."""

    graph: CollapsedGraph
    dropped: int
    """Steps that no longer read a norm: a constant replaces it, or its column was zero."""
    total: int
    """Steps that had a norm column."""


@torch.no_grad()
def fold_norms(graph: CollapsedGraph, samples: Sequence[Tensor], tolerance: float) -> FoldedNorms:
    """Replaces the norm of an input by its mean, step by step, wherever outputs hardly change.

    `|x| n` becomes a constant, which is added to the bias. The norm of an encoded point, for example, is almost
    constant, since the squares of a sine and its cosine sum to 1. A column of zeros (the start of training, and Thm
    3.1) is left out whatever the tolerance: this changes nothing.

    Args:
        graph: collapsed network.
        samples: `[n, d_i]` each, typical inputs of the network.
        tolerance: largest change of an output that all replacements may make together, over the largest output; 0
            leaves out columns of zeros alone.
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
        if change <= limit:  # false where it is not a number
            graph, dropped = tried, dropped + 1
    return FoldedNorms(graph, dropped, total)


def _without_zeros(stage: MergedStage) -> MergedStage:
    unused = stage.norm is not None and not bool(stage.norm.any())
    return replace(stage, norm=None, factors=()) if unused else stage
