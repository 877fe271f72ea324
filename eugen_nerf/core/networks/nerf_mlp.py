"""The NeRF network as a graph of layers, and the choice of its layers: dense, EUGen or a baseline of equal cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from eugen_nerf.core.choices import Variant
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig
from eugen_nerf.core.layers.baselines import MONARCH_BLOCKS, Start
from eugen_nerf.core.networks.layer_graph import LayerGraph
from eugen_nerf.core.spec import LayerSpec

VARIANTS: tuple[Variant, ...] = ("eugen", "dense", "lowrank", "snnk", "monarch", "narrow", "shallow")


@dataclass(frozen=True)
class NeRFShape:
    """Widths of a NeRF network: a trunk on positions with skips, a linear output on it, a view-dependent head.

    Examples:
        >>> from eugen_nerf.core import NeRFShape
        >>> NeRFShape(trunk_layers=2, head_layers=1).replaceable()
        ('trunk_0', 'trunk_1', 'head_0')
    """

    position_width: int = 63
    direction_width: int = 27
    trunk_layers: int = 8
    trunk_width: int = 256
    skips: tuple[int, ...] = (4,)
    """Trunk layers that read the encoded position again, before the hidden values."""
    bottleneck_width: int = 0
    """Width of a linear layer between trunk and head; 0 for none."""
    head_layers: int = 2
    head_width: int = 128
    """Width of the head's layers; 0 leaves the head out: a network with one output alone."""
    output: str = "density"
    """Name of the linear output on the trunk: density, offset or distance."""
    output_width: int = 1
    """Width of that output."""
    function: str = "relu"
    """Activation of the layers that are dense or of low rank."""
    start: Start = "linear"
    """First weights of these layers; linear outputs start as `nn.Linear` does."""

    def replaceable(self) -> tuple[str, ...]:
        """Names of the hidden layers, in order; the linear layers stay as they are."""
        head = range(self.head_layers if self.head_width else 0)
        return (*(f"trunk_{i}" for i in range(self.trunk_layers)), *(f"head_{i}" for i in head))

    def narrowed(self, width: int) -> NeRFShape:
        """The same network with the trunk `width` wide, and bottleneck and head narrower in proportion."""

        def scale(value: int) -> int:
            return max(1, round(value * width / self.trunk_width)) if value else 0

        bottleneck, head = scale(self.bottleneck_width), scale(self.head_width)
        return replace(self, trunk_width=width, bottleneck_width=bottleneck, head_width=head)

    def shallower(self, layers: int) -> NeRFShape:
        """The same network with `layers` layers in the trunk, without the skips beyond."""
        return replace(self, trunk_layers=layers, skips=tuple(i for i in self.skips if i < layers))


@dataclass(frozen=True)
class Replacement:
    """Which hidden layers are replaced, and by how many features.

    Examples:
        >>> from eugen_nerf.core import NeRFShape, Replacement, build_variant
        >>> replacement = Replacement(layers=("trunk_[12]",), num_features=(8, 4))
        >>> network = build_variant(NeRFShape(trunk_layers=3, trunk_width=16), "eugen", replacement)
        >>> [network.layer(f"trunk_{i}").multiply_adds() for i in range(3)]  # 63 x 16, 2 x 16 x 8, 2 x 16 x 4
        [1008, 256, 128]
    """

    layers: tuple[str, ...] = ("trunk_.*",)
    """Regular expressions; a layer is replaced when one matches its full name."""
    num_features: tuple[int, ...] = (128,)
    """m, one for all replaced layers or one for each, in the network's order."""
    eugen: EUGenConfig = field(default_factory=EUGenConfig)
    specs: Mapping[str, LayerSpec] = field(default_factory=dict)
    """EUGen layers by name, where they are not all alike; goes before the rest."""


def match_names(patterns: Sequence[str], names: Sequence[str], what: str = "layer") -> list[str]:
    """The names that one of the patterns matches in full, in their order; errors call them `what`.

    Raises:
        ConfigError: a pattern that is no regular expression or matches nothing; it lists what there is.
    """
    chosen = set()
    for pattern in patterns:
        try:
            hits = [n for n in names if re.fullmatch(pattern, n)]
        except re.error as error:
            raise ConfigError(f"{what} pattern {pattern!r} is not a regular expression: {error}") from error
        if not hits:
            raise ConfigError(f"{what} pattern {pattern!r} matches no {what}; there are: {', '.join(names)}")
        chosen.update(hits)
    return [n for n in names if n in chosen]


