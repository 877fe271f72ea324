"""A hidden layer put to the test: whether a model with units missing is the model in which nobody reads these units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.modules.data_flow import follow
from eugen_nerf.core.modules.discovery import HiddenLayer
from eugen_nerf.core.modules.linears import Linears, linear_like
from eugen_nerf.core.modules.outputs import differ, same, tensors_in

_JITTERS = 2
"""Runs with weights changed by rounding errors: what they do to outputs means nothing."""

Runs = Sequence[Callable[[], Any]]
"""Each calls the model on a batch."""


def unsupported_reason(
    linears: Linears, layer: HiddenLayer, runs: Runs, whole: Sequence[Sequence[Tensor]]
) -> str | None:
    """Whether a hidden layer's consumers are all there are; half of its units are taken away to see.

    Args:
        linears: of the model.
        layer: from `find_hidden`.
        runs: of the model as it is.
        whole: what each of them returns.

    Returns:
        None where it can be made narrower, else the reason why not.
    """
    if linears.dense[layer.name].out_features == 1:
        return "has a single unit"
    silent = _masked_consumers(linears, [layer], {layer.name: torch.zeros(0, dtype=torch.long)})
    if not any(_changes(linears, silent, run, before) for run, before in zip(runs, whole, strict=True)):
        return "makes no difference to any output: without its units the model returns the same, so nothing shows"
    return next((reason for run in runs if (reason := trial_reason(linears, [layer], run))), None)


def trial_reason(linears: Linears, layers: Sequence[HiddenLayer], run: Callable[[], Any]) -> str | None:
    """What one batch says against narrowing some layers together; None where nothing does.

    Args:
        linears: of the model.
        layers: from `find_hidden`.
        run: calls the model on the batch.
    """
    kept = {layer.name: _half(linears.dense[layer.name].out_features) for layer in layers}
    masked, narrow = _masked_consumers(linears, layers, kept), _narrow(linears, layers, kept)
    expected = _outputs(linears, masked, run)
    outside = "has units that are also read outside of linear layers"
    try:
        outputs = _outputs(linears, narrow, run)
    except Exception as error:  # any model may raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return f"has a width that the model relies on ({first}){_others(linears, layers, run)}"
    if len(outputs) != len(expected):
        return f"{outside}: outputs are missing without them{_others(linears, layers, run)}"
    if any(a.shape != b.shape for a, b in zip(expected, outputs, strict=True)):
        return f"{outside}: an output changes its shape without them{_others(linears, layers, run)}"
    if all(same(a, b) for a, b in zip(expected, outputs, strict=True)):
        return None
    noisy = [_outputs(linears, _jittered(linears, layers, masked, seed), run) for seed in range(_JITTERS)]
    dtype = linears.dense[layers[0].name].weight.dtype
    for wanted, output, *noise in zip(expected, outputs, *noisy, strict=True):
        if differ(wanted, output, noise, dtype):
            others = _others(linears, layers, run)
            counted = "" if others else ", or whose number the model computes with"
            return f"{outside}{counted}: outputs depend on them{others}"
    return None


def _others(linears: Linears, layers: Sequence[HiddenLayer], run: Callable[[], Any]) -> str:
    """What else reads the layers' units, in words, as far as the operations of a batch show."""
    uses = [use for layer in layers for use in layer.others]
    if not uses:
        flow = follow(linears, run)
        uses = [use for layer in layers for use in flow.uses.get(layer.name, [])]
    return f" ({'; '.join(uses[:3])})" if uses else ""


def _half(width: int) -> Tensor:
    """Half of the units, at random."""
    return torch.randperm(width, generator=torch.Generator().manual_seed(0))[: max(1, width // 2)].sort().values


def _masked_consumers(
    linears: Linears, layers: Sequence[HiddenLayer], kept: Mapping[str, Tensor]
) -> dict[str, nn.Linear]:
    """The layers' consumers, with weights of 0 for all units but the kept ones."""
    masked: dict[str, nn.Linear] = {}
    for layer in layers:
        for name in layer.consumers:
            consumer = masked.get(name, linears.dense[name])
            weight = consumer.weight.detach().clone()
            weight[:, _dropped(linears, layer, name, kept[layer.name])] = 0
            masked[name] = linear_like(consumer, weight, consumer.bias)
    return masked


def _narrow(linears: Linears, layers: Sequence[HiddenLayer], kept: Mapping[str, Tensor]) -> dict[str, nn.Linear]:
    """The layers with the kept units alone, and consumers of just those."""
    columns: dict[str, Tensor] = {}
    for layer in layers:
        for name in layer.consumers:
            rest = columns.setdefault(name, torch.ones(linears.dense[name].in_features, dtype=torch.bool))
            rest[_dropped(linears, layer, name, kept[layer.name])] = False
    narrow = {}
    for name in {**kept, **columns}:
        old = linears.dense[name]
        weight: Tensor = old.weight.detach()
        bias: Tensor | None = old.bias
        if name in columns:
            weight = weight[:, columns[name]]
        if name in kept:
            weight, bias = weight[kept[name]], None if bias is None else bias[kept[name]]
        narrow[name] = linear_like(old, weight, bias)
    return narrow


def _dropped(linears: Linears, layer: HiddenLayer, consumer: str, kept: Tensor) -> Tensor:
    """Columns of a consumer that read units which are not kept."""
    dropped = torch.ones(linears.dense[layer.name].out_features, dtype=torch.bool)
    dropped[kept] = False
    return torch.cat([start + torch.nonzero(dropped)[:, 0] for start in layer.consumers[consumer]])


def _jittered(
    linears: Linears, layers: Sequence[HiddenLayer], masked: Mapping[str, nn.Linear], seed: int
) -> dict[str, nn.Linear]:
    """The layers and their masked consumers, with weights that differ in their last digits."""
    generator = torch.Generator().manual_seed(seed)
    jittered = {}
    for name, linear in {**{layer.name: linears.dense[layer.name] for layer in layers}, **masked}.items():
        weight = linear.weight.detach()
        steps = torch.randint(-2, 3, weight.shape, generator=generator).to(weight)
        jittered[name] = linear_like(linear, weight * (1 + torch.finfo(weight.dtype).eps * steps), linear.bias)
    return jittered


def _outputs(linears: Linears, others: Mapping[str, nn.Linear], run: Callable[[], Any]) -> list[Tensor]:
    with linears.replaced(others):
        return [t.clone() for t in tensors_in(run())]  # a model may use what holds its outputs again


def _changes(
    linears: Linears, others: Mapping[str, nn.Linear], run: Callable[[], Any], before: Sequence[Tensor]
) -> bool:
    after = _outputs(linears, others, run)
    return len(after) != len(before) or not all(same(a, b) for a, b in zip(before, after, strict=True))
