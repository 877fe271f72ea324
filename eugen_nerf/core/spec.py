"""The kind and settings of one layer, shared by every network of this project, and what builds it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear, MonarchLinear, SNNKLinear, Start
from eugen_nerf.core.layers.feature_layer import FeatureLayer

LayerKind = Literal["dense", "eugen", "lowrank", "snnk", "monarch"]


@dataclass(frozen=True)
class LayerSpec:
    """The kind and settings of one layer.

    Examples:
        >>> from eugen_nerf.core import LayerSpec
        >>> LayerSpec("lowrank", num_features=2).build(8, 16)
        LowRankLinear(in_features=8, out_features=16)
    """

    kind: LayerKind = "dense"
    function: str = "relu"
    """Activation of dense, lowrank and monarch layers; eugen ones have Phi, snnk ones stand for a Gaussian."""
    num_features: int = 0
    """Random features m of eugen and snnk layers, the rank of lowrank ones, the inner width of monarch ones."""
    eugen: EUGenConfig = field(default_factory=EUGenConfig)
    """Further settings of an eugen layer; `num_features` and `seed` of this class go before its own."""
    seed: int = 0
    start: Start = "linear"
    """First weights of dense, lowrank and monarch layers; eugen ones have `eugen.start`."""

    def build(self, in_features: int, out_features: int) -> FeatureLayer:
        """A freshly initialised layer.

        Args:
            in_features: width d of the input.
            out_features: width l of the output.

        Raises:
            ConfigError: unknown kind, or settings that make no sense at these widths.
        """
        if self.kind == "dense":
            return DenseLinear(in_features, out_features, self.function, self.start)
        limit = 4 * max(in_features, out_features)
        if not 1 <= self.num_features <= limit:
            raise ConfigError(
                f"{self.num_features} features make no sense for a {in_features} -> {out_features} layer; "
                f"choose 1 to {limit}"
            )
        if self.kind == "eugen":
            config = replace(self.eugen, num_features=self.num_features, seed=self.seed)
            return EUGenLinear(in_features, out_features, config)
        if self.kind == "lowrank":
            rank = min(self.num_features, in_features, out_features)
            return LowRankLinear(in_features, out_features, rank, self.function, self.start)
        if self.kind == "snnk":
            return SNNKLinear(in_features, out_features, self.num_features, "gaussian", seed=self.seed)
        if self.kind == "monarch":
            return MonarchLinear(in_features, out_features, self.num_features, self.function, self.start)
        raise ConfigError(f"layer kind {self.kind!r} is unknown; choose dense, eugen, lowrank, snnk or monarch")


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module's parameters hold."""
    return sum(p.numel() for p in module.parameters())
