"""What an error of a hidden unit does to a model's outputs: the metric by which neurons are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.hidden import HiddenLayer, Linears
from eugen_nerf.core.preview import square_root


def output_metrics(
    linears: Linears, layers: Sequence[HiddenLayer], runs: Iterable[Callable[[], Sequence[Tensor]]]
) -> dict[str, Tensor]:
    """For each hidden layer M `[t, l]`: `|M e|^2` is the mean squared change of the outputs by an error e of its units.

    Outputs are combined with random signs (Hutchinson's estimate), one backward pass a batch.

    Args:
        linears: of the model.
        layers: hidden ones.
        runs: each calls the model on a batch and returns its outputs; those without gradients do not count.

    Returns:
        float64, by layer.
    """
    readers = {name for layer in layers for name in layer.readers}
    sums = {layer.name: torch.zeros(*[linears.modules[layer.name].out_features] * 2).double() for layer in layers}
    rows = dict.fromkeys(sums, 0)
    generator = torch.Generator().manual_seed(0)
    for run in runs:
        probes: dict[str, list[Tensor]] = {name: [] for name in readers}
        with torch.enable_grad(), ExitStack() as stack:
            for name in readers:

                def probe(_: nn.Module, inputs: tuple[Any, ...], kept: list[Tensor] = probes[name]) -> tuple[Any, ...]:
                    # a zero is added to what is read: its derivative is that of the input, the chain stays whole
                    zero = torch.zeros_like(inputs[0], requires_grad=True)
                    kept.append(zero)
                    return (inputs[0] + zero, *inputs[1:])

                stack.callback(linears.modules[name].register_forward_pre_hook(probe).remove)
            outputs = [t for t in run() if t.requires_grad]
            signs = [(torch.rand(t.shape, generator=generator) < 0.5).to(t) * 2 - 1 for t in outputs]
            leaves = [leaf for each in probes.values() for leaf in each]
            found = torch.autograd.grad(outputs, leaves, signs, allow_unused=True) if outputs else ()
        filled = iter([torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=False)])
        gradients = {n: [next(filled).flatten(0, -2).double() for _ in each] for n, each in probes.items() if outputs}
        for layer in layers:
            width = linears.modules[layer.name].out_features
            parts = [
                torch.cat([g[:, start : start + width] for g in gradients[name]])
                for name, starts in layer.readers.items()
                for start in starts
            ]
            g = torch.stack(parts).sum(dim=0)
            sums[layer.name] += (g.T @ g).cpu()
            rows[layer.name] += len(g)
    return {name: square_root(total / max(1, rows[name])) for name, total in sums.items()}
