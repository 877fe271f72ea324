"""What the fields of Mip-NeRF 360 and Zip-NeRF share: density and colour of conical frustums in contracted space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core.networks.nerf_mlp import NeRFShape, Variant
from eugen_nerf.fields.encoders import FrustumEncoder, direction_encoding
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig


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


class UnboundedField(GraphField):
    """Density and colour of conical frustums in contracted space.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.nerf.VARIANTS`.
        encoder: of the frustums.
    """

    def __init__(self, config: UnboundedFieldConfig, variant: Variant, encoder: FrustumEncoder) -> None:
        super().__init__(config, variant)
        self.encoder = encoder
        self.direction_encoding = direction_encoding(config.direction_frequencies) if config.head_width else None
        self.density_bias, self.rgb_padding = config.density_bias, config.rgb_padding

    def encode(self, ray_samples: RaySamples) -> tuple[Tensor, ...]:
        """The encoded frustums and, where there is a head, directions."""
        features = self.encoder(ray_samples)
        if self.direction_encoding is None:
            return (features,)
        return features, self.direction_encoding(ray_samples.frustums.directions)

    def encode_needed(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None) -> tuple[Tensor, ...]:
        """As the base class; directions are not encoded for the density alone."""
        if self.network.needed_inputs(outputs) == (0,):
            return (self.encoder(ray_samples),)
        return self.encode(ray_samples)

    def density_activation(self, raw: Tensor) -> Tensor:
        """Density from the network's raw output plus `density_bias`."""
        return F.softplus(raw)

    def density_of(self, raw: Tensor, ray_samples: RaySamples) -> Tensor:
        """Density `[..., 1]` from the network's output for samples."""
        return self.density_activation(raw + self.density_bias)

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """Density `[..., 1]`, and the raw colour `[..., 3]` that came with it, where there is a head."""
        raw, *colour = self.query(ray_samples)
        return self.density_of(raw, ray_samples), (colour[0] if colour else None)

    def density_alone(self, ray_samples: RaySamples) -> Tensor:
        """Density `[..., 1]`; neither directions nor colours are computed."""
        return self.density_of(self.query(ray_samples, (0,))[0], ray_samples)

    def get_outputs(
        self, ray_samples: RaySamples, density_embedding: Tensor | None = None
    ) -> dict[FieldHeadNames, Tensor]:
        """Colour `[..., 3]` from what `get_density` returned, in [-padding, 1 + padding]."""
        assert density_embedding is not None
        colour = torch.sigmoid(density_embedding) * (1 + 2 * self.rgb_padding) - self.rgb_padding
        return {FieldHeadNames.RGB: colour}
