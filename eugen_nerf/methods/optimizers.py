"""Optimizers of the presets. Module and class names stand in every run's `config.yml`: they are a file format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig
from torch import Tensor
from torch.optim import Optimizer

from eugen_nerf.core import BatchedMuon, is_orthogonalised

Algorithm = Literal["adam", "muon"]


class _FusedIfAvailable(Optimizer):
    """Uses torch's fused step where the parameters' device has one: one launch instead of a dozen.

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
"""Whether this torch can count a change of a tensor by hand (2.2 and later)."""


def _mark_as_changed(optimizer: Optimizer, *_: Any) -> None:
    """Counts a fused step as a change of the parameters, which torch does not: caches made from them (the
    collapsed network, a grid's spread) would never be refreshed."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                torch.autograd.graph.increment_version(parameter)


class FusedAdam(_FusedIfAvailable, torch.optim.Adam):
    """`torch.optim.Adam`, fused where that exists; states of either load into the other."""


class FusedAdamW(_FusedIfAvailable, torch.optim.AdamW):
    """`torch.optim.AdamW`, fused where that exists; states of either load into the other."""


class MuonAdam(Optimizer):
    """Muon for matrices and Adam for the rest, as one optimizer with one learning rate that schedulers move.

    Args:
        params: of a network and its encodings.
        lr: Muon's rate; the root mean square of a matrix's update is 0.2 of it.
        adam_ratio: Adam's rate over Muon's.
        momentum: Muon's.
        betas: Adam's.
        eps: Adam's.
        weight_decay: decoupled, of the matrices.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-2,
        *,
        adam_ratio: float = 0.25,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        parameters = list(params)
        super().__init__(parameters, {"lr": lr})
        matrices = [p for p in parameters if is_orthogonalised(p)]
        rest = [p for p in parameters if not is_orthogonalised(p)]
        self._parts: dict[str, Optimizer] = {}
        if matrices:
            self._parts["muon"] = BatchedMuon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay)
        if rest:
            self._parts["adam"] = FusedAdam(rest, lr=lr * adam_ratio, betas=betas, eps=eps)
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' state, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            ValueError: the state of another optimizer.
        """
        if set(state_dict) != set(self._parts):
            raise ValueError(
                f"the state holds {', '.join(map(str, state_dict))} and not {', '.join(self._parts)}: it is another "
                "optimizer's; resume with the optimizer that the run was trained with"
            )
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()

    def _share_groups(self) -> None:
        """Schedulers and gradient scalers reach both optimizers' groups through this one's."""
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]


@dataclass
class FieldOptimizerConfig(AdamOptimizerConfig):
    """Adam for all parameters, or Muon for the matrices between hidden layers and Adam for the rest."""

    _target: type = field(default_factory=lambda: FusedAdam)
    """The optimizer class to use where the algorithm is adam."""
    algorithm: Algorithm = "adam"
    """muon orthogonalises the steps of matrices; its rate is four to five times Adam's, and EUGen layers train
    best with `--pipeline.model.network.train-merged True`, as in the small presets."""
    adam_ratio: float = 0.25
    """With muon, Adam's rate for the rest over Muon's, which is `lr`."""
    momentum: float = 0.95
    """Muon's."""
    weight_decay: float = 0.0
    """Decoupled, a step, times the learning rate; with muon, of the matrices."""

    def setup(self, params: Any) -> Optimizer:
        """The optimizer of a parameter group."""
        options: dict[str, Any] = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}
        if self.algorithm == "muon":
            return MuonAdam(params, adam_ratio=self.adam_ratio, momentum=self.momentum, **options)
        return FusedAdamW(params, **options) if self.weight_decay else self._target(params, **options)


@dataclass
class AdamWOptimizerConfig(OptimizerConfig):
    """Adam with decoupled weight decay."""

    _target: type = field(default_factory=lambda: FusedAdamW)
    """The optimizer class to use."""
    weight_decay: float = 0.01
    """Decay of the weights a step, times the learning rate."""
