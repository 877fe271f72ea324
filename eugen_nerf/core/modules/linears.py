"""The linear layers of any PyTorch model, whatever their layout, and how to give them other sizes.

A layer is changed where it is: its module stays, its parameters and sizes are replaced. So it does not matter how the
model reaches the module: by an attribute, a Python list, a closure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

_TINYCUDANN = (
    "is a module of tinycudann, which has no PyTorch layers: train a teacher that can be converted, in nerfstudio with "
    "--pipeline.model.implementation torch"
)
_QUANTIZED = "is quantized: convert the model as it was before, then quantize it"
_TORCHSCRIPT = "is TorchScript, whose layers keep their sizes: convert first, then script or trace"


class Linears:
    """The plain linear layers of a model by name: `nn.Linear`, and GPT-2's `Conv1D`, whose weight is transposed.

    Args:
        model: any; modules that hang in several places count once, by their first name. What `torch.compile` puts
            around a module is left out of the names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[str, nn.Module] = {}
        """The model's own."""
        self.dense: dict[str, nn.Linear] = {}
        """The same layers as they were, each as an `nn.Linear`; where the module is one, with its own parameters."""
        self.refused: dict[str, str] = {}
        """Why modules that look like linear layers are none that can be replaced."""
        owners: dict[int, set[int]] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                owners.setdefault(id(parameter), set()).add(id(module))
        for name, module in model.named_modules():
            name = plain_name(name)
            if type(module).__module__.split(".")[0] == "tinycudann":
                self.refused[name] = _TINYCUDANN
            elif isinstance(module, torch.jit.ScriptModule):
                self.refused[name] = _TORCHSCRIPT
            elif "quantized" in type(module).__module__ and type(module).__name__ in ("Linear", "LinearReLU"):
                self.refused[name] = _QUANTIZED
            elif isinstance(module, nn.Linear) or _is_transposed(module):
                shared = any(len(owners[id(p)]) > 1 for p in module._parameters.values() if p is not None)
                if reason := _refusal(name, module, shared):
                    self.refused[name] = reason
                else:
                    self.modules[name], self.dense[name] = module, _as_linear(module)
        self._originals = {name: dict(module._parameters) for name, module in self.modules.items()}

    @contextmanager
    def replaced(self, others: Mapping[str, nn.Linear]) -> Iterator[None]:
        """Within it, the layers of those names compute what `others` do."""
        try:
            self.install(others)
            yield
        finally:
            for name in others:
                old = self.dense[name]
                _set(self.modules[name], self._originals[name], old.in_features, old.out_features)

    def install(self, others: Mapping[str, nn.Linear]) -> None:
        """Gives the layers of those names the parameters and sizes of others."""
        for name, linear in others.items():
            parameters: dict[str, Any] = dict(linear._parameters)
            if not isinstance(self.modules[name], nn.Linear):
                transposed = linear.weight.detach().t().contiguous()
                parameters["weight"] = _parameter_like(linear.weight, transposed)
            _set(self.modules[name], parameters, linear.in_features, linear.out_features)


def linear_like(old: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with this weight `[l, d]` and bias `[l]`, cast to the dtype and device of another.

    Its parameters are trained where the other's are, and carry the attributes that are written on those.
    """
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = _parameter_like(old.weight, weight.detach().to(old.weight).clone())
    if bias is not None:
        like = old.weight if old.bias is None else old.bias
        linear.bias = _parameter_like(like, bias.detach().to(old.weight).clone())
    return linear


def _parameter_like(old: Tensor, value: Tensor) -> nn.Parameter:
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)
    return new


def linear_costs(model: nn.Module) -> dict[str, int]:
    """Multiply-adds of one row through every linear layer of a model, by name."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) or _is_transposed(m)}
    return {plain_name(n): w.numel() for n, m in layers.items() if isinstance(w := m.weight, Tensor)}


def plain_name(name: str) -> str:
    """A module's name without the wrappers of `torch.compile`."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is a layer of the layout of `transformers.pytorch_utils.Conv1D`: `x W + b`, W `[d, l]`, `nf` = l."""
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None or bias is None or weight.dim() != 2:
        return False
    return getattr(module, "nf", None) == weight.shape[1] == len(bias)


def _refusal(name: str, module: nn.Module, shared: bool) -> str | None:
    if is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        lists = {key: how for key, how in module.parametrizations.items() if isinstance(how, ParametrizationList)}
        made = "; ".join(f"{key} by {type(how[0]).__name__}" for key, how in lists.items())
        return (
            f"is parametrized ({made}), so that its weights are made anew in each call: make it plain first, by "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if isinstance(module, nn.Linear) and type(module) is not nn.Linear:
        return f"is a {type(module).__name__}, not a plain nn.Linear"
    if shared:
        return "shares its weights with another module"
    if name == "":
        return "is the model itself, not a module inside it"
    if "forward" in module.__dict__:
        return "has a forward of its own put in the place of its class's: take it away first"
    if hooks := [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]:
        return _hooked(hooks[0])
    if set(module._parameters) != {"weight", "bias"}:
        return f"has the parameters {', '.join(module._parameters)} where weight and bias are expected"
    return None


def _hooked(hook: Any) -> str:
    """What a hook of a layer is, and how it is taken away."""
    kind = type(hook)
    if kind.__module__ == "torch.nn.utils.prune":
        return "has a pruning mask: make it permanent first, by torch.nn.utils.prune.remove"
    if kind.__module__ in ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm"):
        short = kind.__module__.rsplit(".", 1)[1]
        return f"has {short.replace('_', ' ')}: make it plain first, by torch.nn.utils.remove_{short}"
    named = getattr(hook, "__qualname__", kind.__name__)
    return f"has a hook ({named}) that may change what it computes: take it away first, and put it back afterwards"


def _as_linear(module: nn.Module) -> nn.Linear:
    if not isinstance(module, nn.Linear):
        weight, bias = module._parameters["weight"], module._parameters["bias"]
        assert weight is not None
        assert bias is not None
        linear = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
        linear.weight = _parameter_like(weight, weight.detach().t())
        linear.bias = bias
        return linear
    linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    linear.weight, linear.bias = module.weight, module.bias
    return linear


def _set(module: nn.Module, parameters: Mapping[str, Any], inputs: int, outputs: int) -> None:
    for key, parameter in parameters.items():
        module._parameters[key] = parameter
    for attribute, size in (("in_features", inputs), ("out_features", outputs), ("nx", inputs), ("nf", outputs)):
        if hasattr(module, attribute):
            setattr(module, attribute, size)