def layer_specs(shape: NeRFShape, kind: str, replacement: Replacement) -> dict[str, LayerSpec]:
    """Specifications of the replaced layers.

    Raises:
        ConfigError: patterns that match nothing, or a number of widths that is neither one nor one a layer.
    """
    if kind == "eugen" and replacement.specs:
        match_names([re.escape(name) for name in replacement.specs], shape.replaceable())
        return dict(replacement.specs)
    names = match_names(replacement.layers, shape.replaceable())
    counts = replacement.num_features
    if len(counts) not in (1, len(names)):
        raise ConfigError(
            f"{len(counts)} numbers of features for {len(names)} layers ({', '.join(names)}); give 1 or each"
        )
    counts = counts * len(names) if len(counts) == 1 else counts
    return {
        name: LayerSpec(kind, shape.function, m, replacement.eugen, replacement.eugen.seed + i, shape.start)  # type: ignore[arg-type]
        for i, (name, m) in enumerate(zip(names, counts, strict=True))
    }


def build_nerf(shape: NeRFShape, specs: Mapping[str, LayerSpec] | None = None) -> LayerGraph:
    """A NeRF network `(encoded position, encoded direction) -> (raw density, raw colour)`, or the first output alone.

    Args:
        shape: its widths.
        specs: layers that are not dense, by name.

    Returns:
        Graph with outputs `[..., output_width]` and `[..., 3]`, before any activation; without a head its one input
        is the encoded position, its one output the first.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import NeRFShape, build_nerf
        >>> density, colour = build_nerf(NeRFShape(trunk_width=16))(torch.rand(5, 63), torch.rand(5, 27))
        >>> density.shape, colour.shape
        (torch.Size([5, 1]), torch.Size([5, 3]))
    """
    specs = specs or {}
    dense = LayerSpec(function=shape.function, start=shape.start)
    layers, wiring = {}, {}
    previous: int | str = 0
    for i in range(shape.trunk_layers):
        name = f"trunk_{i}"
        skips = i in shape.skips and i > 0
        width = shape.position_width if i == 0 else shape.trunk_width + (shape.position_width if skips else 0)
        layers[name] = specs.get(name, dense).build(width, shape.trunk_width)
        wiring[name] = [0, previous] if skips else [previous]
        previous = name
    linear = LayerSpec(function="identity")
    layers[shape.output], wiring[shape.output] = linear.build(shape.trunk_width, shape.output_width), [previous]
    if not shape.head_width:
        return LayerGraph(layers, wiring, (shape.position_width,), (shape.output,))
    width = shape.trunk_width
    if shape.bottleneck_width:
        layers["bottleneck"] = linear.build(width, shape.bottleneck_width)
        wiring["bottleneck"], width, previous = [previous], shape.bottleneck_width, "bottleneck"
    width, reads = shape.direction_width + width, [1, previous]
    for i in range(shape.head_layers):
        name = f"head_{i}"
        layers[name] = specs.get(name, dense).build(width, shape.head_width)
        wiring[name] = reads
        width, reads = shape.head_width, [name]
    layers["rgb"], wiring["rgb"] = linear.build(width, 3), reads
    return LayerGraph(layers, wiring, (shape.position_width, shape.direction_width), (shape.output, "rgb"))


def build_variant(shape: NeRFShape, variant: str, replacement: Replacement) -> LayerGraph:
    """The network of one variant: `dense`, `eugen`, or a baseline whose multiply-adds match those of `eugen`.

    `lowrank` and `monarch` replace the same layers at the rank or inner width, `narrow` shrinks every width by the
    factor, that come nearest to the collapsed EUGen network; `shallow` has the number of trunk layers that comes
    nearest, and then the width; `snnk` takes the same number of features.

    Raises:
        ConfigError: unknown variant, or settings that make no sense.

    Examples:
        >>> from eugen_nerf.core import NeRFShape, Replacement, build_variant
        >>> shape, replacement = NeRFShape(), Replacement(num_features=(64,))
        >>> costs = {kind: build_variant(shape, kind, replacement).multiply_adds() for kind in ("eugen", "lowrank")}
        >>> round(costs["lowrank"] / costs["eugen"], 1)
        1.0
    """
    if variant not in VARIANTS:
        raise ConfigError(f"variant {variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
    if variant == "dense":
        return build_nerf(shape)
    if variant in ("eugen", "snnk"):
        return build_nerf(shape, layer_specs(shape, variant, replacement))
    target = build_nerf(shape, layer_specs(shape, "eugen", replacement)).multiply_adds()
    if variant == "shallow":
        depths = {n: build_nerf(shape.shallower(n)).multiply_adds() for n in range(1, shape.trunk_layers + 1)}
        shape = shape.shallower(min(depths, key=lambda n: abs(depths[n] - target)))

    def candidate(size: int) -> LayerGraph:
        if variant in ("narrow", "shallow"):
            return build_nerf(shape.narrowed(size))
        count = MONARCH_BLOCKS * size if variant == "monarch" else size
        return build_nerf(shape, layer_specs(shape, variant, replace(replacement, num_features=(count,))))

    low, high = 1, 2 * shape.trunk_width if variant == "shallow" else shape.trunk_width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if candidate(middle).multiply_adds() <= target else (low, middle)
    return candidate(min((low, high), key=lambda size: abs(candidate(size).multiply_adds() - target)))
