"""The EUGen layer (Eq. 1 of arXiv 2410.09771): weights and inputs meet in one dot product of random features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eugen_nerf.core.choices import Product
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.activations import activation, polynomial_fit
from eugen_nerf.core.layers.factors import share_updates
from eugen_nerf.core.layers.feature_layer import FeatureLayer
from eugen_nerf.core.layers.products import MEAN_SQUARE, check_product, hadamard_products
from eugen_nerf.core.layers.projections import sample_projection, seeded_generator
from eugen_nerf.core.layers.stage import Affine, Stage
from eugen_nerf.core.least_squares import MomentSums, ridge_solution


@dataclass(frozen=True)
class EUGenConfig:
    """Settings of an EUGen layer; the defaults are the instance that the paper uses in 3D, `y = A relu(G x+)`.

    Examples:
        >>> from eugen_nerf.core import EUGenConfig
        >>> config = EUGenConfig(num_features=32, degree=2, phi="gelu")
        >>> config.weights, config.projection
        ('free', 'gaussian')
    """

    num_features: int = 128
    """Number of random features m of each degree."""
    degree: int = 1
    """Highest degree k of Eq. (1), at least 0."""
    phi: str = "relu"
    """Outer function of the inputs' side."""
    psi: str = "identity"
    """Outer function of the weights' side."""
    weights: Literal["free", "tied", "separate"] = "free"
    """free: Psi = Id and H = I, the features of W are parameters (App. B.3); tied: H = G; separate: H of its own."""
    projection: str = "gaussian"
    """Distribution of G: gaussian, rademacher or orthogonal."""
    shared: bool = True
    """Whether G_ij = G_j for every degree i."""
    norm: bool = True
    """Whether G has a column for the input's norm: zero at the start where G is trained, drawn where it is fixed."""
    bias: bool = True
    """Whether the layer has a bias: one more input entry 1, and the constant feature of degree 0."""
    train_projection: bool = True
    """Whether G (and H) is trained or fixed."""
    start: Literal["kaiming", "linear"] = "kaiming"
    """Scale of the first G: kaiming keeps the size of features that pass a ReLU (arXiv 1502.01852, Eq. 10); linear has
    the variance of `nn.Linear`'s weights, so that a stack, collapsed, starts as smooth as one of dense layers does.
    Deep stacks of degree 2 and more want linear: kaiming's products grow from layer to layer."""
    seed: int = 0
    """Seed of the projections and initial weights."""
    product: Product = "plain"
    """How the projections a and b of a feature of degree 2 are joined, on both sides: plain, `a b`; harmonic,
    `a b / sqrt(a^2 + b^2)`, which grows as its inputs do (Eq. 1 with k = 1, complex G and Phi(z) = Re z Im z / |z|);
    minimum, `sgn(a b) min(|a|, |b|)`; clamped, `a clamp(b, -1, 1)`. They go with phi="identity"."""


