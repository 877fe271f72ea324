"""Hidden layers of any PyTorch model: linear layers whose output goes through a function and into linear layers only.

Calls are recorded on a batch; their values show what reads what, so that functional activations, skips and shared
modules need no code of their own. What is found is then tried (`discovery_trial`): something else may read it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.modules.activation_matching import IDENTITY, Elementwise, find_blocks, functions_of
from eugen_nerf.core.modules.data_flow import follow
from eugen_nerf.core.modules.linears import Linears

_ROWS = 512  # of a batch are compared


@dataclass(frozen=True)
class HiddenLayer:
    """A linear layer that can be made narrower."""

    name: str
    function: Elementwise
    """What stands between it and its consumers."""
    consumers: dict[str, tuple[int, ...]]
    """The linear layers that read it, each with the first columns of the blocks that do."""
    others: tuple[str, ...] = ()
    """What else its output seems to go to, in words."""


class LayerCall(NamedTuple):
    """One call of a linear layer."""

    name: str
    x: Tensor
    """`[n, d]`."""
    u: Tensor
    """`[n, l]`."""
    rows: int
    """How many there were; n may be fewer."""


def record_calls(
    linears: Mapping[str, nn.Module], run: Callable[[], Any], *, keep: int | None = None
) -> list[LayerCall]:
    """Runs a model and returns every call of some of its layers, in order.

    Args:
        linears: the layers whose calls are recorded, by name.
        run: calls the model.
        keep: largest number of rows kept of each call; all where None.
    """
    calls: list[LayerCall] = []
    with ExitStack() as stack:
        for name, linear in linears.items():

            def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], u: Tensor, name: str = name) -> None:
                (x,) = (*args, *kwargs.values())
                if torch._C._functorch.is_functorch_wrapped_tensor(u):
                    raise ConfigError(
                        f"{name} runs inside a transformation of torch.func (vmap, grad), where its values do not "
                        "show: give a call that runs the model without"
                    )
                x, u = (t.detach().flatten(0, -2) if t.dim() > 1 else t.detach()[None] for t in (x, u))
                # copies, as what follows may work in place; of a kind that gradients can be taken of later
                with torch.inference_mode(False):
                    calls.append(LayerCall(name, x[:keep].clone(), u[:keep].clone(), len(x)))

            stack.callback(linear.register_forward_hook(note, with_kwargs=True).remove)
        run()
    return calls


def find_hidden(linears: Linears, run: Callable[[], Any]) -> tuple[dict[str, HiddenLayer], dict[str, str]]:
    """What could be made narrower by the values of one batch; `unsupported_reason` says whether it can.

    Args:
        linears: of the model.
        run: calls the model on the batch.

    Returns:
        Hidden layers by name, in the order of their first call; and for every other module the reason against it.
    """
    functions = functions_of(linears.model)
    recorded = record_calls(linears.modules, run, keep=_ROWS)
    flow = follow(linears, run)
    found: dict[str, HiddenLayer] = {}
    refused = dict(linears.refused)
    for name in dict.fromkeys(call.name for call in recorded):
        calls = [_consumers(i, recorded, functions) for i, call in enumerate(recorded) if call.name == name]
        used = {function for _, blocks in calls[0] for _, function in blocks}
        consumers = {consumer: tuple(start for start, _ in blocks) for consumer, blocks in calls[0]}
        functions_met = flow.functions.get(name, [])
        outside = next((part for part in (name, *consumers) if part in flow.elsewhere), None)
        if any(dict(call) != dict(calls[0]) for call in calls):
            uses = "".join(f"; it {use}" for use in flow.uses.get(name, [])[:2])
            refused[name] = f"is read in different ways from call to call{uses}"
        elif not used and all(bool((call.u <= 0).all()) for call in recorded if call.name == name) and functions_met:
            refused[name] = (
                f"has no unit above 0 on the first batch, of which {', '.join(functions_met)} leaves nothing to see: "
                "give batches on which units are alive"
            )
        elif not used:
            refused[name] = (
                "has an output that no linear layer reads through a known function of each unit alone: "
                + flow.sentence(name)
            )
        elif IDENTITY in used and functions_met:
            refused[name] = (
                f"goes through {', '.join(functions_met)}, which changes none of its values on the first batch: give "
                "one on which it does"
            )
        elif IDENTITY in used:
            refused[name] = f"has an output that {next(iter(consumers))} reads with no function in between"
        elif len(used) > 1:
            refused[name] = f"has an output that is read through several functions: {', '.join(map(str, used))}"
        elif name in consumers:
            refused[name] = "reads its own output"
        elif outside is not None:
            whose = "has weights that are" if outside == name else f"is read by {outside}, whose weights are"
            where = flow.elsewhere[outside]
            refused[name] = f"{whose} also read outside of its call, by {where}, as those of tied layers are"
        else:
            again = [f"{n} also reads other values" for n in consumers if _reads_others(n, name, recorded, functions)]
            found[name] = HiddenLayer(name, used.pop(), consumers, (*again, *flow.uses.get(name, ())))
    for name in linears.modules:
        if name not in found:
            weights = flow.elsewhere.get(name)
            instead = f": its weights are read by {weights} instead" if weights else ""
            refused.setdefault(name, f"was not called on the first batch{instead}")
    return found, refused


def _consumers(
    index: int, recorded: Sequence[LayerCall], functions: Sequence[Elementwise]
) -> list[tuple[str, tuple[tuple[int, Elementwise], ...]]]:
    """Layers called later that read the output of a call, each with the blocks of columns and their functions."""
    call = recorded[index]
    consumers: dict[str, tuple[tuple[int, Elementwise], ...]] = {}
    for later in recorded[index + 1 :]:
        if later.rows == call.rows and (blocks := find_blocks(call.u, later.x, functions)):
            consumers.setdefault(later.name, tuple(blocks))
    return list(consumers.items())


def _reads_others(consumer: str, name: str, recorded: Sequence[LayerCall], functions: Sequence[Elementwise]) -> bool:
    """Whether a layer is also called with what is no output of another, through whatever function."""
    for index, later in enumerate(recorded):
        if later.name != consumer:
            continue
        calls = [call for call in recorded[:index] if call.name == name and call.rows == later.rows]
        if not any(find_blocks(call.u, later.x, functions) for call in calls):
            return True
    return False
