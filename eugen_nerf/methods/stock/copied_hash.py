"""The fields of stock `nerfacto` as graphs of layers: density and colour on hash grids over a cube."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core import EvaluationMode, LayerGraph
from eugen_nerf.core.encodings.cube_encodings import CubeEncoding, SphericalEncoding
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.encoders import FrustumEncoder
from eugen_nerf.fields.graph_field import GraphFieldConfig
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField, Selection


class CubeEncoder(FrustumEncoder):
    """Interpolated grid features at the samples' middles.

    Args:
        cube: grids and the cube that they cover.
    """

    def __init__(self, cube: CubeEncoding) -> None:
        super().__init__()
        self.cube = cube
        self.out_features = cube.out_features

    @full_precision()
    def forward(self, ray_samples: RaySamples) -> Tensor:
        """Features `[..., out_features]`; outside the cube those of a corner."""
        features: Tensor = self.cube(ray_samples.frustums.get_positions(), None)
        return features


class CopiedHashField(RadianceField):
    """Density and, where the network has an output for it, colour.

    Args:
        network: from features, and directions where there are colours, to raw density and raw colour.
        cube: grids and the cube that they cover; outside of it there is no density.
        direction: encoding of view directions; None for a proposal.
        density_bias: added to the raw density before its exponential.
    """

    def __init__(
        self, network: LayerGraph, cube: CubeEncoding, direction: SphericalEncoding | None, density_bias: float
    ) -> None:
        super().__init__(GraphFieldConfig(), "dense", network)
        self.encoder = CubeEncoder(cube)
        self.direction_encoding, self.density_bias = direction, density_bias

    def encode(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """The grids' features and, for the colour, directions; those of a ray are encoded once."""
        features = self.encoder(ray_samples)
        if self.direction_encoding is None or self.network.needed_inputs(outputs) == (0,):
            return (features,)
        directions = ray_samples.frustums.directions
        shared = directions.dim() == 3 and directions.stride(1) == 0
        towards = self.direction_encoding(directions[:, :1] if shared else directions, None)
        return features, towards.expand(*directions.shape[:-1], -1)

    def activate(self, raw: Sequence[Tensor]) -> FieldOutputs:
        """Density by the exponential, colour by the sigmoid."""
        density, *colour = raw
        outputs = {FieldHeadNames.DENSITY: torch.exp(density + self.density_bias)}
        if colour:
            outputs[FieldHeadNames.RGB] = torch.sigmoid(colour[0])
        return outputs

    def evaluate(
        self,
        ray_samples: RaySamples,
        mode: EvaluationMode,
        *,
        density_only: bool = False,
        selection: Selection | None = None,
    ) -> FieldOutputs:
        """As the base class; the density is zero outside the cube."""
        outputs = super().evaluate(ray_samples, mode, density_only=density_only, selection=selection)
        positions = ray_samples.frustums.get_positions() if selection is None else selection.positions
        cube = self.encoder.cube
        inside = cube.is_inside(cube.unit(positions))
        return {**outputs, FieldHeadNames.DENSITY: outputs[FieldHeadNames.DENSITY] * inside}
