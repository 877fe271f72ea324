"""A nerfstudio field around a NeRF graph: encodings in, density and colour out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.base_field import Field, FieldConfig
from torch import Tensor

from eugen_nerf.core.eugen import EUGenConfig
from eugen_nerf.core.nerf import NeRFShape, Replacement, Variant, build_variant


@dataclass
class NeRFFieldConfig(FieldConfig):
    """Network of a NeRF field; the defaults are vanilla-nerf's sizes with a trunk of EUGen layers."""

    _target: type = field(default_factory=lambda: NeRFField)
    """Class to instantiate."""
    trunk_layers: int = 8
    """Number of layers on the encoded position."""
    trunk_width: int = 256
    """Width of the trunk's layers."""
    skips: tuple[int, ...] = (4,)
    """Trunk layers that read the encoded position again."""
    head_layers: int = 2
    """Number of layers of the view-dependent head."""
    head_width: int = 128
    """Width of the head's layers."""
    position_frequencies: int = 10
    """Frequencies of the position encoding."""
    position_max_exponent: float = 8.0
    """Highest frequency of the position encoding, as an exponent of 2."""
    direction_frequencies: int = 4
    """Frequencies of the direction encoding."""
    layers: tuple[str, ...] = ("trunk_.*",)
    """Hidden layers to replace: regular expressions on trunk_0, trunk_1, ..., head_0, ...; unused by dense."""
    num_features: tuple[int, ...] = (128,)
    """Random features m: one number for all replaced layers, or one for each in the network's order."""
    degree: int = 1
    """Highest degree k of Eq. (1)."""
    phi: str = "relu"
    """Outer function of the features."""
    norm: bool = False
    """Whether the features see the input's norm; collapsed it costs about a second matrix, so it is off by default."""
    projection: str = "gaussian"
    """Distribution of the projections at the start: gaussian, rademacher or orthogonal."""
    train_projection: bool = True
    """Whether the projections are trained or stay as they were drawn."""
    seed: int = 0
    """Seed of the projections and of the replaced layers' first weights; `--machine.seed` is the dense layers'."""
    train_precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products while training, worth trying on processors with bfloat16 units (nerfstudio
    switches its own mixed precision off on a CPU). Weights, encodings and evaluation stay float32."""

    def shape(self) -> NeRFShape:
        """The widths, with those of the encodings filled in."""
        return NeRFShape(
            position_width=3 + 6 * self.position_frequencies,
            direction_width=3 + 6 * self.direction_frequencies,
            trunk_layers=self.trunk_layers,
            trunk_width=self.trunk_width,
            skips=tuple(self.skips),
            head_layers=self.head_layers,
            head_width=self.head_width,
        )

    def replacement(self) -> Replacement:
        """Which layers are replaced, by what."""
        eugen = EUGenConfig(
            degree=self.degree,
            phi=self.phi,
            norm=self.norm,
            projection=self.projection,
            train_projection=self.train_projection,
            seed=self.seed,
        )
        return Replacement(tuple(self.layers), tuple(self.num_features), eugen)


class NeRFField(Field):
    """Density and view-dependent colour at points (Mildenhall et al. 2020), the network a graph of layers.

    Args:
        config: sizes and replaced layers.
        variant: eugen, dense, lowrank, snnk or narrow.
    """

    def __init__(self, config: NeRFFieldConfig, variant: Variant) -> None:
        super().__init__()
        self.position_encoding = NeRFEncoding(
            in_dim=3,
            num_frequencies=config.position_frequencies,
            min_freq_exp=0.0,
            max_freq_exp=config.position_max_exponent,
            include_input=True,
        )
        self.direction_encoding = NeRFEncoding(
            in_dim=3,
            num_frequencies=config.direction_frequencies,
            min_freq_exp=0.0,
            max_freq_exp=4.0,
            include_input=True,
        )
        self.half_training = config.train_precision == "bfloat16"
        self.network = build_variant(config.shape(), variant, config.replacement())

    def encode(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """The network's inputs: encoded positions `[..., 63]` and directions `[..., 27]` at the default sizes."""
        positions = ray_samples.frustums.get_positions()
        return self.position_encoding(positions), self.direction_encoding(ray_samples.frustums.directions)

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """Density `[..., 1]` at the samples, and the raw colour `[..., 3]` that came with it."""
        inputs = self.encode(ray_samples)
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.training and self.half_training):
            density, colour = self.network(*inputs)
        return F.softplus(density.float()), colour.float()

    def get_outputs(
        self, ray_samples: RaySamples, density_embedding: Tensor | None = None
    ) -> dict[FieldHeadNames, Tensor]:
        """Colour in [0, 1], `[..., 3]`, from what `get_density` returned."""
        assert density_embedding is not None
        return {FieldHeadNames.RGB: torch.sigmoid(density_embedding)}

    def inference_parameters(self) -> int:
        """Numbers that evaluation keeps: the collapsed network's weights and biases."""
        return self.network.collapsed().count_numbers()

    def macs_per_query(self) -> int:
        """Multiply-adds of the collapsed network for one point."""
        return self.network.multiply_adds()
