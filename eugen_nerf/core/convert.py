"""Closed-form conversion of the dense layers of a graph, one after another (Sec. 4 of the paper, App. B.2).

Each layer is fitted on what its already converted predecessors really put out, against what the teacher's layer puts
out for the same sample. Samples come as batches that can be gone through again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fit import HOLD_OUT_EVERY, ConversionConfig, LayerBatch, Replay, fit_layer, projection_layer
from eugen_nerf.core.graph import LayerGraph
from eugen_nerf.core.peers import DenseLinear
from eugen_nerf.core.preview import Batches, readers
from eugen_nerf.core.spec import count_parameters


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer."""

    name: str
    num_features: int
    relative_error: float
    """Squared error over the variation of the teacher's outputs, on samples that were not fitted to but chose the ridge
    term and the sweeps."""
    ridge: float
    parameters: tuple[int, int]
    """Before and after."""
    multiply_adds: tuple[int, int]
    """Before and after, the layer on its own; what the network costs collapsed is the graph's figure."""
    seconds: float


def convertible_layers(graph: LayerGraph) -> tuple[str, ...]:
    """Names of the dense hidden layers, the ones a conversion can replace."""
    return tuple(
        name
        for name in graph.names
        if isinstance(layer := graph.layer(name), DenseLinear) and layer.function != "identity"
    )


def convert_graph(
    teacher: LayerGraph,
    batches: Batches,
    num_features: Mapping[str, int],
    config: ConversionConfig,
    progress: Callable[[str], None] = lambda name: None,
    metrics: Mapping[str, Tensor] | None = None,
) -> tuple[LayerGraph, list[LayerReport]]:
    """A copy of a graph in which dense layers are replaced by EUGen layers fitted in closed form (Eq. 31).

    Args:
        teacher: trained graph; it is not changed.
        batches: called at least once a layer; yields the same batches every time. Every fifth batch is held out: it
            chooses the ridge term and gives the errors.
        num_features: m for each layer to replace.
        config: see `ConversionConfig`.
        progress: called with a layer's name when it is done.
        metrics: for layers of `num_features`, what an error of their outputs counts as when neurons are chosen
            (`LayerMoments.metric`); where missing, what the layers that read it make of it.

    Returns:
        The student and one report a layer, in the order of conversion.

    Raises:
        ConfigError: a layer that is not a dense hidden one, more features than it has rows, or too few batches.
    """
    metrics = metrics or {}
    possible = convertible_layers(teacher)
    unknown = [name for name in num_features if name not in possible]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no dense hidden layer; there are: {', '.join(possible) or 'none'}")
    student = copy.deepcopy(teacher).requires_grad_(False)
    reports: list[LayerReport] = []
    for name in teacher.names:
        if name not in num_features:
            continue
        start = time.perf_counter()
        old = teacher.layer(name)
        assert isinstance(old, DenseLinear)
        layer = projection_layer(old, num_features[name], config, seed=config.eugen.seed + len(reports))
        replay = Replay(lambda name=name: _layer_batches(teacher, student, name, batches))  # type: ignore[misc]
        error, ridge = fit_layer(
            layer, old, replay, metrics[name] if name in metrics else readers(teacher, name), config
        )
        student.replace_layer(name, layer)
        reports.append(
            LayerReport(
                name=name,
                num_features=num_features[name],
                relative_error=error,
                ridge=ridge,
                parameters=(count_parameters(old), count_parameters(layer)),
                multiply_adds=(old.multiply_adds(), layer.multiply_adds()),
                seconds=time.perf_counter() - start,
            )
        )
        progress(name)
    return student.requires_grad_(True), reports


def _layer_batches(teacher: LayerGraph, student: LayerGraph, name: str, batches: Batches) -> Iterator[LayerBatch]:
    before = teacher.names[: teacher.names.index(name)]
    for index, (inputs, weights, _) in enumerate(batches()):
        with torch.no_grad():
            values = list(inputs)
            if before:
                values += student.values(*inputs, upto=before[-1]).values()
            x, y = student.gather(name, values), teacher.values(*inputs, upto=name)[name]
        yield LayerBatch(x, y, weights, index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1)
