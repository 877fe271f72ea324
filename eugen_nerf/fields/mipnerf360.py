"""The field of Mip-NeRF 360 (Barron et al. 2022, arXiv 2111.12077)."""

from __future__ import annotations

from dataclasses import dataclass, field

from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.fields.encoders import NUM_DIRECTIONS, GaussianEncoder
from eugen_nerf.fields.frustum_field import UnboundedField, UnboundedFieldConfig


@dataclass
class MipNeRF360FieldConfig(UnboundedFieldConfig):
    """The NeRF MLP of Mip-NeRF 360 at full size, its trunk of EUGen layers."""

    _target: type = field(default_factory=lambda: MipNeRF360Field)
    """Class to instantiate."""
    num_features: tuple[int, ...] = (512,)
    """Random features m: one number for all replaced layers, or one for each in the network's order."""
    position_frequencies: int = 12
    """Frequencies of the integrated encoding, from 2^0, along each of 21 directions."""

    def position_width(self) -> int:
        """Width of the integrated encoding."""
        return 2 * NUM_DIRECTIONS * self.position_frequencies


class MipNeRF360Field(UnboundedField):
    """Mip-NeRF 360's field.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
    """

    def __init__(self, config: MipNeRF360FieldConfig, variant: Variant) -> None:
        super().__init__(config, variant, GaussianEncoder(config.position_frequencies))
