"""The dispatch mode: it sees every operation, checks and marks devices, and counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pretend.counts import Counts
from pretend.tags import CPU, device_of, storage_key, tag

COPIES = {"copy_", "_to_copy", "set_"}
"""Operations that may meet two devices."""
FREE = {"alias", "detach", "empty", "empty_like", "empty_strided", "is_same_size", "lift_fresh", "new_empty"}
FREE |= {"_local_scalar_dense", "_unsafe_view", "new_empty_strided", "resize_", "set_", "split_with_sizes"}
"""Operations without a kernel, beside those that torch itself calls views."""
WAITS = {"_local_scalar_dense", "bincount", "equal", "masked_scatter_backward", "masked_select", "nonzero"}
WAITS |= {"_unique2", "unique_consecutive", "unique_dim", "histc"}
"""Operations whose result or its size the host has to know."""
SOLVERS = tuple(f"{head}{name}" for head in ("linalg_", "_linalg_") for name in ("eig", "svd", "solve", "cholesky"))
SOLVERS += ("linalg_inv", "linalg_lstsq", "linalg_lu", "linalg_qr", "linalg_ldl", "cholesky", "triangular_solve")
"""Beginnings of the names of operations that wait for the device's error code."""
GATHERS = {"_embedding_bag", "_unsafe_index", "embedding", "gather", "index", "index_select"}
"""Operations that read as much of their first tensor as they put out."""
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Operations on lists of indices, which may lie on the CPU."""
ON_ONE_DEVICE = {"addmm", "bmm", "cat", "embedding", "index_select", "mm", "stack"}
"""Operations that take not even a single number from another device."""


class PretendedOperations(TorchDispatchMode):
    """Checks, marks and counts operations.

    Args:
        counts: takes the counts.
    """

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation; raises `DeviceMixError` where its tensors are on two devices."""
        kwargs = kwargs or {}
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        devices = [device_of(t) for t in tensors]
        on_device = [d for d in devices if d.type == "cuda"]
        if not on_device or not self.counts.pretending:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        given = {storage_key(t) for t in tensors}
        self._check(name, args, kwargs, tensors, devices)
        results = func(*args, **kwargs)
        made = [t for t in _tensors((results,)) if storage_key(t) not in given]
        for result in made:
            tag(result, on_device[0])
        self._count(func, name, args, kwargs, tensors, made)
        return results

    def _check(self, name: str, args: Any, kwargs: Any, tensors: list[Any], devices: list[torch.device]) -> None:
        if name in COPIES:
            if len({d.type for d in devices}) > 1 and not _flag(args, kwargs, "non_blocking", 2):
                self.counts.wait("copy between devices")
        elif name in MASKED:
            self._check_indices(name, args)
        elif CPU in devices and not name.startswith(("_foreach_", "_fused_", "_amp_", "index_fill_")):
            strict = name in ON_ONE_DEVICE
            written = [args[0]] if name.endswith("_") else [v for k, v in kwargs.items() if k.startswith("out")]
            numbers = {id(t) for t in tensors if t.ndim == 0 and not strict} - {id(t) for t in written}
            if any(d == CPU and id(t) not in numbers for t, d in zip(tensors, devices, strict=True)):
                shown = ", ".join(f"{list(t.shape)} on {d}" for t, d in zip(tensors, devices, strict=True))
                self.counts.refuse(f"{name} has tensors on two devices: {shown}")

    def _check_indices(self, name: str, args: Any) -> None:
        source, indices, *values = args
        where = device_of(source)
        for index in (i for i in indices if i is not None):
            if device_of(index) != where and where == CPU:
                self.counts.refuse(f"{name} takes from a tensor on the CPU by indices on {device_of(index)}")
            if index.dtype in (torch.bool, torch.uint8) and not (name != "index" and values[0].numel() == 1):
                self.counts.wait(f"{name} by a mask")
            elif device_of(index) != where:
                self.counts.wait(f"{name} by indices on the CPU")
        if values and device_of(values[0]) != where and values[0].ndim:
            self.counts.refuse(f"{name} puts values on {device_of(values[0])} into a tensor on {where}")

    def _count(self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Any], made: list[Any]) -> None:
        unsized = name == "repeat_interleave" and _flag(args, kwargs, "output_size", 1) is None
        if name in WAITS or name.startswith(SOLVERS) or unsized:
            self.counts.wait(name)
        if func.is_view or name in FREE:
            return
        touched = [*(tensors[1:] + made if name in GATHERS else tensors), *made]
        self.counts.launch(sum(t.numel() * t.element_size() for t in touched))
        if any(t.dtype == torch.float64 and t.numel() > 1 for t in made):
            self.counts.double(name)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among values, and in lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _flag(args: Any, kwargs: Any, name: str, position: int) -> Any:
    """An argument by its name or its place."""
    return kwargs.get(name, args[position] if len(args) > position else None)
