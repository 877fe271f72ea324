"""What the fields of Mip-NeRF 360 and Zip-NeRF share: density and colour of conical frustums in contracted space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core import NeRFShape
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.fields.encoders import FrustumEncoder, direction_encoding
from eugen_nerf.fields.graph_field import GraphFieldConfig
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField


@dataclass
class UnboundedFieldConfig(GraphFieldConfig):
    """Sizes that Mip-NeRF 360 and Zip-NeRF share."""

    trunk_layers: int = 8
    """Number of layers on the encoded frustum."""
    trunk_width: int = 1024
    """Width of the trunk's layers."""
    skips: tuple[int, ...] = (5,)
    """Trunk layers that read the encoded frustum again."""
    bottleneck_width: int = 256
    """Width of the linear layer between trunk and head."""
    head_layers: int = 1
    """Number of layers of the view-dependent head."""
    head_width: int = 128
    """Width of the head's layers; 0 for a field of density alone, as proposals are."""
    direction_frequencies: int = 4
    """Frequencies of the direction encoding."""
    density_bias: float = -1.0
    """Added to the raw density before its activation."""
    rgb_padding: float = 0.001
    """How far colours may leave [0, 1] on either side while training."""

    def position_width(self) -> int:
        """Width of the encoded frustum."""
        raise NotImplementedError

    def shape(self) -> NeRFShape:
        """The widths, with those of the encodings filled in."""
        return NeRFShape(
            position_width=self.position_width(),
            direction_width=3 + 6 * self.direction_frequencies,
            trunk_layers=self.trunk_layers,
            trunk_width=self.trunk_width,
            skips=tuple(self.skips),
            bottleneck_width=self.bottleneck_width,
            head_layers=self.head_layers,
            head_width=self.head_width,
        )


class UnboundedField(RadianceField):
    """Density and colour of conical frustums in contracted space.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
        encoder: of the frustums.
    """

    def __init__(self, config: UnboundedFieldConfig, variant: Variant, encoder: FrustumEncoder) -> None:
        super().__init__(config, variant)
        self.encoder = encoder
        self.direction_encoding = direction_encoding(config.direction_frequencies) if config.head_width else None
        self.density_bias, self.rgb_padding = config.density_bias, config.rgb_padding

    def encode(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """The encoded frustums and, for the colour, directions."""
        features = self.encoder(ray_samples)
        if self.direction_encoding is None or self.network.needed_inputs(outputs) == (0,):
            return (features,)
        return features, self.direction_encoding(ray_samples.frustums.directions)

    def density_activation(self, raw: Tensor) -> Tensor:
        """Density from the network's raw output plus `density_bias`."""
        return F.softplus(raw)

    def activate(self, raw: Sequence[Tensor]) -> FieldOutputs:
        """Density by `density_activation`, colour in [-padding, 1 + padding] by the sigmoid."""
        density, *colour = raw
        outputs = {FieldHeadNames.DENSITY: self.density_activation(density + self.density_bias)}
        if colour:
            outputs[FieldHeadNames.RGB] = torch.sigmoid(colour[0]) * (1 + 2 * self.rgb_padding) - self.rgb_padding
        return outputs
