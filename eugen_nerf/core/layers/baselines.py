"""The layers EUGen is compared with, behind the same interface: dense, low rank, SNNK and Monarch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.factors import share_updates
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.layers.projections import seeded_generator
from eugen_nerf.core.layers.stage import Affine, Stage

MONARCH_BLOCKS = 4
"""Diagonal blocks of a Monarch layer's matrices by default."""
Start = Literal["linear", "kaiming"]
"""First weights of a layer: as `nn.Linear` draws them, or of He et al.'s variance (arXiv 1502.01852, Eq. 10)."""


def initialised(linear: nn.Linear, start: Start) -> nn.Linear:
    """The same linear layer with the first weights of one that an activation follows; He's start has zero biases.

    Raises:
        ConfigError: an unknown start.
    """
    if start not in ("linear", "kaiming"):
        raise ConfigError(f"start={start!r} is unknown; choose linear or kaiming")
    if start == "kaiming":
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
    return linear


class DenseLinear(FeatureLayer):
    """`f(W x + b)`.

    Args:
        in_features: d.
        out_features: l.
        function: name of the activation f.
        start: first weights.

    Raises:
        ConfigError: an unknown function or start.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import DenseLinear
        >>> DenseLinear(8, 16, "gelu")(torch.rand(5, 8)).shape
        torch.Size([5, 16])
    """

    def __init__(self, in_features: int, out_features: int, function: str = "relu", start: Start = "linear") -> None:
        super().__init__(in_features, out_features)
        activation(function)
        self.function = function
        linear = initialised(nn.Linear(in_features, out_features), start)
        self.weight, self.bias = linear.weight, linear.bias

    def pieces(self) -> list[tuple[Stage, Affine]]:
        """One stage; its output is its features."""
        return [(Stage(self.weight, self.bias, None, 1, True, self.function), Affine())]


