"""What an error of a hidden unit does to a model's outputs: the metric by which neurons are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.importance import square_root
from eugen_nerf.core.modules.discovery import HiddenLayer
from eugen_nerf.core.modules.linears import Linears


def output_metrics(
    linears: Linears, layers: Sequence[HiddenLayer], runs: Iterable[Callable[[], Sequence[Tensor]]]
) -> dict[str, Tensor]:
    """For each hidden layer M `[t, l]`: `|M e|^2` is the mean squared change of the outputs by an error e of its units.

    Outputs are combined with random signs (Hutchinson's estimate), one backward pass a batch. Entries that are infinite
    or NaN count for nothing, nor do rows without a finite derivative.

    Args:
        linears: of the model.
        layers: hidden ones.
        runs: each calls the model on a batch and returns its outputs; those without gradients do not count.

    Returns:
        float64, by layer.

    Raises:
        ConfigError: no output carries gradients, or none that are finite.
    """
    _check_trainable(linears.model)
    consumers = {name for layer in layers for name in layer.consumers}
    sums = {layer.name: torch.zeros(*[linears.dense[layer.name].out_features] * 2).double() for layer in layers}
    rows = dict.fromkeys(sums, 0)
    generator = torch.Generator().manual_seed(0)
    for run in runs:
        for name, g in _gradients(linears, layers, consumers, run, generator).items():
            sums[name] += (g.T @ g).cpu()
            rows[name] += len(g)
    if sums and not any(rows.values()):
        raise ConfigError(
            "no output of the model carries finite gradients (it runs under no_grad, inference_mode or a reentrant "
            "checkpoint inside, or returns labels): give a call that returns outputs with gradients, or leave "
            "output_aware out"
        )
    return {name: square_root(total / max(1, rows[name])) for name, total in sums.items()}


def _gradients(
    linears: Linears,
    layers: Sequence[HiddenLayer],
    consumers: Iterable[str],
    run: Callable[[], Sequence[Tensor]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Derivatives `[n, l]` of the outputs, combined by random signs, with respect to each layer's units."""
    probes: dict[str, list[Tensor]] = {name: [] for name in consumers}
    with torch.enable_grad(), ExitStack() as stack:
        for name, kept in probes.items():

            def probe(
                _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], kept: list[Tensor] = kept
            ) -> tuple[tuple[Any, ...], dict[str, Any]]:
                # a zero is added to what is read: its derivative is that of the input, the chain stays whole
                (x,) = (*args, *kwargs.values())
                zero = torch.zeros_like(x, requires_grad=True)
                kept.append(zero)
                return (x + zero,), {}

            stack.callback(linears.modules[name].register_forward_pre_hook(probe, with_kwargs=True).remove)
        outputs = [t for t in run() if t.requires_grad]
        if not outputs or not any(probes.values()):
            return {}
        # entries that are infinite or NaN by design do not count
        signs = [
            ((torch.rand(t.shape, generator=generator) < 0.5).to(t) * 2 - 1).where(t.detach().isfinite(), 0)
            for t in outputs
        ]
        probes = {name: [*each] for name, each in probes.items()}  # checkpoints run layers again, and add to them
        leaves = [leaf for each in probes.values() for leaf in each]
        found = torch.autograd.grad(outputs, leaves, signs, allow_unused=True)
    filled = iter([torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)])
    gradients = {
        name: [torch.atleast_2d(next(filled)).flatten(0, -2).double() for _ in each] for name, each in probes.items()
    }
    combined = {}
    for layer in layers:
        width = linears.dense[layer.name].out_features
        parts = [
            torch.cat([g[:, start : start + width] for g in gradients[name]])
            for name, starts in layer.consumers.items()
            for start in starts
            if gradients[name]
        ]
        if parts:
            g = torch.stack(parts).sum(dim=0)
            combined[layer.name] = g[g.isfinite().all(dim=1)]
    return combined


def _check_trainable(model: nn.Module) -> None:
    """Refuses a model that gradients cannot pass through.

    Raises:
        ConfigError: a parameter or buffer was made in inference mode.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ConfigError(
                f"{name} was made under torch.inference_mode, so that no gradient passes through the model: build or "
                "load the model outside of it, or leave output_aware out"
            )
