"""Closed-form conversion of the dense layers of a graph, one after another (Sec. 4 of the paper, App. B.2).

Each layer is fitted on what its already converted predecessors really put out, against what the teacher's layer puts
out for the same sample. Samples come as batches that can be gone through again; only second moments are kept.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.graph import LayerGraph
from eugen_nerf.core.peers import DenseLinear
from eugen_nerf.core.solve import MomentSums, best_ridge, greedy_columns
from eugen_nerf.core.spec import count_parameters

Batches = Callable[[], Iterable[tuple[Tensor, ...]]]
HOLD_OUT_EVERY = 5


@dataclass(frozen=True)
class ConversionConfig:
    """How a dense layer becomes an EUGen layer."""

    recipe: Literal["rows", "random"] = "rows"
    """rows: G is made of the teacher's own rows, chosen greedily for the layers that read the output; random: G is
    drawn at random, as in the paper."""
    eugen: EUGenConfig = field(default_factory=lambda: EUGenConfig(norm=False))
    """Degree, Phi, norm and distribution of a random G; `rows` takes Phi from the teacher's activation, degree 1, no
    norm."""
    train_steps: int = 0
    """Steps of gradient descent on the layer alone after the closed form: G, A and bias, Huber loss (App. E.4)."""
    train_lr: float = 1e-3
    """Learning rate of those steps (Adam)."""


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer."""

    name: str
    num_features: int
    relative_error: float
    """Squared error on held-out samples over the variation of the teacher's outputs there."""
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
    num_features: dict[str, int],
    config: ConversionConfig,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[LayerGraph, list[LayerReport]]:
    """A copy of a graph in which dense layers are replaced by EUGen layers fitted in closed form (Eq. 31).

    Args:
        teacher: trained graph; it is not changed.
        batches: called once a layer (and once an epoch of training); yields the graph's inputs, `[n, d_i]` each, the
            same ones every time. Every fifth batch is held out: it chooses the ridge term and gives the errors.
        num_features: m for each layer to replace.
        config: see `ConversionConfig`.
        progress: called with a layer's name when it is done.

    Returns:
        The student and one report a layer, in the order of conversion.

    Raises:
        ConfigError: a layer that is not a dense hidden one, more features than it has rows, or too few batches.
    """
    possible = convertible_layers(teacher)
    unknown = [name for name in num_features if name not in possible]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no dense hidden layer; there are: {', '.join(possible) or 'none'}")
    student = copy.deepcopy(teacher).requires_grad_(False)
    reports = []
    for name in teacher.names:
        if name in num_features:
            start = time.perf_counter()
            layer, error, ridge = _convert_layer(teacher, student, name, batches, num_features[name], config)
            old = teacher.layer(name)
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


def _convert_layer(
    teacher: LayerGraph, student: LayerGraph, name: str, batches: Batches, count: int, config: ConversionConfig
) -> tuple[EUGenLinear, float, float]:
    old = teacher.layer(name)
    assert isinstance(old, DenseLinear)
    layer = _projection_layer(old, count, config)
    features = old if config.recipe == "rows" else layer.features
    width = old.out_features if config.recipe == "rows" else layer.weight.shape[1]
    fit, held_out = (MomentSums(width, old.out_features) for _ in range(2))
    for index, (x, y) in enumerate(_pairs(teacher, student, name, batches)):
        with torch.no_grad():
            (held_out if index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1 else fit).add(features(x), y)
    if held_out.count == 0:
        raise ConfigError(f"too few samples to convert {name!r}: at least {HOLD_OUT_EVERY} batches are needed")
    if config.recipe == "rows":
        rows = greedy_columns(fit, count, _readers(teacher, name))
        fit, held_out = fit.select(rows), held_out.select(rows)
        with torch.no_grad():
            layer.projection.copy_(old.weight[rows])
            assert layer.projection_bias is not None
            layer.projection_bias.copy_(old.bias[rows])
    weight, bias, ridge, error = best_ridge(fit, held_out)
    layer.set_output(weight, bias)
    if config.train_steps:
        error = _train_layer(layer, lambda: _pairs(teacher, student, name, batches), config, held_out.variation())
    return layer, error, ridge


def _projection_layer(old: DenseLinear, count: int, config: ConversionConfig) -> EUGenLinear:
    """A layer with G in place and nothing fitted yet."""
    if config.recipe == "rows":
        if not 1 <= count <= old.out_features:
            raise ConfigError(f"{count} features asked for, and the layer has {old.out_features} rows to choose from")
        eugen = replace(config.eugen, degree=1, phi=old.function, norm=False)
    else:
        eugen = config.eugen
        limit = 4 * max(old.in_features, old.out_features)
        if not 1 <= count <= limit:
            raise ConfigError(
                f"{count} features make no sense for a layer {old.out_features} wide; choose 1 to {limit}"
            )
    eugen = replace(eugen, num_features=count, weights="free", bias=True)
    return EUGenLinear(old.in_features, old.out_features, eugen).to(old.weight)


def _pairs(teacher: LayerGraph, student: LayerGraph, name: str, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs of a layer as the converted prefix makes them, and the teacher's outputs, `[n, d]` and `[n, l]`."""
    before = teacher.names[: teacher.names.index(name)]
    for inputs in batches():
        with torch.no_grad():
            values = list(inputs)
            if before:
                values += student.values(*inputs, upto=before[-1]).values()
            pair = student.gather(name, values), teacher.values(*inputs, upto=name)[name]
        yield pair


def _readers(graph: LayerGraph, name: str) -> Tensor:
    """Stacked matrices of the layers that read an output, `[t, l]`: an error counts as much as they amplify it."""
    value = len(graph.input_widths) + graph.names.index(name)
    parts = []
    for reader in graph.names:
        start = 0
        for v in graph.reads[reader]:
            width = graph.width(v)
            if v == value:
                parts.append(graph.layer(reader).pieces()[0][0].weight.detach()[:, start : start + width])
            start += width
    return torch.cat(parts) if parts else torch.eye(graph.width(value))


def _train_layer(
    layer: EUGenLinear, pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]], config: ConversionConfig, variation: float
) -> float:
    """Gradient descent on one layer; returns the relative error on held-out samples, never worse than at the start."""
    parameters = [p for p in layer.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=config.train_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.train_steps)
    best, kept = _held_out_error(layer, pairs), copy.deepcopy(layer.state_dict())
    step = 0
    while step < config.train_steps:
        for index, (x, y) in enumerate(pairs()):
            if index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1 or step >= config.train_steps:
                continue
            with torch.enable_grad():
                loss = torch.nn.functional.huber_loss(layer(x), y)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    error = _held_out_error(layer, pairs)
    if not error < best:
        layer.load_state_dict(kept)
        error = best
    return error / max(variation, 1e-300)


@torch.no_grad()
def _held_out_error(layer: EUGenLinear, pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> float:
    batches: Sequence[float] = [
        float((layer(x) - y).double().square().sum())
        for index, (x, y) in enumerate(pairs())
        if index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    ]
    return sum(batches)
