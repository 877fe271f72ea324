"""Stands in for what depends on numbers that a tensor without contents does not have.

Every mask counts as true everywhere and every number as 1: all samples are kept, all branches on "any" are taken. So
what is counted is an upper bound where samples are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor

_INDEXING = {
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
}


def scalar_of(func: Any, value: Tensor) -> Any:
    """The number in a tensor of one; 1, or true, where it is not known."""
    try:
        return func(value)
    except DataDependentOutputException:
        return True if value.dtype == torch.bool else 1.0 if value.dtype.is_floating_point else 1


def all_kept(func: Any, args: tuple[Any, ...]) -> Iterator[tuple[Tensor, Tensor, tuple[Any, ...] | None]]:
    """Replaces masks without contents by the indices of all their places.

    Yields:
        For each mask: the mask, its indices int64 `[places, dimensions]`, and the call's arguments with indices in
        place of it; None for them where the indices are what is wanted (`nonzero`).
    """
    name = func._schema.name
    if name == "aten::nonzero" and isinstance(args[0], FakeTensor):
        yield args[0], _everywhere(args[0]), None
    if name not in _INDEXING:
        return
    given = list(args[1])
    while any(map(_is_unknown_mask, given)):
        place = next(i for i, index in enumerate(given) if _is_unknown_mask(index))
        mask = given[place]
        indices = _everywhere(mask)
        given[place : place + 1] = indices.unbind(dim=1)
        yield mask, indices, (args[0], given, *args[2:])


def _is_unknown_mask(index: Tensor | None) -> bool:
    return isinstance(index, FakeTensor) and index.dtype == torch.bool


def _everywhere(mask: Tensor) -> Tensor:
    return torch.empty(mask.numel(), mask.dim(), dtype=torch.int64, device=mask.device)
