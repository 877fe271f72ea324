"""Optimizers of the presets. Module and class names stand in every run's `config.yml`: they are a file format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from torch.optim import Optimizer


class _FusedWhereItExists(Optimizer):
    """Takes torch's fused step where the parameters' device has one: one launch instead of a dozen.

    Args:
        params: as torch takes them.
        options: as the torch optimizer takes them, `fused` apart.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        params = list(params)
        try:
            super().__init__(params, fused=_CAN_MARK, **options)  # type: ignore[call-arg]
        except RuntimeError:  # on a CPU before torch 2.4
            super().__init__(params, **options)
        if self.defaults["fused"]:
            self.register_step_post_hook(_mark_as_changed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch; whether the state is of a fused optimizer does not matter, nor on which device it was made."""
        own = {name: self.defaults[name] for name in ("fused", "foreach")}
        groups = [{**group, **own} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})


_CAN_MARK = hasattr(torch.autograd.graph, "increment_version")
"""Whether this torch can be told that a tensor has changed (2.2 and later)."""


def _mark_as_changed(optimizer: Optimizer, *_: Any) -> None:
    """Counts a fused step as a change of the parameters, which torch does not: what is kept of them (the collapsed
    network, a grid's spread) would be kept for ever."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                torch.autograd.graph.increment_version(parameter)


class FusedAdam(_FusedWhereItExists, torch.optim.Adam):
    """`torch.optim.Adam`, fused where that exists; states of either load into the other."""


class FusedAdamW(_FusedWhereItExists, torch.optim.AdamW):
    """`torch.optim.AdamW`, fused where that exists; states of either load into the other."""


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam."""

    _target: type = field(default_factory=lambda: FusedAdam)
    """The optimizer class to use."""


@dataclass
class AdamWOptimizerConfig(OptimizerConfig):
    """Adam with decoupled weight decay."""

    _target: type = field(default_factory=lambda: FusedAdamW)
    """The optimizer class to use."""
    weight_decay: float = 0.01
    """Decay of the weights a step, times the learning rate."""
