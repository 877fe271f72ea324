"""What a model returns: its tensors, and whether two runs of it agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 2e-2  # of half precisions
_NOISE = 10.0
"""Times the difference that rounding makes means nothing."""
_LEAST_SLICE = 8
"""Numbers of a slice that are compared on a scale of their own; fewer may all be rounding errors by chance."""
_MOST = 1 << 24
"""Numbers of a tensor that are compared; of more, every other row, as often as it takes."""
_FEW = 64
"""Numbers of a tensor that is cut into slices of any size, as one row of channels is."""


def tensors_in(value: Any, *, detached: bool = True) -> list[Tensor]:
    """All numbers in what a model returns, in their order: tensors, arrays, plain numbers.

    They are looked for in lists, mappings, dataclasses and the attributes of other objects. Sparse, nested and
    quantized tensors are given as plain ones.

    Args:
        value: what is returned.
        detached: without gradients.
    """
    return _tensors_in(value, detached, set())


def _tensors_in(value: Any, detached: bool, outer: set[int]) -> list[Tensor]:
    if isinstance(value, Tensor):
        if value.is_nested:
            parts = list(value.unbind())
        else:
            value = value.dequantize() if value.is_quantized else value
            value = value if value.layout == torch.strided else value.to_dense()
            return [value.detach() if detached else value]
    elif isinstance(value, float | complex):
        return [torch.tensor(value)]  # of single precision, as what it was computed from
    elif isinstance(value, int):
        return [torch.tensor(value)]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif hasattr(value, "__array_interface__"):  # numpy's
        numeric = value.__array_interface__["typestr"][1] in "biufc"
        return [torch.as_tensor(value)] if numeric else []
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, f.name) for f in fields(value)]
    elif isinstance(value, nn.Module) or callable(value) or id(value) in outer:
        return []
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    outer = {*outer, id(value)}
    return [t for part in parts for t in _tensors_in(part, detached, outer)]


def differ(expected: Tensor, output: Tensor, noisy: Sequence[Tensor] = (), dtype: torch.dtype | None = None) -> bool:
    """Whether two tensors of one shape differ by more than rounding errors.

    Each channel is held against its own largest number: what is large beside it hides nothing. Any dimension may be
    that of channels, but the first one where its slices are small: it is that of rows, and some of those may be near 0.
    Entries that are infinite or NaN have to be so in both. Entries that become finite or stop being so by rounding
    errors alone are left out.

    Args:
        expected: of any dtype.
        output: to compare with it.
        noisy: what rounding errors make of `expected`: they set the scale of what means nothing.
        dtype: the coarsest that was computed in; `expected`'s where None.
    """
    coarsest = dtype if dtype in (torch.float16, torch.bfloat16) else expected.dtype
    tolerance = _TOLERANCE.get(coarsest if coarsest.is_floating_point else torch.float32, _COARSE)
    exact = not (expected.is_floating_point() or expected.is_complex())
    expected, output, *noisy = (_numbers(t) for t in (expected, output, *noisy))
    stable = torch.ones_like(expected, dtype=torch.bool)
    for other in noisy:
        stable &= _kinds(other) == _kinds(expected)
        if exact:
            stable &= other == expected
    if bool((stable & (_kinds(output) != _kinds(expected))).any()):
        return True
    stable &= expected.isfinite()
    difference, scale = (output - expected).abs().where(stable, 0), expected.abs().where(stable, 0)
    if exact:  # labels, say: one in a thousand may be a tie
        return int((difference > 0).sum()) > difference.numel() / 1000
    noise = torch.zeros_like(scale)
    for other in noisy:
        noise = torch.maximum(noise, (other - expected).abs().where(stable, 0))
    for largest in _scales(expected.shape):
        if bool((largest(difference) > tolerance * largest(scale) + _NOISE * largest(noise)).any()):
            return True
    return False


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal bit for bit, NaN equal to itself."""
    if first.shape != second.shape:
        return False
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


def check_repeatable(run: Callable[[], Any]) -> None:
    """Refuses a model that conversion could not be checked on.

    Raises:
        ConfigError: it does not run, returns no tensors, none that are finite, or not the same ones twice.
    """
    try:
        first, second = tensors_in(run()), tensors_in(run())
    except ConfigError:
        raise
    except Exception as error:  # any model may raise anything
        line = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"the model does not run on the first batch ({type(error).__name__}: {line}). A tuple or list is the "
            "arguments of its call, a mapping its keyword arguments, anything else its one argument: give other "
            "batches, or call=lambda model, batch: ..."
        ) from error
    if not first:
        raise ConfigError("the model returns no tensors on the first batch, so that nothing can be checked on it")
    if not any(t.numel() for t in first):
        raise ConfigError("the model returns nothing but empty tensors on the first batch: give one with rows")
    if not any(bool(t.isfinite().any()) for t in first):
        raise ConfigError("the model returns no finite number on the first batch, so that nothing can be checked on it")
    if len(first) != len(second) or any(a.shape != b.shape or differ(a, b) for a, b in zip(first, second, strict=True)):
        raise ConfigError("the model gives other outputs when it is called twice: switch its randomness off")


def _numbers(t: Tensor) -> Tensor:
    t = torch.view_as_real(t) if t.is_complex() else t
    for dim in range(t.dim()):
        while t.numel() > _MOST and t.shape[dim] > _FEW:
            t = t.index_select(dim, torch.arange(0, t.shape[dim], 2, device=t.device))
    return t.detach().double()


def _kinds(t: Tensor) -> Tensor:
    """0 for finite numbers, 1 and -1 for the infinities, 2 for NaN."""
    return t.isnan() * 2 + t.isposinf() * 1 - t.isneginf() * 1


def _scales(shape: torch.Size) -> list[Callable[[Tensor], Tensor]]:
    """Largest numbers of the slices of dimensions that may be channels, or of all; none of an empty tensor."""
    count = shape.numel()
    if count == 0:
        return []
    cut = [
        d
        for d, size in enumerate(shape)
        if size > 1 and (count <= _FEW or count // size >= size or (d > 0 and count // size >= _LEAST_SLICE))
    ]

    def by(dim: int) -> Callable[[Tensor], Tensor]:
        return lambda t: t.movedim(dim, 0).reshape(t.shape[dim], -1).amax(dim=1)

    return [by(d) for d in cut] or [lambda t: t.amax()]
