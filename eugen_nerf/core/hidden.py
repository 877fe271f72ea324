"""Hidden layers of any PyTorch model: linear layers whose output goes through a function and into linear layers only.

A batch is run and watched; the values tell what reads what, so that functional activations, skips and shared modules
need no code of their own. What was found is then tried: a model with units missing has to agree with the model in which
nobody reads those units, or something else reads them as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eugen_nerf.core.elementwise import IDENTITY, Elementwise, find_blocks, functions_of
from eugen_nerf.core.errors import ConfigError

_ROWS = 512  # of a batch are compared
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


@dataclass(frozen=True)
class HiddenLayer:
    """A linear layer that can be made narrower."""

    name: str
    function: Elementwise
    """What stands between it and its readers."""
    readers: dict[str, tuple[int, ...]]
    """The linear layers that read it, each with the first columns of the blocks that do."""


class Seen(NamedTuple):
    """One call of a linear layer."""

    name: str
    x: Tensor
    """`[n, d]`."""
    u: Tensor
    """`[n, l]`."""
    rows: int
    """How many there were; n may be fewer."""


class Linears:
    """The plain linear layers of a model by name, and how to put others in their places.

    Args:
        model: any; modules that hang in several places count once, by their first name.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[str, nn.Linear] = {}
        self.refused: dict[str, str] = {}
        """Why modules that look like linear layers are none that can be replaced."""
        self._places: dict[str, list[tuple[nn.Module, str]]] = {}
        owners: dict[int, set[int]] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                owners.setdefault(id(parameter), set()).add(id(module))
        names: dict[int, str] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if type(module).__module__.split(".")[0] == "tinycudann":
                self.refused[name] = (
                    "is a module of tinycudann, which has no PyTorch layers: train a teacher that can be converted, "
                    "in nerfstudio with --pipeline.model.implementation torch"
                )
            if not isinstance(module, nn.Linear):
                continue
            first = names.setdefault(id(module), name)
            path, _, attribute = name.rpartition(".")
            self._places.setdefault(first, []).append((model.get_submodule(path), attribute))
            if first != name:
                continue
            shared = any(len(owners[id(p)]) > 1 for p in module._parameters.values() if p is not None)
            if type(module) is not nn.Linear:
                self.refused[name] = f"is a {type(module).__name__}, not a plain nn.Linear"
            elif shared:
                self.refused[name] = "shares its weights with another module"
            elif name == "":
                self.refused[name] = "is the model itself, not a module inside it"
            elif module._forward_hooks or module._forward_pre_hooks or set(module._parameters) != {"weight", "bias"}:
                self.refused[name] = "has hooks, as weight normalisation does, which a new layer would lose"
            else:
                self.modules[name] = module

    @contextmanager
    def replaced(self, others: Mapping[str, nn.Linear]) -> Iterator[None]:
        """Within it, the model has `others` in place of the layers of those names."""
        try:
            self.install(others)
            yield
        finally:
            self.install({name: self.modules[name] for name in others})

    def install(self, others: Mapping[str, nn.Linear]) -> None:
        """Puts layers into the places of those names."""
        for name, linear in others.items():
            for parent, attribute in self._places[name]:
                setattr(parent, attribute, linear)


def watch(linears: Mapping[str, nn.Linear], run: Callable[[], Any], *, keep: int | None = None) -> list[Seen]:
    """Runs a model and returns every call of some of its layers, in order.

    Args:
        linears: the layers to watch, by name.
        run: calls the model.
        keep: largest number of rows kept of each call; all where None.
    """
    seen: list[Seen] = []
    with ExitStack() as stack:
        for name, linear in linears.items():

            def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                x, u = (t.detach().flatten(0, -2) if t.dim() > 1 else t.detach()[None] for t in (inputs[0], output))
                # copies: what follows may work in place
                seen.append(Seen(name, x[:keep].clone(), u[:keep].clone(), len(x)))

            stack.callback(linear.register_forward_hook(note).remove)
        run()
    return seen


def find_hidden(linears: Linears, run: Callable[[], Any]) -> tuple[dict[str, HiddenLayer], dict[str, str]]:
    """What could be made narrower by the values of one batch; `why_not` tells whether it can.

    Args:
        linears: of the model.
        run: calls the model on the batch.

    Returns:
        Hidden layers by name, in the order of their first call; and for every other module the reason why not.
    """
    functions = functions_of(linears.model)
    seen = watch(linears.modules, run, keep=_ROWS)
    found: dict[str, HiddenLayer] = {}
    refused = dict(linears.refused)
    for name in dict.fromkeys(call.name for call in seen):
        calls = [_readers(i, seen, functions) for i, call in enumerate(seen) if call.name == name]
        used = {function for _, blocks in calls[0] for _, function in blocks}
        readers = {reader: tuple(start for start, _ in blocks) for reader, blocks in calls[0]}
        if any(dict(call) != dict(calls[0]) for call in calls):
            refused[name] = "is read in different ways from call to call"
        elif not used:
            refused[name] = "has an output that no linear layer reads through a known function of each unit alone"
        elif IDENTITY in used:
            refused[name] = f"has an output that {next(iter(readers))} reads with no function in between"
        elif len(used) > 1:
            refused[name] = f"has an output that is read through several functions: {', '.join(map(str, used))}"
        elif name in readers:
            refused[name] = "reads its own output"
        else:
            found[name] = HiddenLayer(name, used.pop(), readers)
    for name in linears.modules:
        if name not in found:
            refused.setdefault(name, "was not called on the first batch")
    return found, refused


