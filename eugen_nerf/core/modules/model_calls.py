"""How any PyTorch model is called for a conversion: its batches, its mode, and what `torch.compile` put around it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.modules.outputs import same

Inputs = Iterable[Any] | Callable[[], Iterable[Any]]


def batches_of(inputs: Inputs) -> Callable[[], Iterable[Any]]:
    """A function that returns the batches anew each time, of tensors that gradients can be taken with.

    Raises:
        ConfigError: a single batch, or batches that can be gone through only once.
    """
    if isinstance(inputs, Tensor | Mapping) or not (callable(inputs) or isinstance(inputs, Iterable)):
        raise ConfigError("inputs are batches: a list of tensors, a DataLoader, or a function that returns batches")
    if isinstance(inputs, Iterator):
        raise ConfigError("batches are gone through several times: give a list, a DataLoader, or a function")
    if callable(inputs) and not isinstance(inputs, Iterable):
        return lambda: map(_trainable, inputs())
    return lambda: map(_trainable, inputs)


def call_model(model: nn.Module, batch: Any) -> Any:
    """Calls a model with a batch: a mapping's keyword arguments, a tuple's or list's arguments, or the batch itself."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


@contextmanager
def plainly(model: nn.Module) -> Iterator[nn.Module]:
    """Within it, a model runs as it is written: in evaluation mode, uncompiled, outside of inference mode.

    Afterwards every module has its own mode and buffers again, and what was compiled is compiled anew.

    Yields:
        The model itself, out of what `torch.compile` put around it.

    Raises:
        ConfigError: no module, parameters without numbers, or compiled parts in a version of torch that cannot run
            them uncompiled.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    if empty := next((name for name, p in model.named_parameters() if p.is_meta), None):
        raise ConfigError(f"{empty} is on the meta device, which holds no numbers: load the trained weights first")
    compiled = any(_is_compiled(module) for module in model.modules())
    stance = getattr(torch.compiler, "set_stance", None) if compiled or "torch._dynamo" in sys.modules else None
    if compiled and stance is None:
        raise ConfigError("the model is compiled, and compiled code does not show its layers: convert, then compile")
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in modes
        if not isinstance(module, torch.jit.ScriptModule)
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.layout == torch.strided and not nn.parameter.is_lazy(buffer)
    ]
    try:
        with torch.inference_mode(False), stance("force_eager") if stance else nullcontext():
            inner = getattr(model, "_orig_mod", model)
            yield inner.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode
        for module, name, buffer, before in buffers:  # what a model counts as it runs is no business of a conversion
            module._buffers[name] = buffer
            if not same(buffer, before):
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(before)
        if compiled:
            torch.compiler.reset()


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


def _trainable(value: Any) -> Any:
    """The same batch, with copies of tensors that were made in inference mode, as those carry no gradients."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, Mapping):
        parts = {key: _trainable(part) for key, part in value.items()}
        return value if all(parts[key] is value[key] for key in parts) else parts
    if isinstance(value, tuple | list):
        items = [_trainable(part) for part in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
