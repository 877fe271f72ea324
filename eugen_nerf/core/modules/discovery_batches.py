"""Hidden layers on batches behind the first ones: what was found there has to hold on all that a conversion runs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eugen_nerf.core.modules.activation_matching import agrees
from eugen_nerf.core.modules.discovery import HiddenLayer, LayerCall, record_calls
from eugen_nerf.core.modules.discovery_trial import trial_reason
from eugen_nerf.core.modules.linears import Linears

_ROWS = 512  # of a batch are compared


def check_batches(
    linears: Linears, layers: Sequence[HiddenLayer], runs: Iterable[Callable[[], Any]], tried: int
) -> tuple[dict[str, str], Counter[str]]:
    """Runs a model on every batch and looks whether its layers are used there as they were on the first.

    Layers are tried together, and each alone only where that fails.

    Args:
        linears: of the model.
        layers: from `find_hidden`, tried already on the first batches.
        runs: each calls the model on a batch; all, from the first.
        tried: how many of them the layers were tried on.

    Returns:
        By layer that is used in another way: the reason. By layer: on how many batches it was called.
    """
    usual: set[str] = set()
    refused: dict[str, str] = {}
    calls: Counter[str] = Counter()
    for index, run in enumerate(runs):
        left = [layer for layer in layers if layer.name not in refused]
        if not left:
            break
        recorded = record_calls(linears.modules, run, keep=_ROWS)
        names = dict.fromkeys(call.name for call in recorded)
        calls.update([*names])
        usual = usual or set(names)
        others = ", ".join(name for name in names if name not in usual)
        where = f" on batch {index + 1}{f', where {others} runs as well' if others else ''}, and not on the first"
        for layer in left:
            if consumer := _other_function(layer, recorded):
                refused[layer.name] = f"is read by {consumer} in another way{where}"
        left = [layer for layer in left if layer.name not in refused]
        if index < tried or not left or (together := trial_reason(linears, left, run)) is None:
            continue
        alone = {layer.name: trial_reason(linears, [layer], run) for layer in left}
        found = {name: reason for name, reason in alone.items() if reason} or dict.fromkeys(alone, together)
        refused |= {name: f"{reason},{where}" for name, reason in found.items()}
    return refused, calls


def _other_function(layer: HiddenLayer, recorded: Sequence[LayerCall]) -> str | None:
    """A consumer that was given what is no output of the layer through its function, where there is one."""
    for index, later in enumerate(recorded):
        starts = layer.consumers.get(later.name)
        calls = [call for call in recorded[:index] if call.name == layer.name and call.rows == later.rows]
        if starts is None or not calls:
            continue
        if not any(all(agrees(call.u, later.x, start, layer.function) for start in starts) for call in calls):
            return later.name
    return None
