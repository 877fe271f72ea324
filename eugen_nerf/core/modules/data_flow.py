"""Where the outputs and the weights of linear layers go while a model runs, from the operations that use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eugen_nerf.core.modules.linears import Linears, plain_name

_MOVES = frozenset(
    {"view", "_unsafe_view", "_reshape_alias", "reshape", "t", "transpose", "permute", "slice", "select", "split"}
    | {"split_with_sizes", "unbind", "cat", "stack", "clone", "expand", "repeat", "squeeze", "unsqueeze", "_to_copy"}
    | {"detach", "alias", "copy_", "copy", "index", "index_select", "gather", "roll", "flip", "constant_pad_nd"}
    | {"narrow", "unfold", "lift_fresh"}
)
"""Operations that put numbers elsewhere and leave them as they are."""
_PLAIN_MOVES = frozenset(
    {"t", "transpose", "clone", "_to_copy", "detach", "alias"} | {"copy_", "copy", "lift_fresh", "cat"}
)
"""Those that leave a layer's units side by side in their order, row by row."""
_SHAPES = frozenset({"view", "_unsafe_view", "_reshape_alias", "reshape", "squeeze", "unsqueeze"})
"""Those that do so where the last dimension stays."""
_PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "mv", "dot"})
_ADDED = "is added to another value"
_PAIRS = {"add": _ADDED, "sub": _ADDED, "mul": "is multiplied by another value"}


@dataclass
class Flow:
    """What became of outputs and weights in one run."""

    elsewhere: dict[str, str] = field(default_factory=dict)
    """By layer whose weight or bias is read outside of its own call: where."""
    uses: dict[str, list[str]] = field(default_factory=dict)
    """By layer: what its output, as it is or through functions of each number alone, goes to besides linear layers."""
    functions: dict[str, list[str]] = field(default_factory=dict)
    """By layer: the operations on each number alone that its output goes through."""
    moves: dict[str, list[str]] = field(default_factory=dict)
    """By layer: the operations that its output is cut, reordered or repeated by."""

    def sentence(self, name: str) -> str:
        """What stands in the way of a layer, as far as it is known."""
        if uses := self.uses.get(name):
            return f"it {'; it '.join(uses[:3])}"
        functions = self.functions.get(name, [])
        if moves := self.moves.get(name):
            between = f"goes through {', '.join(functions[:6])} and " if functions else ""
            return (
                f"it {between}is cut, reordered or repeated ({', '.join(moves[:3])}), and units are followed only "
                "where they stay side by side, row by row"
            )
        if functions:
            return f"it goes through {', '.join(functions[:6])}, which is none of the known functions"
        return "nothing uses it before it is returned"


def follow(linears: Linears, run: Callable[[], Any]) -> Flow:
    """Runs a model and follows what its linear layers put out.

    Args:
        linears: of the model.
        run: calls the model.
    """
    follower = _Follower(linears)
    with ExitStack() as stack:
        for name, module in linears.model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                stack.enter_context(follower.listening(plain_name(name), module))
        with follower:
            run()
    return follower.flow


