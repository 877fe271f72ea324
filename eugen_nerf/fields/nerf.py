"""A nerfstudio field around a NeRF graph: encodings in, density and colour out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core.encodings.point_encodings import FrequencyEncoding
from eugen_nerf.core.networks.nerf_mlp import NeRFShape, Variant
from eugen_nerf.fields.encoders import direction_encoding, plain_frequencies
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig, Indices


@dataclass
class NeRFFieldConfig(GraphFieldConfig):
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


class NeRFField(GraphField):
    """Density and view-dependent colour at points (Mildenhall et al. 2020), the network a graph of layers.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.nerf.VARIANTS`.
    """

    def __init__(self, config: NeRFFieldConfig, variant: Variant) -> None:
        super().__init__(config, variant)
        self.position_encoding = NeRFEncoding(
            in_dim=3,
            num_frequencies=config.position_frequencies,
            min_freq_exp=0.0,
            max_freq_exp=config.position_max_exponent,
            include_input=True,
        )
        self.direction_encoding = direction_encoding(config.direction_frequencies)

    def encode(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """The network's inputs: encoded positions `[..., 63]` and directions `[..., 27]` at the default sizes."""
        positions = ray_samples.frustums.get_positions()
        return self.position_encoding(positions), self.direction_encoding(ray_samples.frustums.directions)

    def input_encodings(self) -> tuple[FrequencyEncoding, FrequencyEncoding]:
        """Those of positions and directions."""
        return plain_frequencies(self.position_encoding), plain_frequencies(self.direction_encoding)

    def encode_needed(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None) -> tuple[Tensor, ...]:
        """As the base class; directions are not encoded for the density alone, and nothing where a plan does that."""
        inputs = (ray_samples.frustums.get_positions(), ray_samples.frustums.directions)
        encoders = (self.position_encoding, self.direction_encoding)
        needed = self.network.needed_inputs(outputs)
        return tuple(inputs[i] if self.plan_encodes else encoders[i](inputs[i]) for i in needed)

    def query(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """As the base class; in parts, a ray's direction is encoded once."""
        directions = ray_samples.frustums.directions
        if torch.is_grad_enabled() or self.evaluation_rows is None or directions.ndim != 3 or not directions.numel():
            return super().query(ray_samples, outputs)
        if not _shared_by_rays(directions):
            return super().query(ray_samples, outputs)
        rays, samples = directions.shape[:2]
        ray = torch.arange(rays, device=directions.device).repeat_interleave(samples)
        found = self._query_points(ray_samples.frustums.get_positions().reshape(-1, 3), directions[:, 0], ray, outputs)
        return tuple(v.view(rays, samples, -1) for v in found)

    def _query_points(
        self, points: Tensor, directions: Tensor, ray: Tensor, outputs: tuple[int, ...] | None
    ) -> tuple[Tensor, ...]:
        """Raw outputs `[n, channels]` at points `[n, 3]` of rays number `ray` `[n]` with directions `[rays, 3]`."""
        rows, parts = self.evaluation_rows or len(points), []
        with_directions = 1 in self.network.needed_inputs(outputs)
        encode = not self.plan_encodes
        asked = self.direction_encoding(directions) if encode and with_directions else directions
        for start in range(0, len(points), rows):
            part = points[start : start + rows]
            inputs = [self.position_encoding(part) if encode else part]
            if with_directions:
                inputs.append(asked.index_select(0, ray[start : start + rows]))
            parts.append(self.run_network(*inputs, outputs=outputs))
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def answer_at(
        self, ray_samples: RaySamples, where: Indices, positions: Tensor, *, colours: bool = True
    ) -> dict[FieldHeadNames, Tensor]:
        """As the base class; without gradients only what the network reads is taken from the samples."""
        directions = ray_samples.frustums.directions
        if torch.is_grad_enabled() or self.evaluation_rows is None or not len(where[0]):
            return super().answer_at(ray_samples, where, positions, colours=colours)
        if not _shared_by_rays(directions):
            return super().answer_at(ray_samples, where, positions, colours=colours)
        density, *colour = self._query_points(positions[where], directions[:, 0], where[0], None if colours else (0,))
        found = {FieldHeadNames.DENSITY: F.softplus(density)}
        return {**found, FieldHeadNames.RGB: torch.sigmoid(colour[0])} if colours else found

    def density_alone(self, ray_samples: RaySamples) -> Tensor:
        """Density `[..., 1]`; neither directions nor colours are computed."""
        return F.softplus(self.query(ray_samples, (0,))[0])

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """Density `[..., 1]` at the samples, and the raw colour `[..., 3]` that came with it."""
        density, colour = self.query(ray_samples)
        return F.softplus(density), colour

    def get_outputs(
        self, ray_samples: RaySamples, density_embedding: Tensor | None = None
    ) -> dict[FieldHeadNames, Tensor]:
        """Colour in [0, 1], `[..., 3]`, from what `get_density` returned."""
        assert density_embedding is not None
        return {FieldHeadNames.RGB: torch.sigmoid(density_embedding)}


def _shared_by_rays(directions: Tensor) -> bool:
    """Whether all samples of a ray have its direction: directions `[rays, samples, 3]`."""
    return directions.stride(1) == 0 or torch.equal(directions, directions[:, :1].expand_as(directions))
