"""Closed-form conversion of the dense layers of a graph, one after another (Sec. 4 of the paper, App. B.2).

Each layer is fitted on what its already converted predecessors really put out, against what the teacher's layer puts
out for the same sample. Samples come as batches that can be gone through again.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.importance import Batches, consumer_matrix
from eugen_nerf.core.fitting.layer_batches import HOLD_OUT_EVERY, LayerBatch, Replay
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.fitting.recipes.registry import recipe_named
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.networks.layer_graph import LayerGraph
from eugen_nerf.core.spec import count_parameters


@dataclass(frozen=True)
class LayerReport:
    """The result of one layer's conversion.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import Batch, ConversionConfig, NeRFShape, build_nerf, convert_graph
        >>> teacher = build_nerf(NeRFShape(9, trunk_layers=2, trunk_width=16, head_width=0))
        >>> batches = [Batch((torch.rand(64, 9),)) for _ in range(5)]
        >>> _, (report,) = convert_graph(teacher, lambda: batches, {"trunk_1": 8}, ConversionConfig())
        >>> report.name, report.num_features, report.multiply_adds, report.relative_error < 0.5
        ('trunk_1', 8, (256, 256), True)
    """

    name: str
    num_features: int
    relative_error: float
    """Squared error over the variation of the teacher's outputs, on samples that were not fitted to but chose the ridge
    term and the sweeps."""
    ridge: float
    parameters: tuple[int, int]
    """Before and after."""
    multiply_adds: tuple[int, int]
    """Before and after, the layer on its own; `CostRow` holds what it costs in a collapsed network."""
    seconds: float


@dataclass(frozen=True)
class CostRow:
    """A line of a conversion's table; multiply-adds of all lines add up to the network's."""

    name: str
    """Of a layer, or what it stands for."""
    report: LayerReport | None
    """Where it was converted; others consume fewer features, or stay as they were."""
    multiply_adds: tuple[int, int]
    """Before and after."""


def cost_rows(reports: Sequence[LayerReport], shares: Mapping[str, tuple[int, int]]) -> list[CostRow]:
    """A row for each layer that was converted or whose cost changed, and one for all others.

    Args:
        reports: of the layers that were converted.
        shares: multiply-adds by layer, before and after.
    """
    converted = {report.name: report for report in reports}
    rows, others = [], []
    for name in dict.fromkeys([*shares, *converted]):
        before, after = shares.get(name, (0, 0))
        if name in converted or before != after:
            rows.append(CostRow(name, converted.get(name), (before, after)))
        else:
            others.append(before)
    if others:
        rows.append(CostRow(f"{len(others)} unchanged", None, (sum(others), sum(others))))
    return rows


def before_after(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Costs by layer in pairs; 0 where a layer is not in one of the two."""
    return {name: (before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*before, *after])}


class LayerStore(Protocol):
    """Where layers are kept that are done, so that a conversion that was stopped goes on where it was."""

    def load(self, name: str) -> tuple[dict[str, Tensor], LayerReport] | None:
        """A layer's state and report, where it was kept."""

    def save(self, name: str, state: Mapping[str, Tensor], report: LayerReport) -> None:
        """Keeps a layer."""


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
    store: LayerStore | None = None,
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
            (`LayerMoments.metric`); where missing, what the layers that consume it make of it.
        store: keeps layers that are done, and brings back those that it has.

    Returns:
        The student and one report a layer, in the order of conversion.

    Raises:
        ConfigError: a layer that is not a dense hidden one, more features than it has rows, or too few batches.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import Batch, ConversionConfig, NeRFShape, build_nerf, convert_graph
        >>> teacher = build_nerf(NeRFShape(9, trunk_layers=2, trunk_width=16, skips=(), head_width=0))
        >>> batches = [Batch((torch.rand(64, 9),)) for _ in range(5)]
        >>> student, reports = convert_graph(teacher, lambda: batches, {"trunk_1": 4}, ConversionConfig())
        >>> student.multiply_adds(), teacher.multiply_adds()
        (212, 416)
    """
    metrics = metrics or {}
    possible = convertible_layers(teacher)
    unknown = [name for name in num_features if name not in possible]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no dense hidden layer; there are: {', '.join(possible) or 'none'}")
    recipe = recipe_named(config.recipe)
    student = copy.deepcopy(teacher).requires_grad_(False)
    reports: list[LayerReport] = []
    for name in teacher.names:
        if name not in num_features:
            continue
        start = time.perf_counter()
        old = teacher.layer(name)
        assert isinstance(old, DenseLinear)
        layer = recipe.new_layer(old, num_features[name], config.eugen, seed=config.eugen.seed + len(reports))
        kept = store.load(name) if store else None
        if kept:
            layer.load_state_dict(kept[0])
            report = kept[1]
        else:
            replay = Replay(lambda name=name: _layer_batches(teacher, student, name, batches))  # type: ignore[misc]
            metric = metrics[name] if name in metrics else consumer_matrix(teacher, name)
            error, ridge = recipe.fit(layer, old, replay, metric, config)
            report = LayerReport(
                name=name,
                num_features=num_features[name],
                relative_error=error,
                ridge=ridge,
                parameters=(count_parameters(old), count_parameters(layer)),
                multiply_adds=(old.multiply_adds(), layer.multiply_adds()),
                seconds=time.perf_counter() - start,
            )
            if store:
                store.save(name, layer.state_dict(), report)
        student.replace_layer(name, layer)
        reports.append(report)
        progress(name)
    return student.requires_grad_(True), reports


def _layer_batches(teacher: LayerGraph, student: LayerGraph, name: str, batches: Batches) -> Iterator[LayerBatch]:
    before = teacher.names[: teacher.names.index(name)]
    for index, batch in enumerate(batches()):
        with torch.no_grad():
            values = list(batch.inputs)
            if before:
                values += student.values(*batch.inputs, upto=before[-1]).values()
            x, y = student.gather(name, values), teacher.values(*batch.inputs, upto=name)[name]
        number = index if batch.number is None else batch.number
        yield LayerBatch(x, y, batch.weights, number % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1)
