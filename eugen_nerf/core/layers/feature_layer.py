"""The interface of all layer kinds: pieces for the collapse, and a forward pass made of the same pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.stage import Affine, Stage


class FeatureLayer(nn.Module, ABC):
    """A replacement for a dense layer *with* its activation, `[..., in_features]` to `[..., out_features]`.

    A new kind of layer is a subclass with parameters and `pieces`; networks of it collapse without more code.

    Args:
        in_features: width d of the input.
        out_features: width l of the output.

    Raises:
        ConfigError: a width below 1.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import FeatureLayer
        >>> from eugen_nerf.core.layers.stage import Affine, Stage
        >>> class Sine(FeatureLayer):
        ...     def __init__(self, in_features, out_features):
        ...         super().__init__(in_features, out_features)
        ...         self.weight = torch.nn.Parameter(torch.randn(out_features, in_features))
        ...
        ...     def pieces(self):
        ...         return [(Stage(self.weight, None, None, 1, True, "sin"), Affine())]
        >>> layer, x = Sine(8, 16), torch.rand(5, 8)
        >>> torch.equal(layer(x), torch.sin(x @ layer.weight.T)), layer.multiply_adds()
        (True, 128)
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ConfigError(f"a layer needs widths of at least 1, got {in_features} -> {out_features}")
        self.in_features = in_features
        self.out_features = out_features

    @abstractmethod
    def pieces(self) -> list[tuple[Stage, Affine]]:
        """The layer as stages, each followed by an affine map; differentiable in the layer's parameters."""

    @property
    def uses_norm(self) -> bool:
        """Whether the output depends on the input's norm directly."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for inputs `[..., in_features]` of the layer's dtype."""
        for stage, affine in self.pieces():
            merged = stage.merge((Affine(),), (x.shape[-1],))
            x = affine(merged((x,)))
        return x

    def multiply_adds(self) -> int:
        """Multiply-adds of one input through the layer on its own, its weights' features precomputed."""
        return sum(s.weight.numel() + (0 if a.weight is None else a.weight.numel()) for s, a in self.pieces())

    def extra_repr(self) -> str:
        """Widths, as `nn.Linear` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}"
