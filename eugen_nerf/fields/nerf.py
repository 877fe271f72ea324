"""A nerfstudio field around a NeRF graph: encodings in, density and colour out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.core import EvaluationMode, FrequencyEncoding, NeRFShape
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.encoders import direction_encoding, plain_frequencies
from eugen_nerf.fields.graph_field import GraphFieldConfig
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField, Selection


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


class NeRFField(RadianceField):
    """Density and view-dependent colour at points (Mildenhall et al. 2020), the network a graph of layers.

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
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

    def encode(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Encoded positions `[..., 63]` and, for the colour, directions `[..., 27]` at the default sizes."""
        frustums = ray_samples.frustums
        positions = self.position_encoding(frustums.get_positions())
        if self.network.needed_inputs(outputs) == (0,):
            return (positions,)
        return positions, self.direction_encoding(frustums.directions)

    def input_encodings(self) -> tuple[FrequencyEncoding, FrequencyEncoding]:
        """Those of positions and directions."""
        return plain_frequencies(self.position_encoding), plain_frequencies(self.direction_encoding)

    def network_inputs(
        self, ray_samples: RaySamples, mode: EvaluationMode, outputs: tuple[int, ...] | None
    ) -> tuple[Tensor, ...]:
        """As the base class; points and directions as they are where a plan encodes them."""
        if not self.plan_encodes(mode):
            return self.encode(ray_samples, outputs)
        points = (ray_samples.frustums.get_positions(), ray_samples.frustums.directions)
        return tuple(points[i] for i in self.network.needed_inputs(outputs))

    def activate(self, raw: Sequence[Tensor]) -> FieldOutputs:
        """Density by softplus, colour in [0, 1] by the sigmoid."""
        density, *colour = raw
        outputs = {FieldHeadNames.DENSITY: F.softplus(density)}
        return {**outputs, FieldHeadNames.RGB: torch.sigmoid(colour[0])} if colour else outputs

    @full_precision()
    def evaluate(
        self,
        ray_samples: RaySamples,
        mode: EvaluationMode,
        *,
        density_only: bool = False,
        selection: Selection | None = None,
    ) -> FieldOutputs:
        """As the base class; where it goes in parts, a ray's direction is encoded once for all of its samples."""
        directions = ray_samples.frustums.directions
        if not self.in_parts(mode) or not _shared_by_rays(directions):
            return super().evaluate(ray_samples, mode, density_only=density_only, selection=selection)
        if selection is not None:
            return self.activate(
                self._raw_in_parts(selection.positions, directions[:, 0], selection.indices[0], density_only)
            )
        rays, samples = directions.shape[:2]
        ray = torch.arange(rays, device=directions.device).repeat_interleave(samples)
        points = ray_samples.frustums.get_positions().reshape(-1, 3)
        raw = self._raw_in_parts(points, directions[:, 0], ray, density_only)
        return self.activate([v.view(rays, samples, -1) for v in raw])

    @full_precision()
    def evaluate_spans(self, ray_bundle: RayBundle, spans: Spans) -> FieldOutputs:
        """As the base class; a ray's direction is encoded once for all of its spans."""
        origins, directions = spans.of_rays(ray_bundle.origins), spans.of_rays(ray_bundle.directions)
        points = torch.addcmul(origins, directions, spans.middle[:, None])
        return self.activate(self._raw_in_parts(points, ray_bundle.directions, spans.ray, density_only=False))

    def _raw_in_parts(self, points: Tensor, directions: Tensor, ray: Tensor, density_only: bool) -> tuple[Tensor, ...]:
        """Raw outputs `[n, channels]` at points `[n, 3]` of rays number `ray` `[n]` with directions `[rays, 3]`."""
        outputs = self.network_outputs(density_only)
        coloured = 1 in self.network.needed_inputs(outputs)
        encode = not self.plan_encodes(EvaluationMode.INFERENCE)
        if coloured and encode:
            directions = self.direction_encoding(directions)
        rows, parts = self.inference_rows or len(points), []
        for start in range(0, len(points), rows):
            part = points[start : start + rows]
            inputs = [self.position_encoding(part) if encode else part]
            if coloured:
                inputs.append(directions.index_select(0, ray[start : start + rows]))
            parts.append(self.run_network(*inputs, mode=EvaluationMode.INFERENCE, outputs=outputs))
        return tuple(map(torch.cat, zip(*parts, strict=True)))


def _shared_by_rays(directions: Tensor) -> bool:
    """Whether directions are `[rays, samples, 3]`, some, and all samples of a ray have its direction."""
    if directions.ndim != 3 or not directions.numel():
        return False
    return directions.stride(1) == 0 or torch.equal(directions, directions[:, :1].expand_as(directions))
