"""Counts the operations of whatever runs, on real tensors or on those without contents (`FakeTensorMode`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from eugen_nerf.evaluation.roofline.operations import Operation, measure
from eugen_nerf.evaluation.roofline.parts import OTHER, current_part
from eugen_nerf.evaluation.roofline.unknown import all_kept, scalar_of


@dataclass(frozen=True)
class Counted:
    """An operation, and where it belongs."""

    operation: Operation
    part: str
    """A value of `PARTS`, or other."""
    backward: bool
    """Whether automatic differentiation launched it."""


class OperationCounter(TorchDispatchMode):
    """While it is entered, `operations` grows by every operation that launches a kernel.

    Operations of a backward pass belong to the part whose forward pass made them: automatic differentiation numbers
    its nodes in the order in which they are made, and says which one it is at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Counted] = []
        self._part_of_node: dict[int, str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it."""
        kwargs = kwargs or {}
        node = torch._C._current_autograd_node()
        part = current_part() if node is None else self._part_of_node.get(node._sequence_nr(), OTHER)
        # the first operation after a node was made is the node's own
        self._part_of_node.setdefault(torch._C._autograd._get_sequence_nr() - 1, part)
        if func is torch.ops.aten._local_scalar_dense.default:
            return scalar_of(func, args[0])
        for mask, indices, replaced in all_kept(func, args):
            self._count(torch.ops.aten.nonzero.default, (mask,), {}, indices, part, node is not None)
            if replaced is None:
                return indices
            args = replaced
        out = func(*args, **kwargs)
        self._count(func, args, kwargs, out, part, node is not None)
        return out

    def _count(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, part: str, backward: bool
    ) -> None:
        operation = measure(func, args, kwargs, out)
        if operation is not None:
            self.operations.append(Counted(operation, part, backward))


@contextmanager
def kept_tensors(module: nn.Module) -> Iterator[dict[int, torch.UntypedStorage]]:
    """What is kept for the backward pass of the forward pass within, without the module's own parameters.

    Yields:
        Storages by an address of theirs; views of one storage are one.
    """
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
