"""torch's functions that name a device, replaced by ones that know of the pretence.

They are replaced as attributes: a function mode would not see the calls inside torch's own Python code. All of them are
met before torch reads their device, which would look for a real GPU.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._device import _device_constructors

from pretend.counts import Counts
from pretend.tags import CPU, as_device, device_of, tag

PUT_TOGETHER = {"as_tensor", "asarray", "new_tensor", "scalar_tensor", "tensor"}
"""What makes a tensor of numbers of the host."""
UNFILLED = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
METHODS = ("new_empty", "new_full", "new_ones", "new_zeros")
DRAWS = ("bernoulli", "bernoulli_", "exponential_", "multinomial", "normal_", "random_", "uniform_")

Function = Callable[..., Any]


class PretendedGenerator(torch._C.Generator):
    """A generator of the CPU's random numbers that says which device it is for."""

    def __new__(cls, device: Any = "cpu") -> PretendedGenerator:
        """As torch's."""
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.pretended = as_device(device)

    @property
    def device(self) -> torch.device:
        """The device it is for."""
        return self.pretended


def function_patches(counts: Counts) -> Iterator[Any]:
    """Patches of `torch` and of `torch.Tensor`, to be entered."""
    like = {f"{name}_like" for name in ("empty", "full", "ones", "rand", "randint", "randn", "zeros")}
    names = {f.__name__ for f in _device_constructors()} | like | PUT_TOGETHER
    makers = {name: getattr(torch, name) for name in names if hasattr(torch, name)}
    made = {name: _constructor(counts, name, original) for name, original in makers.items()}
    for module in list(sys.modules.values()):  # `from torch import tensor`
        content = vars(module)
        for name in [name for name in makers.keys() & content.keys() if content[name] is makers[name]]:
            yield mock.patch.object(module, name, made[name])
    for name in METHODS:
        yield mock.patch.object(Tensor, name, _constructor(counts, name, getattr(Tensor, name)))
    for name in DRAWS:
        yield mock.patch.object(Tensor, name, _draw(counts, name, getattr(Tensor, name)))
    for name, replacement in _moves(counts).items():
        yield mock.patch.object(Tensor, name, replacement)
    for name, found in (("device", device_of), ("is_cuda", _is_on("cuda")), ("is_cpu", _is_on("cpu"))):
        yield mock.patch.object(Tensor, name, property(found))
    yield mock.patch.object(torch, "Generator", PretendedGenerator)
    yield mock.patch.object(torch._C._nn, "_parse_to", _parse_to)
    yield mock.patch.object(torch.nn.functional, "one_hot", _one_hot)
    yield mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", _group)


def _is_on(kind: str) -> Function:
    return lambda tensor: device_of(tensor).type == kind


_real_parse_to = torch._C._nn._parse_to


def _parse_to(*args: Any, **kwargs: Any) -> Any:
    """Device, dtype, whether not to wait, and memory format of the arguments of `.to`."""
    other = kwargs.pop("tensor", None)
    if args and isinstance(args[0], Tensor):
        other, *args = args  # type: ignore[assignment]
    if other is not None:
        args = (device_of(other), other.dtype, *args)
    return _real_parse_to(*args, **kwargs)


_real_group = torch._C._group_tensors_by_device_and_dtype


def _group(lists: Any, with_indices: bool = False) -> Any:
    """As torch's own, whose groups would all be those of the CPU; a list is taken to be on one device."""
    groups = _real_group(lists, with_indices)
    return {(device_of(found[0][0][0]), dtype): found for (_, dtype), found in groups.items()}


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """As torch's, whose own would make its zeros on the CPU."""
    classes = num_classes if num_classes >= 0 else int(tensor.max()) + 1
    zeros = torch.zeros(*tensor.shape, classes, dtype=torch.long, device=device_of(tensor))
    return zeros.scatter_(-1, tensor[..., None], 1)


def _check_generator(counts: Counts, name: str, generator: Any, device: torch.device) -> None:
    own = getattr(generator, "pretended", CPU)
    if generator is not None and own.type != device.type:
        counts.refuse(f"{name} on {device} is given a generator of {own}")


