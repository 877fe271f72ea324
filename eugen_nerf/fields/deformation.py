"""From a point of a moving scene to the canonical scene: the deformation network of D-NeRF (arXiv 2011.13961)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor, nn

from eugen_nerf.core import EvaluationMode, NeRFShape
from eugen_nerf.core.errors import RunError
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig


@dataclass
class DeformationFieldConfig(GraphFieldConfig):
    """Network of a deformation; the defaults are D-NeRF's sizes with a trunk of EUGen layers."""

    _target: type = field(default_factory=lambda: DeformationField)
    """Class to instantiate."""
    trunk_layers: int = 8
    """Number of hidden layers on the encoded position and time."""
    trunk_width: int = 256
    """Width of the hidden layers."""
    skips: tuple[int, ...] = (4,)
    """Hidden layers that read the encoded position and time again."""
    position_frequencies: int = 10
    """Frequencies of the position encoding."""
    position_max_exponent: float = 8.0
    """Highest frequency of the position encoding, as an exponent of 2."""
    time_frequencies: int = 10
    """Frequencies of the time encoding."""
    time_max_exponent: float = 8.0
    """Highest frequency of the time encoding, as an exponent of 2."""
    anchored: bool = True
    """Multiply the offset by the time: exactly zero at time 0, where the scene is the canonical one, and continuous.
    Stock D-NeRF does not, and runs converted from it stay as they were trained."""

    def shape(self) -> NeRFShape:
        """The widths, with those of the encodings filled in."""
        return NeRFShape(
            position_width=3 + 6 * self.position_frequencies + 1 + 2 * self.time_frequencies,
            trunk_layers=self.trunk_layers,
            trunk_width=self.trunk_width,
            skips=tuple(self.skips),
            head_width=0,
            output="offset",
            output_width=3,
        )


class DeformationField(GraphField):
    """Offsets from points at a time to their positions in the canonical scene (Sec. 3 of arXiv 2011.13961).

    Args:
        config: sizes and replaced layers.
        variant: one of `core.networks.nerf_mlp.VARIANTS`.
    """

    def __init__(self, config: DeformationFieldConfig, variant: Variant) -> None:
        super().__init__(config, variant)
        self.anchored = config.anchored
        self.position_encoding = _encoding(3, config.position_frequencies, config.position_max_exponent)
        self.time_encoding = _encoding(1, config.time_frequencies, config.time_max_exponent)

    def encode(self, ray_samples: RaySamples, outputs: tuple[int, ...] | None = None) -> tuple[Tensor]:
        """The network's input, encoded positions and times `[..., 84]` at the default sizes.

        Raises:
            RunError: samples without times.
        """
        positions = self.position_encoding(ray_samples.frustums.get_positions())
        return (torch.cat([positions, self.time_encoding(times_of(ray_samples))], dim=-1),)

    def offsets(self, ray_samples: RaySamples, mode: EvaluationMode) -> Tensor:
        """Offsets `[..., 3]` of samples with times, in scene units.

        Args:
            ray_samples: `[...]`.
            mode: differentiable or inference, as the caller renders.

        Raises:
            RunError: samples without times.
        """
        (raw,) = self.raw_outputs(ray_samples, mode)
        return raw * times_of(ray_samples) if self.anchored else raw

    def forward(self, ray_samples: RaySamples, compute_normals: bool = False) -> Tensor:  # type: ignore[override]
        """`offsets` in PyTorch's current mode."""
        return self.offsets(ray_samples, EvaluationMode.current())

    def get_density(self, ray_samples: RaySamples) -> tuple[Tensor, Tensor]:
        """A deformation has none."""
        raise NotImplementedError("a deformation has no density: evaluate the canonical field at the displaced samples")

    def get_outputs(
        self, ray_samples: RaySamples, density_embedding: Tensor | None = None
    ) -> dict[FieldHeadNames, Tensor]:
        """A deformation has none of these."""
        raise NotImplementedError("a deformation has no outputs but offsets: call `offsets`")


class DeformedField(nn.Module):
    """A canonical field evaluated at displaced samples: what one query of a dynamic scene takes.

    Args:
        deformation: from ray samples to offsets `[..., 3]`.
        field: nerfstudio field of the canonical scene.
    """

    def __init__(self, deformation: nn.Module, field: nn.Module) -> None:
        super().__init__()
        self.deformation, self.field = deformation, field

    def forward(self, ray_samples: RaySamples) -> dict[FieldHeadNames, Tensor]:
        """Outputs of the canonical field for samples `[...]` with times."""
        return self.field(displaced(ray_samples, self.deformation(ray_samples)))


class DeformedGraphField(DeformedField):
    """`DeformedField` of graphs of layers, whose costs are counted."""

    deformation: GraphField
    field: GraphField

    def inference_parameters(self) -> int:
        """Numbers that evaluation keeps, of both."""
        return self.deformation.inference_parameters() + self.field.inference_parameters()

    def macs_per_query(self) -> int:
        """Multiply-adds of both collapsed networks for one point."""
        return self.deformation.macs_per_query() + self.field.macs_per_query()


def displaced(ray_samples: RaySamples, offsets: Tensor | None) -> RaySamples:
    """The same samples `[...]`, moved off their rays by offsets `[..., 3]` (None: not at all); those given stay."""
    return replace(ray_samples, frustums=replace(ray_samples.frustums, offsets=offsets))


def times_of(ray_samples: RaySamples) -> Tensor:
    """Times `[..., 1]` of samples.

    Raises:
        RunError: they have none.
    """
    if ray_samples.times is None:
        raise RunError(
            "the rays have no time: a dynamic scene needs data with `time` (dnerf-data), and a camera path with "
            "render_time (ns-render interpolate drops it: take eugen-render, or ns-render camera-path)"
        )
    return ray_samples.times


def _encoding(width: int, frequencies: int, max_exponent: float) -> NeRFEncoding:
    return NeRFEncoding(
        in_dim=width, num_frequencies=frequencies, min_freq_exp=0.0, max_freq_exp=max_exponent, include_input=True
    )