def _readers(
    index: int, seen: Sequence[Seen], functions: Sequence[Elementwise]
) -> list[tuple[str, tuple[tuple[int, Elementwise], ...]]]:
    """Layers called later that read the output of a call, each with the blocks of columns and their functions."""
    call = seen[index]
    readers: dict[str, tuple[tuple[int, Elementwise], ...]] = {}
    for later in seen[index + 1 :]:
        if later.rows == call.rows and (blocks := find_blocks(call.u, later.x, functions)):
            readers.setdefault(later.name, tuple(blocks))
    return list(readers.items())


def why_not(linears: Linears, layer: HiddenLayer, run: Callable[[], Any]) -> str | None:
    """Whether a hidden layer's readers are all there are; half of its units are taken away to see.

    Args:
        linears: of the model.
        layer: from `find_hidden`.
        run: calls the model on a batch.

    Returns:
        None where it can be made narrower, else the reason why not.
    """
    old = linears.modules[layer.name]
    width = old.out_features
    if width == 1:
        return "has a single unit"
    kept = torch.randperm(width, generator=torch.Generator().manual_seed(0))[: width // 2].sort().values
    narrow = {layer.name: linear_like(old, old.weight[kept], None if old.bias is None else old.bias[kept])}
    deaf = {}
    for name, starts in layer.readers.items():
        reader = linears.modules[name]
        dropped = torch.ones(width, dtype=torch.bool)
        dropped[kept] = False
        columns = torch.cat([start + torch.nonzero(dropped)[:, 0] for start in starts])
        weight = reader.weight.detach().clone()
        weight[:, columns] = 0
        deaf[name] = linear_like(reader, weight, reader.bias)
        rest = torch.ones(reader.in_features, dtype=torch.bool)
        rest[columns] = False
        narrow[name] = linear_like(reader, weight[:, rest], reader.bias)
    whole = tensors_in(run())
    with linears.replaced(deaf):
        expected = tensors_in(run())
    try:
        with linears.replaced(narrow):
            outputs = tensors_in(run())
    except Exception as error:  # any model may raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return f"has a width that the model relies on ({first})"
    tolerance = _TOLERANCE.get(old.weight.dtype, 0.1)
    if len(outputs) != len(expected):
        return "has units that are also read outside of linear layers: outputs are missing without them"
    for before, wanted, output in zip(whole, expected, outputs, strict=True):
        if output.shape != wanted.shape:
            return "has units that are also read outside of linear layers: an output changes its shape without them"
        if not wanted.is_floating_point():
            continue
        change = largest(wanted - before)
        if largest(output - wanted) > 0.02 * change + tolerance * largest(wanted):
            return "has units that are also read outside of linear layers: outputs depend on them"
    return None


def linear_like(old: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with this weight `[l, d]` and bias `[l]`, cast to the dtype, device and mode of another."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().to(old.weight).clone(), requires_grad=old.weight.requires_grad)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(old.weight).clone(), requires_grad=old.weight.requires_grad)
    return linear.train(old.training)


def tensors_in(value: Any, *, detached: bool = True) -> list[Tensor]:
    """All tensors in what a model returns: in lists, mappings and dataclasses, in their order."""
    if isinstance(value, Tensor):
        return [value.detach() if detached else value]
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, f.name) for f in fields(value)]
    else:
        return []
    return [t for part in parts for t in tensors_in(part, detached=detached)]


def largest(x: Tensor) -> float:
    """Largest absolute value, 0 for an empty tensor; NaN counts as infinite."""
    return float(x.double().abs().nan_to_num(nan=torch.inf).max()) if x.numel() else 0.0


def check_repeatable(run: Callable[[], Any]) -> None:
    """Refuses a model that conversion could not be checked on.

    Raises:
        ConfigError: it returns no tensors, or not the same ones twice.
    """
    first, second = tensors_in(run()), tensors_in(run())
    if not first:
        raise ConfigError("the model returns no tensors on the first batch, so that nothing can be checked on it")
    for a, b in zip(first, second, strict=True):
        same = a.shape == b.shape and largest(a.double() - b.double()) <= 1e-3 * largest(a)
        if not same:
            raise ConfigError("the model gives other outputs when it is asked twice: switch its randomness off")