class EUGenLinear(FeatureLayer):
    """EUGen layer: `y = Psi(features_H(W)) . Phi(features_G(x)) + b` in place of `f(W x)` (Eq. 1).

    The features of degree i are `Phi(prod_{j<=i} G_ij x+)` with `x+ = [x; 1; |x|]` (the bias entry and the norm where
    configured) and, on the other side, `c_i Psi(prod_j H_ij w+)` with `w+ = [w; w_bias; 1]`. The factor `c_i` carries
    `a_i / m` of Thm 3.1 with its sign, on the weights' side only, so that arithmetic stays real and one unscaled G
    can serve every degree; it is 1 unless the layer was made from a polynomial. The constant feature of degree 0 is
    the bias `b`, which carries `a_0`.

    Args:
        in_features: width d of the input.
        out_features: width l of the output.
        config: see `EUGenConfig`.

    Raises:
        ConfigError: negative degree or number of features, unknown function or projection.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import EUGenConfig, EUGenLinear
        >>> layer = EUGenLinear(8, 16, EUGenConfig(num_features=4, degree=2))
        >>> layer(torch.rand(5, 8)).shape
        torch.Size([5, 16])
    """

    projection: Tensor
    projection_bias: Tensor | None
    projection_norm: Tensor | None
    coefficients: Tensor
    feature_mean: Tensor | None
    """`[degree * m]`, subtracted from free features before A after a start from data; else None. The bias is then the
    mean output on that batch, whatever A is, and A learns faster. Collapsed, the bias is `b - A feature_mean`."""

    def __init__(self, in_features: int, out_features: int, config: EUGenConfig | None = None) -> None:
        super().__init__(in_features, out_features)
        self.config = config = config or EUGenConfig()
        if config.degree < 0 or config.num_features < 0 or (config.degree > 0 and config.num_features == 0):
            raise ConfigError(
                f"an EUGen layer needs degree >= 0 and at least 1 feature, got degree {config.degree} and "
                f"{config.num_features} features"
            )
        if config.weights not in ("free", "tied", "separate"):
            raise ConfigError(f"weights={config.weights!r} is unknown; choose free, tied or separate")
        activation(config.phi), activation(config.psi)
        check_product(config.product, config.degree)
        generator = seeded_generator(config.seed, "EUGen layer")
        rows = self._num_blocks * config.num_features
        if config.start not in ("kaiming", "linear"):
            raise ConfigError(f"start={config.start!r} is unknown; choose kaiming or linear")
        gain = _first_gain(config, in_features)
        self._add_projection("projection", rows, gain, generator)
        if config.weights == "separate":
            self._add_projection("weight_projection", rows, gain, generator)
        columns = config.degree * config.num_features if config.weights == "free" else in_features
        weight = torch.randn(out_features, columns, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter((weight / math.sqrt(max(1, columns))).to(torch.get_default_dtype()))
        self.weight_bias = nn.Parameter(torch.zeros(out_features)) if config.weights != "free" and config.bias else None
        self.bias = nn.Parameter(torch.zeros(out_features)) if config.bias else None
        self.register_buffer("feature_mean", None)
        if not config.train_projection:
            self.draw_norm_column()
        elif config.weights == "free" and config.degree > 0:
            share_updates(self.projection, self.weight)
        self.register_buffer("coefficients", torch.ones(config.degree))
        self.register_buffer("seed", torch.tensor(config.seed))

    @classmethod
    def from_polynomial(
        cls,
        in_features: int,
        out_features: int,
        coefficients: Sequence[float],
        config: EUGenConfig,
        *,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> EUGenLinear:
        """Unbiased estimate of `f(W x + b)`, `f(x) = sum_i a_i x^i` (Thm 3.1 in real arithmetic).

        Args:
            in_features: d.
            out_features: l.
            coefficients: `a_0 .. a_k`; they set the layer's degree.
            config: number of features, projection, sharing and so on; `phi` and `psi` become the identity, the product
                plain and H = G.
            weight: W, `[l, d]`; a random one where None.
            bias: b inside f, `[l]`; zeros where None.

        Returns:
            A layer with tied weights, in torch's default dtype.

        Raises:
            ConfigError: no coefficients, or weights of another shape.

        Examples:
            >>> import torch
            >>> from eugen_nerf.core import EUGenConfig, EUGenLinear
            >>> weight, x = torch.eye(3), torch.ones(1, 3)  # 0.5 + u + u^2 / 4 of u = 1
            >>> config = EUGenConfig(num_features=20_000)
            >>> layer = EUGenLinear.from_polynomial(3, 3, [0.5, 1.0, 0.25], config, weight=weight)
            >>> bool((layer(x) - 1.75).abs().max() < 0.1)
            True
        """
        if len(coefficients) == 0:
            raise ConfigError("a polynomial needs at least its constant coefficient a_0")
        plain = {"phi": "identity", "psi": "identity", "weights": "tied", "product": "plain"}
        config = replace(config, degree=len(coefficients) - 1, **plain)  # type: ignore[arg-type]
        layer = cls(in_features, out_features, config)
        with torch.no_grad():
            scale = _first_gain(config, in_features)  # Thm 3.1 wants unit variance
            layer.projection.div_(scale)
            if layer.projection_norm is not None:
                layer.projection_norm.zero_()  # Thm 3.1 holds without the norm
            if layer.projection_bias is not None:
                layer.projection_bias.div_(scale)
            values = torch.as_tensor(coefficients, dtype=torch.float64)
            layer.coefficients.copy_(values[1:] / max(1, config.num_features))
            if layer.bias is not None:
                layer.bias.fill_(float(values[0]))
            elif values[0].abs() > 1e-9 * values.abs().max():
                raise ConfigError("a polynomial with a_0 != 0 needs bias=True: the bias carries a_0")
            if weight is not None:
                _copy_checked(layer.weight, weight, "weight")
            if bias is not None:
                if layer.weight_bias is None:
                    raise ConfigError("a bias inside f needs bias=True: without it f(W x) is what is estimated")
                _copy_checked(layer.weight_bias, bias, "bias")
        return layer

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, function: str, config: EUGenConfig, *, inputs: Tensor | None = None
    ) -> EUGenLinear:
        """A layer that starts as an approximation of `f(linear(x))`.

        With tied weights, the unbiased estimate of the degree-k polynomial closest to f under Gaussian pre-activations
        (Thm 3.1). With free weights, the closed-form fit of Eq. (31) on `inputs`, or on standard normal ones.

        Args:
            linear: the dense layer `W, b`.
            function: name of the activation that follows it.
            config: settings; `weights="separate"` has no known start and is refused.
            inputs: `[n, d]`, real inputs of the layer.

        Returns:
            A layer of the dense layer's widths, dtype and device.

        Raises:
            ConfigError: unknown activation, or a configuration without such a start.

        Examples:
            >>> import torch
            >>> from eugen_nerf.core import EUGenConfig, EUGenLinear
            >>> dense, inputs = torch.nn.Linear(16, 16), torch.randn(512, 2) @ torch.randn(2, 16)
            >>> layer = EUGenLinear.from_linear(dense, "relu", EUGenConfig(num_features=64), inputs=inputs)
            >>> wanted = dense(inputs).relu()
            >>> bool((layer(inputs) - wanted).var() < 0.05 * wanted.var())
            True
        """
        if config.weights == "separate":
            raise ConfigError("from_linear starts free or tied weights; build the layer directly for separate ones")
        if config.weights == "tied":
            scale = float(linear.weight.detach().double().norm(dim=1).square().mean().sqrt())
            coefficients = polynomial_fit(function, config.degree, scale=scale or 1.0).tolist()
            layer = cls.from_polynomial(
                linear.in_features,
                linear.out_features,
                coefficients,
                config,
                weight=linear.weight.detach(),
                bias=None if linear.bias is None else linear.bias.detach(),
            ).to(linear.weight)
            with torch.no_grad():
                layer.weight.copy_(linear.weight)
            return layer
        layer = cls(linear.in_features, linear.out_features, config).to(linear.weight)
        layer.draw_norm_column()
        if inputs is None:
            generator = seeded_generator(config.seed, "inputs")
            size = (16 * (config.degree * config.num_features + 1), linear.in_features)
            inputs = torch.randn(size, generator=generator, dtype=torch.float64).to(linear.weight)
        with torch.no_grad():
            moments = MomentSums(config.degree * config.num_features, linear.out_features, bias=config.bias)
            moments.add(layer.features(inputs), activation(function)(linear(inputs)))
            layer.set_output(*ridge_solution(moments, ridge=1e-8))
        return layer

    @property
    def uses_norm(self) -> bool:
        """Whether G has a column for the input's norm."""
        return self.config.norm and self.config.degree > 0

    @torch.no_grad()
    def set_output(self, weight: Tensor, bias: Tensor | None) -> None:
        """Sets the free weights A `[l, degree * m]` and the bias `[l]`.

        Raises:
            ConfigError: weights that are not free, or tensors of another shape.
        """
        if self.config.weights != "free":
            raise ConfigError(f"weights={self.config.weights!r} have no free output matrix; use weights='free'")
        _copy_checked(self.weight, weight, "weight")
        self.feature_mean = None
        if self.bias is not None and bias is not None:
            _copy_checked(self.bias, bias, "bias")

    @torch.no_grad()
    def draw_norm_column(self) -> None:
        """Draws the norm's columns as the other columns of G are drawn, for a G that is fitted to and not trained."""
        for name in ("projection", "weight_projection"):
            column = getattr(self, f"{name}_norm", None)
            if column is not None and column.numel():
                generator = seeded_generator(self.config.seed, "norm column")
                drawn = sample_projection(self.config.projection, len(column), 1, generator=generator)
                spread = float(getattr(self, name).double().square().mean().sqrt())
                column.copy_(drawn[:, 0] * spread)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *further: Any) -> None:
        """As in torch; the checkpoint says whether there is a mean of the features."""
        mean = state_dict.get(f"{prefix}feature_mean")
        self.feature_mean = None if mean is None else self.weight.new_zeros(mean.shape)
        super()._load_from_state_dict(state_dict, prefix, *further)

    def features(self, x: Tensor) -> Tensor:
        """`Phi` features of inputs `[..., d]`: `[..., degree * m]`, without the constant one."""
        stage, _ = self.pieces()[0]
        return stage.merge((Affine(),), (self.in_features,))((x,))

    def weight_features(self) -> Tensor:
        """`g(W)` of Eq. (2), the matrix that the inputs' features are multiplied by: `[l, degree * m]`."""
        config = self.config
        if config.weights == "free":
            return self.weight
        prefix = "projection" if config.weights == "tied" else "weight_projection"
        v = self.weight @ getattr(self, prefix).T
        if self.weight_bias is not None:
            v = v + self.weight_bias[:, None] * getattr(self, f"{prefix}_bias")
        if config.norm:
            v = v + getattr(self, f"{prefix}_norm")
        features = activation(config.psi)(hadamard_products(v, config.degree, config.shared, config.product))
        return features * self.coefficients.repeat_interleave(config.num_features)

    def pieces(self) -> list[tuple[Stage, Affine]]:
        """One stage (the features of x) and one affine map (the features of W, and the bias)."""
        c = self.config
        if c.degree == 0:
            empty = self.weight.new_zeros(self.out_features, 0)
            return [(Stage(self.projection, None, None, 1, True, "identity"), Affine(empty, self.bias))]
        g, bias, norm = self.projection, self.projection_bias, self.projection_norm
        stage = Stage(g, bias, norm, c.degree, c.shared, c.phi, product=c.product)
        weight, bias = self.weight_features(), self.bias
        if self.feature_mean is not None and bias is not None:
            bias = bias - weight @ self.feature_mean
        return [(stage, Affine(weight, bias))]

    def extra_repr(self) -> str:
        """Widths and the settings that matter."""
        c = self.config
        return f"{super().extra_repr()}, m={c.num_features}, degree={c.degree}, phi={c.phi}, norm={c.norm}"

    @property
    def _num_blocks(self) -> int:
        k = self.config.degree
        return k if self.config.shared else k * (k + 1) // 2

    def _add_projection(self, name: str, rows: int, gain: float, generator: torch.Generator) -> None:
        """Adds G as `name`, its bias column as `name_bias`, its norm column as `name_norm`."""
        c = self.config
        columns = self.in_features + int(c.bias)
        # one draw a block: rows that meet in a Hadamard product must be independent (Thm 3.1), so no two G_ij may
        # share an orthogonal block
        blocks = [
            sample_projection(
                c.projection, c.num_features, columns, generator=generator, dtype=torch.get_default_dtype()
            )
            for _ in range(self._num_blocks)
        ]
        sampled = torch.cat(blocks) if blocks else torch.zeros(0, columns)
        parts: dict[str, Tensor | None] = {
            name: sampled[:, : self.in_features] * gain,
            f"{name}_bias": sampled[:, -1] * gain if c.bias else None,
            f"{name}_norm": torch.zeros(rows) if c.norm else None,  # learns from zero, if it learns
        }
        for key, value in parts.items():
            if value is None or not c.train_projection:
                self.register_buffer(key, value)
            else:
                self.register_parameter(key, nn.Parameter(value))


def _first_gain(config: EUGenConfig, in_features: int) -> float:
    """Standard deviation of the entries of the first G."""
    if config.start == "linear":
        return math.sqrt(1.0 / (3.0 * in_features))
    kept = 0.5 if config.phi in ("relu", "gelu", "softplus") else (1.0 + MEAN_SQUARE[config.product]) / 2
    return math.sqrt(1.0 / (kept * in_features))


def _copy_checked(target: Tensor, source: Tensor, name: str) -> None:
    if target.shape != source.shape:
        raise ConfigError(f"{name} has shape {tuple(source.shape)}, the layer needs {tuple(target.shape)}")
    target.copy_(source)
