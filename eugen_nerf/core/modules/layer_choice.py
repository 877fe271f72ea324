"""Which hidden layers of a model are converted: those that patterns match, less those that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.modules.discovery import HiddenLayer
from eugen_nerf.core.modules.discovery_trial import unsupported_reason
from eugen_nerf.core.modules.linears import Linears
from eugen_nerf.core.modules.outputs import tensors_in
from eugen_nerf.core.networks.nerf_mlp import match_names


class NothingToConvert(ConfigError):
    """None of the chosen modules is a hidden layer; the message holds the reason for each."""


def _names(linears: Linears) -> list[str]:
    return [*linears.modules, *(name for name in linears.refused if name not in linears.modules)]


def check_layers(linears: Linears) -> None:
    """Refuses a model without anything to convert before it is run.

    Raises:
        ConfigError: it has no linear layers; the message says what it has.
    """
    if not _names(linears):
        kinds = dict.fromkeys(type(m).__name__ for m in linears.model.modules() if m._parameters)
        raise ConfigError(
            "the model has no nn.Linear that could be converted; what it has of its own are "
            f"{', '.join(kinds) or 'no parameters at all'}. Layers in plain lists or dictionaries are no part of a "
            "model: hold them in an nn.ModuleList or nn.ModuleDict"
        )


def choose_layers(
    linears: Linears,
    found: Mapping[str, HiddenLayer],
    refused: Mapping[str, str],
    layers: Sequence[str],
    exclude: Sequence[str],
    runs: Sequence[Callable[[], Any]],
) -> tuple[list[HiddenLayer], dict[str, str]]:
    """The layers to convert, in order, and why others that match are not.

    Args:
        linears: of the model.
        found: hidden layers by name, from `find_hidden`.
        refused: why other modules are none, from there too.
        layers: regular expressions on full module names; all where empty.
        exclude: the same, of layers to leave alone.
        runs: the model on a few batches, which each layer is tried on.

    Raises:
        ConfigError: patterns that match nothing.
        NothingToConvert: none is left, with the reasons.
    """
    everything = _names(linears)
    unwanted = set(match_names(exclude, everything)) if exclude else set()
    hits = [n for n in (match_names(layers, everything) if layers else everything) if n not in unwanted]
    reasons = dict(refused)
    plan = []
    whole = [tensors_in(run()) for run in runs]
    for name, layer in found.items():
        if name not in hits:
            continue
        if reason := unsupported_reason(linears, layer, runs, whole):
            reasons[name] = reason
        else:
            plan.append(layer)
    chosen = {layer.name for layer in plan}
    skipped = {name: reasons[name] for name in hits if name not in chosen}
    if not plan:
        others = [name for name in found if name not in hits]
        hint = f". Hidden layers are: {', '.join(others)}" if others else ""
        raise NothingToConvert(nothing_reason(skipped) + hint)
    return plan, skipped


def nothing_reason(skipped: Mapping[str, str]) -> str:
    """Why no layer is left, in words."""
    why = "; ".join(f"{name or 'the model'} {reason}" for name, reason in skipped.items())
    return f"no layer to convert: {why or 'all of them are excluded'}"