def _constructor(counts: Counts, name: str, original: Function) -> Function:
    """What makes a tensor on the device that it is given."""

    @functools.wraps(original)
    def make(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args and isinstance(args[0], Tensor) else None
        device = kwargs.get("device")
        if device is None:
            _check_generator(counts, name, kwargs.get("generator"), CPU if given is None else device_of(given))
            return original(*args, **kwargs)
        device = as_device(device)
        if device.type not in ("cpu", "cuda"):
            return original(*args, **kwargs)
        _check_generator(counts, name, kwargs.get("generator"), device)
        if given is not None and name in PUT_TOGETHER:
            return given.to(device=device, dtype=kwargs.get("dtype") or given.dtype)
        with counts.paused():
            made = original(*args, **{**kwargs, "device": CPU})
        if device.type == "cuda" and name in PUT_TOGETHER:
            counts.wait("copy to the device")
        if device.type == "cuda" and name not in UNFILLED:
            counts.launch(made.numel() * made.element_size())
        return tag(made, device)

    return make


def _draw(counts: Counts, name: str, original: Function) -> Function:
    """A method that draws random numbers."""

    @functools.wraps(original)
    def draw(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        _check_generator(counts, name, kwargs.get("generator"), device_of(tensor))
        return original(tensor, *args, **kwargs)

    return draw


def _moves(counts: Counts) -> dict[str, Function]:
    """Methods that lead from one device to another, or that only one of them has."""
    real = {name: getattr(Tensor, name) for name in ("to", "numpy", "__array__", "tolist", "__deepcopy__")}

    def move(tensor: Tensor, device: Any, dtype: Any, non_blocking: bool, copy: bool, **layout: Any) -> Tensor:
        here, dtype = device_of(tensor), dtype or tensor.dtype
        if device is None or as_device(device) == here:
            return real["to"](tensor, dtype, copy=copy, **layout)
        device = as_device(device)
        with counts.paused():
            moved = real["to"](tensor, dtype, copy=True, **layout)
        if not non_blocking:
            counts.wait("copy to the device" if device.type == "cuda" else "copy to the host")
        counts.launch(2 * moved.numel() * moved.element_size())
        return tag(moved, device)

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if "other" in kwargs:
            kwargs["tensor"] = kwargs.pop("other")
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, memory_format = _parse_to(*args, **kwargs)
        layout = {} if memory_format is None else {"memory_format": memory_format}
        return move(tensor, device, dtype, non_blocking, copy, **layout)

    def cuda(tensor: Tensor, device: Any = None, non_blocking: bool = False, **_: Any) -> Tensor:
        return move(tensor, "cuda" if device is None else device, None, non_blocking, False)

    def cpu(tensor: Tensor, **_: Any) -> Tensor:
        return move(tensor, CPU, None, False, False)

    def host_only(name: str) -> Function:
        def convert(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if device_of(tensor).type == "cuda":
                counts.refuse(
                    f"{name} is for tensors on the CPU, this one is on {device_of(tensor)}: call .cpu() first"
                )
            return real[name](tensor, *args, **kwargs)

        return convert

    def tolist(tensor: Tensor) -> Any:
        if device_of(tensor).type == "cuda":
            counts.wait("tolist")
        with counts.paused():
            return real["tolist"](tensor)

    def deepcopy(tensor: Tensor, memo: Any) -> Tensor:
        return tag(real["__deepcopy__"](tensor, memo), device_of(tensor))

    def new_tensor(tensor: Tensor, data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        kwargs["dtype"] = kwargs.get("dtype") or tensor.dtype
        return torch.tensor(data, device=device or device_of(tensor), **kwargs)

    def get_device(tensor: Tensor) -> int:
        device = device_of(tensor)
        return -1 if device.type == "cpu" else device.index

    def pin_memory(tensor: Tensor, device: Any = None) -> Tensor:
        if device_of(tensor).type == "cuda":
            counts.refuse("only memory of the host can be pinned")
        return tensor

    refusing = {name: host_only(name) for name in ("numpy", "__array__")}
    moving = {"to": to, "cuda": cuda, "cpu": cpu, "tolist": tolist, "__deepcopy__": deepcopy, "new_tensor": new_tensor}
    return {**refusing, **moving, "get_device": get_device, "pin_memory": pin_memory}