class LowRankLinear(FeatureLayer):
    """`f(U V x + b)` with V of shape `[rank, d]`: Eq. (1) with Psi = Phi = Id, k = 1, H = I, the activation kept.

    Args:
        in_features: d.
        out_features: l.
        rank: between 1 and min(d, l).
        function: name of the activation f.
        start: first weights of U; V keeps the variance of its inputs.

    Raises:
        ConfigError: an impossible rank, an unknown function or start.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import LowRankLinear
        >>> layer = LowRankLinear(8, 16, rank=2)
        >>> layer(torch.rand(5, 8)).shape, layer.multiply_adds()
        (torch.Size([5, 16]), 48)
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, function: str = "relu", start: Start = "linear"
    ) -> None:
        super().__init__(in_features, out_features)
        if not 1 <= rank <= min(in_features, out_features):
            raise ConfigError(
                f"rank {rank} makes no sense for a {in_features} -> {out_features} layer; "
                f"choose 1 to {min(in_features, out_features)}"
            )
        activation(function)
        self.function = function
        self.down = nn.Parameter(torch.empty(rank, in_features))
        nn.init.normal_(self.down, std=1 / math.sqrt(in_features))
        up = initialised(nn.Linear(rank, out_features), start)
        self.up, self.bias = up.weight, up.bias
        share_updates(self.down, self.up)

    def pieces(self) -> list[tuple[Stage, Affine]]:
        """Two stages: down to the rank without a function, up with f."""
        down = Stage(self.down, None, None, 1, True, "identity")
        return [(down, Affine()), (Stage(self.up, self.bias, None, 1, True, self.function), Affine())]


class MonarchLinear(FeatureLayer):
    """`f(L P R x + b)`: two block-diagonal matrices and a permutation between them (arXiv 2204.00595, Sec. 3.1).

    Inputs are padded with zeros to whole blocks; outputs of the first matrix take turns over its blocks.

    Args:
        in_features: d.
        out_features: l, a multiple of `blocks`.
        inner: rows of R, a multiple of `blocks`.
        function: name of the activation f.
        start: first weights of L; R keeps the variance of its inputs.
        blocks: diagonal blocks of each matrix, at least 2.

    Raises:
        ConfigError: widths that are no multiple of the number of blocks, an unknown function or start.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import MonarchLinear
        >>> layer = MonarchLinear(8, 16, inner=8, blocks=4)
        >>> layer(torch.rand(5, 8)).shape, layer.multiply_adds()  # 4 blocks [2, 2] and 4 blocks [4, 2]
        (torch.Size([5, 16]), 48)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        inner: int,
        function: str = "relu",
        start: Start = "linear",
        *,
        blocks: int = MONARCH_BLOCKS,
    ) -> None:
        super().__init__(in_features, out_features)
        if blocks < 2 or inner < blocks or inner % blocks or out_features % blocks:
            raise ConfigError(
                f"a Monarch layer of {blocks} blocks needs 2 blocks or more and widths that are multiples of them, "
                f"got {inner} inner and {out_features} outputs"
            )
        activation(function)
        self.function, self.blocks = function, blocks
        columns = math.ceil(in_features / blocks)
        self.first = nn.Parameter(torch.empty(inner, columns))
        nn.init.normal_(self.first, std=1 / math.sqrt(columns))
        second = initialised(nn.Linear(inner // blocks, out_features), start)
        self.second, self.bias = second.weight, second.bias
        share_updates(self.first, self.second, blocks=blocks)

    def pieces(self) -> list[tuple[Stage, Affine]]:
        """Two stages of diagonal blocks, the second with f."""
        first = Stage(self.first, None, None, 1, True, "identity", groups=self.blocks)
        second = Stage(self.second, self.bias, None, 1, True, self.function, groups=self.blocks)
        return [(first, Affine()), (second, Affine())]


class SNNKLinear(FeatureLayer):
    """Scalable neural network kernel: trigonometric features of x from the activation's Fourier transform.

    For `f(z) = integral F(t) exp(i t z) dt` with `t` drawn from p and `g` standard normal,
    `exp(i t w.x) = E_g[exp(s g.w - s^2 |w|^2 / 2) exp(i sgn(t) s g.x + s^2 |x|^2 / 2)]`, `s = sqrt(|t|)`. A random
    phase makes the real part one cosine a feature (SNNK is the case `G = H` of Eq. 1). Weights enter through free
    parameters, which start at the estimate of `f(linear(x))`.

    Args:
        in_features: d.
        out_features: l.
        num_features: m, at least 1.
        function: `gaussian`, `sin` or `cos`: its Fourier transform must be a measure.
        norm_factor: multiply feature r by `exp(s_r^2 |x|^2 / 2)`, which unbiasedness needs; it grows fast, and a layer
            that is trained learns without it.
        linear: starting weights; a freshly initialised `nn.Linear` where None.
        seed: of frequencies, directions and phases.

    Raises:
        ConfigError: an activation without an integrable transform, or no features.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import SNNKLinear
        >>> SNNKLinear(8, 16, num_features=4, function="gaussian")(torch.rand(5, 8)).shape
        torch.Size([5, 16])
    """

    scale: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_features: int,
        function: str = "gaussian",
        *,
        norm_factor: bool = False,
        linear: nn.Linear | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(in_features, out_features)
        if num_features < 1:
            raise ConfigError(f"an SNNK layer needs at least 1 feature, got {num_features}")
        generator = seeded_generator(seed, "SNNK layer")
        frequency, amplitude, shift = _sample_fourier_transform(function, num_features, generator)
        self.function, self.norm_factor = function, norm_factor
        scale = frequency.abs().sqrt()
        directions = torch.randn(num_features, in_features, generator=generator, dtype=torch.float64) * scale[:, None]
        phase = 2 * math.pi * torch.rand(num_features, generator=generator, dtype=torch.float64)
        linear = linear or nn.Linear(in_features, out_features)
        w = linear.weight.detach().double()
        b = w.new_zeros(out_features) if linear.bias is None else linear.bias.detach().double()
        growth = torch.exp(w @ directions.T - 0.5 * scale**2 * w.square().sum(dim=1, keepdim=True))
        weight = growth * torch.cos(b[:, None] * frequency + shift - phase) * (2 * amplitude / num_features)
        dtype = linear.weight.dtype
        self.projection = nn.Parameter((directions * torch.sign(frequency)[:, None]).to(dtype))
        self.phase = nn.Parameter(phase.to(dtype))
        self.weight = nn.Parameter(weight.to(dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype))
        self.register_buffer("scale", scale.to(dtype))
        self.register_buffer("seed", torch.tensor(seed))

    def pieces(self) -> list[tuple[Stage, Affine]]:
        """One stage of cosines and one affine map.

        Raises:
            ConfigError: with `norm_factor`, which no merged matrix can express.
        """
        if self.norm_factor:
            raise ConfigError(
                "an SNNK layer with norm_factor=True cannot be collapsed; build it with norm_factor=False"
            )
        return [(Stage(self.projection, self.phase, None, 1, True, "cos"), Affine(self.weight, self.bias))]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[..., l]` for inputs `[..., d]`."""
        features = torch.cos(nn.functional.linear(x, self.projection, self.phase))
        if self.norm_factor:
            features = features * torch.exp(0.5 * self.scale**2 * x.square().sum(dim=-1, keepdim=True))
        return nn.functional.linear(features, self.weight, self.bias)


def _sample_fourier_transform(function: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies drawn from a density p, and amplitude and phase of `F(t) / p(t)` at each."""
    if function == "gaussian":  # exp(-z^2 / 2) = E[exp(i t z)], t standard normal
        t = torch.randn(count, generator=generator, dtype=torch.float64)
        return t, torch.ones_like(t), torch.zeros_like(t)
    if function in ("sin", "cos"):
        t = torch.ones(count, dtype=torch.float64)
        return t, torch.ones_like(t), torch.full_like(t, -math.pi / 2 if function == "sin" else 0.0)
    raise ConfigError(
        f"SNNK needs an activation whose Fourier transform is a measure; {function!r} grows and has none. "
        "Choose gaussian, sin or cos, or use an EUGen or low-rank layer"
    )