class _Follower(TorchDispatchMode):
    """Marks storages that hold outputs of layers, and notes the operations that read them, or weights, from outside."""

    def __init__(self, linears: Linears) -> None:
        super().__init__()
        self.linears, self.flow = linears, Flow()
        self.calls: list[tuple[str, nn.Module]] = []
        self.marks: dict[int, dict[str, None]] = {}
        self.kept: list[Any] = []  # an address that is free again may become another tensor's
        self.weights: list[tuple[int, int, int, str]] = []
        for name, module in linears.modules.items():
            for parameter in module.parameters(recurse=False):
                if (place := _place(parameter)) is not None:
                    self.weights.append((*place, name))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for seconds, to keep it away from this mode

    @contextmanager
    def listening(self, name: str, module: nn.Module) -> Iterator[None]:
        """Within it, calls of a module are known, and what a linear layer puts out is marked."""

        def enter(*_: Any) -> None:
            self.calls.append((name, module))

        def leave(_: nn.Module, inputs: Any, output: Any) -> None:
            while self.calls and self.calls.pop()[1] is not module:
                pass  # a module that raised left no notice
            if name in self.linears.modules and isinstance(output, Tensor):
                self._mark(output, {name: None})

        handles = module.register_forward_pre_hook(enter), module.register_forward_hook(leave)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if torch._C._current_graph_task_id() == -1:  # gradients inside a model read weights, and stay right
            self._note(func, _tensors((args, kwargs)), _tensors(output))
        return output

    def _note(self, func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        operation = func._overloadpacket.__name__
        running = {name for name, _ in self.calls}
        for tensor in inputs:
            if (place := _place(tensor)) is None:
                continue
            for storage, start, end, name in self.weights:
                if storage == place[0] and start < place[2] and place[1] < end and name not in running:
                    self.flow.elsewhere.setdefault(name, self._caller())
        if self.calls and self.calls[-1][0] in self.linears.modules:
            return
        found = [self.marks.get(_storage(tensor), {}) for tensor in inputs]
        marked = {name: None for names in found for name in names}
        if not marked:
            return
        # values of other origin; single numbers are constants of a function
        others = any(names != marked for tensor, names in zip(inputs, found, strict=True) if tensor.numel() > 1)
        pointwise = torch.Tag.pointwise in func.tags
        base = operation.rstrip("_")
        if operation in _MOVES or (pointwise and not others):
            for name in marked if pointwise and operation not in _MOVES else ():
                _append(self.flow.functions, name, base)
            plain = operation in _PLAIN_MOVES or (
                operation in _SHAPES
                and all(a.shape[-1:] == b.shape[-1:] for a, b in zip(inputs, outputs, strict=False))
            )
            for name in marked if operation in _MOVES and not plain else ():
                _append(self.flow.moves, name, base)
            for tensor in outputs:
                self._mark(tensor, {**self.marks.get(_storage(tensor), {}), **marked})
            return
        for name in marked:
            _append(self.flow.uses, name, self._use(base, operation))
        for tensor in outputs:  # changed in place, it is no layer's output any more
            self.marks.pop(_storage(tensor), None)

    def _mark(self, tensor: Tensor, names: dict[str, None]) -> None:
        if key := _storage(tensor):
            self.marks[key] = names
            self.kept.append(tensor.untyped_storage())

    def _use(self, base: str, operation: str) -> str:
        name = self.calls[-1][0] if self.calls else ""
        if reason := self.linears.refused.get(name):
            return f"is read by {name or 'the model'}, which {reason}"
        if base in _PAIRS:
            return _PAIRS[base] + self._inside()
        return f"goes through {self._where(operation)}"

    def _where(self, operation: str) -> str:
        """An operation in words, with the module around it."""
        name, module = self.calls[-1] if self.calls else ("", self.linears.model)
        if name and not any(True for _ in module.children()):
            return self._caller()
        words = operation.strip("_").removeprefix("native_")
        if words in _PRODUCTS:
            words = "a matrix product by no nn.Linear of the model"
        elif "attention" in words:
            words = "attention"
        return words + self._inside()

    def _inside(self) -> str:
        return f" in {self._caller()}" if self.calls and self.calls[-1][0] else ""

    def _caller(self) -> str:
        """The module that runs, and its type."""
        name, module = self.calls[-1] if self.calls else ("", self.linears.model)
        return f"{name or 'the model'} ({type(module).__name__})"


def _append(lists: dict[str, list[str]], name: str, text: str) -> None:
    if text not in (own := lists.setdefault(name, [])):
        own.append(text)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and _is_plain(leaf)]


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


def _storage(tensor: Tensor) -> int:
    """Address of what holds a tensor's numbers; 0 where there are none."""
    return tensor.untyped_storage().data_ptr()


def _place(tensor: Tensor) -> tuple[int, int, int] | None:
    """Address of the storage, first byte in it and the one after the last; None for a tensor without numbers."""
    if not tensor.numel() or not (storage := _storage(tensor)):
        return None
    start = int(tensor.storage_offset())
    end = start + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    size = tensor.element_size()
    return storage, start * size, end * size
