"""A hidden layer put to the test: whether a model with units missing is the model in which nobody reads these units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.hidden import HiddenLayer
from eugen_nerf.core.linears import Linears, linear_like
from eugen_nerf.core.outputs import differ, same, tensors_in

_JITTERS = 2
"""Runs with weights changed by rounding errors: what they do to outputs means nothing."""

Runs = Sequence[Callable[[], Any]]
"""Each calls the model on a batch."""


def unsupported_reason(
    linears: Linears, layer: HiddenLayer, runs: Runs, whole: Sequence[Sequence[Tensor]]
) -> str | None:
    """Whether a hidden layer's readers are all there are; half of its units are taken away to see.

    Args:
        linears: of the model.
        layer: from `find_hidden`.
        runs: of the model as it is.
        whole: what each of them returns.

    Returns:
        None where it can be made narrower, else the reason why not.
    """
    width = linears.dense[layer.name].out_features
    if width == 1:
        return "has a single unit"
    silent = _deaf_readers(linears, layer, torch.zeros(0, dtype=torch.long))
    if not any(_changes(linears, silent, run, before) for run, before in zip(runs, whole, strict=True)):
        return "makes no difference to any output: without its units the model returns the same, so nothing shows"
    kept = torch.randperm(width, generator=torch.Generator().manual_seed(0))[: width // 2].sort().values
    deaf, narrow = _deaf_readers(linears, layer, kept), _narrow(linears, layer, kept)
    outside = "has units that are also read outside of linear layers"
    others = f" ({'; '.join(layer.others[:3])})" if layer.others else ""
    for run in runs:
        expected = _outputs(linears, deaf, run)
        try:
            outputs = _outputs(linears, narrow, run)
        except Exception as error:  # any model may raise anything
            first = (str(error).splitlines() or [type(error).__name__])[0]
            return f"has a width that the model relies on ({first}){others}"
        if len(outputs) != len(expected):
            return f"{outside}: outputs are missing without them{others}"
        if any(a.shape != b.shape for a, b in zip(expected, outputs, strict=True)):
            return f"{outside}: an output changes its shape without them{others}"
        noisy = [_outputs(linears, _jittered(linears, layer, deaf, seed), run) for seed in range(_JITTERS)]
        dtype = linears.dense[layer.name].weight.dtype
        for wanted, output, *noise in zip(expected, outputs, *noisy, strict=True):
            if differ(wanted, output, noise, dtype):
                return f"{outside}: outputs depend on them{others}"
    return None


def _deaf_readers(linears: Linears, layer: HiddenLayer, kept: Tensor) -> dict[str, nn.Linear]:
    """The layer's readers, with weights of 0 for all units but the kept ones."""
    deaf = {}
    for name in layer.readers:
        reader = linears.dense[name]
        weight = reader.weight.detach().clone()
        weight[:, _dropped(linears, layer, name, kept)] = 0
        deaf[name] = linear_like(reader, weight, reader.bias)
    return deaf


def _narrow(linears: Linears, layer: HiddenLayer, kept: Tensor) -> dict[str, nn.Linear]:
    """The layer with the kept units alone, and readers of just those."""
    old = linears.dense[layer.name]
    narrow = {layer.name: linear_like(old, old.weight[kept], None if old.bias is None else old.bias[kept])}
    for name in layer.readers:
        reader = linears.dense[name]
        rest = torch.ones(reader.in_features, dtype=torch.bool)
        rest[_dropped(linears, layer, name, kept)] = False
        narrow[name] = linear_like(reader, reader.weight[:, rest], reader.bias)
    return narrow


def _dropped(linears: Linears, layer: HiddenLayer, reader: str, kept: Tensor) -> Tensor:
    """Columns of a reader that read units which are not kept."""
    dropped = torch.ones(linears.dense[layer.name].out_features, dtype=torch.bool)
    dropped[kept] = False
    return torch.cat([start + torch.nonzero(dropped)[:, 0] for start in layer.readers[reader]])


def _jittered(linears: Linears, layer: HiddenLayer, deaf: dict[str, nn.Linear], seed: int) -> dict[str, nn.Linear]:
    """The layer and its deaf readers, with weights that differ in their last digits."""
    generator = torch.Generator().manual_seed(seed)
    jittered = {}
    for name, linear in {layer.name: linears.dense[layer.name], **deaf}.items():
        weight = linear.weight.detach()
        steps = torch.randint(-2, 3, weight.shape, generator=generator).to(weight)
        jittered[name] = linear_like(linear, weight * (1 + torch.finfo(weight.dtype).eps * steps), linear.bias)
    return jittered


def _outputs(linears: Linears, others: dict[str, nn.Linear], run: Callable[[], Any]) -> list[Tensor]:
    with linears.replaced(others):
        return tensors_in(run())


def _changes(linears: Linears, others: dict[str, nn.Linear], run: Callable[[], Any], before: Sequence[Tensor]) -> bool:
    after = _outputs(linears, others, run)
    return len(after) != len(before) or not all(same(a, b) for a, b in zip(before, after, strict=True))
