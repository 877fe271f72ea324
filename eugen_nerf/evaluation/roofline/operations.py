"""What one aten operation costs, whoever runs it: bytes moved, FLOPs of products, random reads and additions.

Only shapes, strides and dtypes are read, so tensors without contents serve. An operation counts as one kernel, which
reads each of its inputs and writes each of its results once. Some operations launch several kernels and take longer;
small results are still in a cache when they are read, and take less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

SECTOR = 32
"""Bytes that a random read moves at least."""
_FREE = {
    "aten::_local_scalar_dense",
    "aten::_unsafe_view",
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::is_same_size",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::resize_",
    "aten::set_",
}
"""What launches no kernel, besides views."""
_OVERWRITING = {
    "aten::bernoulli_",
    "aten::copy_",
    "aten::exponential_",
    "aten::fill_",
    "aten::normal_",
    "aten::random_",
    "aten::uniform_",
    "aten::zero_",
}
"""What writes its first argument without reading it."""
_TABLES = {
    "aten::_embedding_bag",
    "aten::_embedding_bag_forward_only",
    "aten::embedding",
    "aten::gather",
    "aten::index",
    "aten::index_select",
}
"""What reads some rows of its first argument."""
_ADDING = {"aten::index_add_": 3, "aten::index_add": 3, "aten::scatter_add_": 3, "aten::scatter_add": 3}
"""What adds to places of its first argument, and the argument that is added."""
_PUTTING = {"aten::_index_put_impl_", "aten::_unsafe_index_put", "aten::index_put", "aten::index_put_"}


@dataclass(frozen=True)
class Operation:
    """One operation, one kernel."""

    name: str
    """Such as aten::mm."""
    dtype: str
    """Of its first tensor, such as float32."""
    bytes: int
    """Read and written."""
    flops: int = 0
    """Of matrix products, a multiply-add being two; element by element nothing is counted."""
    sectors: int = 0
    """Sectors of `SECTOR` bytes read at random places."""
    atomics: int = 0
    """Numbers added at random places."""


def measure(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Operation | None:
    """The cost of a call of an aten operation; None where it launches nothing, as views.

    Args:
        func: `OpOverload`, as a dispatch mode gets it.
        args: of the call.
        kwargs: of the call.
        out: what it returned.
    """
    name = func._schema.name
    if not name.startswith("aten::") or name in _FREE or _is_view(func):
        return None
    read, written, known = 0, 0, set[int]()
    for argument, values in _arguments(func, args, kwargs):
        size = sum(_footprint(v) for v in values if id(v) not in known)
        known.update(map(id, values))
        in_place = argument.alias_info is not None and argument.alias_info.is_write
        # the fused optimizers declare gradients as written, for a gradient scaler's sake
        written += size if in_place and argument.name != "grads" else 0
        read += 0 if in_place and name in _OVERWRITING else size
    results = out if isinstance(out, (tuple, list)) and len(func._schema.returns) > 1 else (out,)
    for declared, value in zip(func._schema.returns, results, strict=False):
        if declared.alias_info is None:
            written += sum(_footprint(t) for t in tree_leaves(value) if isinstance(t, Tensor))
    sectors = atomics = 0
    if name in _TABLES:
        fetched, sectors = _gathered(name, args, out)
        read += min(fetched, _footprint(args[0])) - _footprint(args[0])
    added = args[_ADDING[name]] if name in _ADDING else args[2] if name in _PUTTING else None
    if added is not None and name.endswith("_"):
        untouched = _footprint(args[0]) - min(_footprint(args[0]), _footprint(added))
        read, written = read - untouched, written - untouched
    if added is not None and (name in _ADDING or (len(args) > 3 and args[3])):
        atomics = added.numel()
    elif name == "aten::embedding_dense_backward":
        atomics = args[0].numel()
    count = flop_registry.get(func._overloadpacket)
    flops = int(count(*args, **kwargs, out_val=out)) if count is not None else 0
    first = next((t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)), None)
    dtype = "none" if first is None else str(first.dtype).removeprefix("torch.")
    return Operation(name, dtype, read + written, flops, sectors, atomics)


def _is_view(func: Any) -> bool:
    returns = [r.alias_info for r in func._schema.returns]
    return any(info is not None and not info.is_write for info in returns)


def _arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, list[Tensor]]]:
    """Declared arguments, and the tensors given for them."""
    for position, argument in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        yield argument, [t for t in tree_leaves(value) if isinstance(t, Tensor)]


def _footprint(tensor: Tensor) -> int:
    """Bytes of a tensor, what is repeated along a dimension counted once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(n for n, stride in sides if stride or not n)


def _gathered(name: str, args: tuple[Any, ...], out: Any) -> tuple[int, int]:
    """Bytes of the rows that are read from a table, and sectors at random places."""
    table: Tensor = args[0]
    if name == "aten::gather":  # along a ray: neighbours
        return _footprint(out), 0
    if name == "aten::index":
        lookups = math.prod(torch.broadcast_shapes(*(i.shape for i in args[1] if i is not None)))
        row = out.numel() * table.element_size() // max(1, lookups)
    elif name == "aten::index_select":
        lookups = args[2].numel()
        row = out.numel() * table.element_size() // max(1, lookups)
    else:
        lookups, row = args[1].numel(), table.shape[1] * table.element_size()
    return lookups * row, lookups * -(-row // SECTOR)
