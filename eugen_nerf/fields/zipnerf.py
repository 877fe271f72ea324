"""The fields of Zip-NeRF (Barron et al. 2023, arXiv 2304.06706): small networks on a pyramid of hash grids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nerfstudio.field_components.activations import trunc_exp
from torch import Tensor

from eugen_nerf.core import HashGrid
from eugen_nerf.core.encodings.hash_grid import pyramid
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.fields.encoders import MultisampleEncoder
from eugen_nerf.fields.frustum_field import UnboundedField, UnboundedFieldConfig
from eugen_nerf.fields.tcnn_grid import tcnn_grid


@dataclass
class ZipNeRFFieldConfig(UnboundedFieldConfig):
    """Zip-NeRF's NeRF MLP at full size, its view-dependent head of EUGen layers."""

    _target: type = field(default_factory=lambda: ZipNeRFField)
    """Class to instantiate."""
    layers: tuple[str, ...] = ("head_.*",)
    """Hidden layers to replace: regular expressions on trunk_0, head_0, head_1, ...; unused by dense."""
    num_features: tuple[int, ...] = (64,)
    """Random features m: one number for all replaced layers, or one for each in the network's order."""
    trunk_layers: int = 1
    """Number of layers on the grid's features."""
    trunk_width: int = 64
    """Width of the trunk's layers."""
    skips: tuple[int, ...] = ()
    """Trunk layers that read the grid's features again."""
    head_layers: int = 2
    """Number of layers of the view-dependent head."""
    head_width: int = 256
    """Width of the head's layers; 0 for a field of density alone, as proposals are."""
    grid: Literal["torch", "tcnn"] = "torch"
    """Interpolation of the grid: plain PyTorch, or tiny-cuda-nn, with PyTorch in its place where it is missing.
    Checkpoints fit both."""
    min_resolution: int = 16
    """Vertices along each side of the coarsest level; every further level doubles it."""
    max_resolution: int = 8192
    """Vertices along each side of the finest level."""
    features_per_level: int = 4
    """Numbers a vertex."""
    log2_table_size: int = 21
    """Levels with more vertices than 2 to this power are hashed."""

    def position_width(self) -> int:
        """Width of the grid's features."""
        return len(self.resolutions()) * (self.features_per_level + 1)

    def resolutions(self) -> tuple[int, ...]:
        """Vertices along each side, by level."""
        return pyramid(self.min_resolution, self.max_resolution)

    def build_grid(self) -> HashGrid:
        """The pyramid of grids, freshly drawn."""
        kind = tcnn_grid if self.grid == "tcnn" else HashGrid
        return kind(self.resolutions(), self.features_per_level, self.log2_table_size, seed=self.seed)


class ZipNeRFField(UnboundedField):
    """Zip-NeRF's field.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.

    Raises:
        ConfigError: resolutions that do not double.
    """

    def __init__(self, config: ZipNeRFFieldConfig, variant: Variant) -> None:
        super().__init__(config, variant, MultisampleEncoder(config.build_grid()))

    @property
    def grid(self) -> HashGrid:
        """The pyramid of grids."""
        assert isinstance(self.encoder, MultisampleEncoder)
        return self.encoder.grid

    def density_activation(self, raw: Tensor) -> Tensor:
        """Density from the network's raw output plus `density_bias`; the gradient of the exponential is bounded."""
        density: Tensor = trunc_exp(raw)
        return density
