"""A canonical field on hash grids over the scene's box: small networks, as Instant-NGP has them (arXiv 2201.05989)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.activations import trunc_exp
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core import EvaluationMode, HashGrid
from eugen_nerf.core.encodings.hash_grid import PRECONDITION
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.encoders import FrustumEncoder
from eugen_nerf.fields.frustum_field import UnboundedField
from eugen_nerf.fields.graph_field import GraphField
from eugen_nerf.fields.radiance_field import FieldOutputs, Selection
from eugen_nerf.fields.zipnerf import ZipNeRFFieldConfig


@dataclass
class HashFieldConfig(ZipNeRFFieldConfig):
    """A field on hash grids over the scene's box; its view-dependent head is of EUGen layers."""

    _target: type = field(default_factory=lambda: HashField)
    """Class to instantiate."""
    num_features: tuple[int, ...] = (32,)
    """Random features m: one number for all replaced layers, or one for each in the network's order."""
    bottleneck_width: int = 0
    """Width of the linear layer between trunk and head; 0 for none."""
    head_width: int = 64
    """Width of the head's layers."""
    max_resolution: int = 2048
    """Vertices along each side of the finest level."""
    log2_table_size: int = 19
    """Levels with more vertices than 2 to this power are hashed."""
    rgb_padding: float = 0.0
    """How far colours may leave [0, 1] on either side while training."""

    def position_width(self) -> int:
        """Width of the grid's features."""
        return len(self.resolutions()) * self.features_per_level

    def build(self, variant: Variant, scene_box: SceneBox) -> GraphField:
        """The field over the scene's box."""
        return self.setup(variant=variant, aabb=scene_box.aabb)


class BoxEncoder(FrustumEncoder):
    """Interpolated features of a pyramid of grids at the samples' middles; positions may carry offsets.

    Args:
        grid: the pyramid.
        aabb: corners of the box that it covers, `[2, 3]`.
    """

    aabb: Tensor

    def __init__(self, grid: HashGrid, aabb: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.out_features = len(grid.resolutions) * grid.features
        self.register_buffer("aabb", aabb.clone())

    @full_precision()
    def forward(self, ray_samples: RaySamples) -> Tensor:
        """Features `[..., out_features]`; outside the box those of its border."""
        unit = self.unit(ray_samples.frustums.get_positions())
        points = unit.reshape(-1, 1, 3)
        features = self.grid.pool(points, torch.ones_like(points[None, ..., 0])) * PRECONDITION
        return features.reshape(*unit.shape[:-1], self.out_features)

    def unit(self, positions: Tensor) -> Tensor:
        """Positions `[..., 3]` where the box is [0, 1]^3."""
        return (positions - self.aabb[0]) / (self.aabb[1] - self.aabb[0])


class HashField(UnboundedField):
    """Density and colour inside a box; outside there is nothing.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
        aabb: corners of the box, `[2, 3]`.
    """

    encoder: BoxEncoder

    def __init__(self, config: HashFieldConfig, variant: Variant, aabb: Tensor) -> None:
        super().__init__(config, variant, BoxEncoder(config.build_grid(), aabb))

    def density_activation(self, raw: Tensor) -> Tensor:
        """Density from the network's raw output plus `density_bias`; the gradient of the exponential is bounded."""
        density: Tensor = trunc_exp(raw)
        return density

    def evaluate(
        self,
        ray_samples: RaySamples,
        mode: EvaluationMode,
        *,
        density_only: bool = False,
        selection: Selection | None = None,
    ) -> FieldOutputs:
        """As the base class; the density is zero outside the box."""
        outputs = super().evaluate(ray_samples, mode, density_only=density_only, selection=selection)
        positions = ray_samples.frustums.get_positions() if selection is None else selection.positions
        unit = self.encoder.unit(positions)
        inside = ((unit >= 0) & (unit <= 1)).all(dim=-1, keepdim=True)
        return {**outputs, FieldHeadNames.DENSITY: outputs[FieldHeadNames.DENSITY] * inside}
