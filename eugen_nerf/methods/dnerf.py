"""eugen-dnerf: D-NeRF (Pumarola et al. 2021) whose networks are EUGen, dense or a baseline, by one flag."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from nerfstudio.cameras.rays import RayBundle, RaySamples
from torch import Tensor, nn
from torch.nn import Parameter

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.fields.deformation import DeformationField, DeformationFieldConfig, DeformedGraphField, displaced
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig
from eugen_nerf.fields.radiance_field import FieldOutputs, span_samples
from eugen_nerf.methods.background_renderers import Background
from eugen_nerf.methods.nerf import EugenNerfModel, EugenNerfModelConfig

START_OFFSET = 0.01
"""Factor on the first weights of the offset: a scene that starts by tearing its points apart is learned late."""
START_DENSITY = -1.0
"""Added to the first raw densities, as mip-NeRF does: thick fog at the start is cleared to empty space everywhere, and
on a black background no gradient leads back from there."""


@dataclass
class EugenDNerfModelConfig(EugenNerfModelConfig):
    """D-NeRF with replaceable layers; `variant` is that of all its networks."""

    _target: type = field(default_factory=lambda: EugenDNerfModel)
    """Class to instantiate."""
    deformation: DeformationFieldConfig = field(default_factory=DeformationFieldConfig)
    """Sizes of the deformation network, and its layers that are replaced."""
    background_color: Background = "data"
    """Colour behind the scene; data is that of the data set, found before the first step and kept in the checkpoint."""

    def settings_of(self, name: str) -> tuple[GraphFieldConfig, str]:
        """`deformation` or, for both canonical fields, `network`; and `variant`."""
        return self.deformation if name == "deformation" else self.network, "variant"


class EugenDNerfModel(EugenNerfModel):
    """D-NeRF (arXiv 2011.13961): a deformation leads from every moment to a canonical coarse and fine NeRF."""

    config: EugenDNerfModelConfig

    def populate_modules(self) -> None:
        """Builds the canonical fields, samplers and renderers, and the deformation."""
        if self.config.occupancy != "none":
            raise ConfigError(
                f"occupancy {self.config.occupancy!r} is for scenes that stand still: a moving object's silhouettes "
                "have no hull in common; take --pipeline.model.occupancy none"
            )
        super().populate_modules()
        self.deformation = DeformationField(self.config.deformation, self.config.network_variant())
        with torch.no_grad():
            for values in self.deformation.network.layer("offset").parameters():
                values.mul_(START_OFFSET)
            for canonical in super().graph_fields().values():
                dict(canonical.network.layer("density").named_parameters())["bias"].add_(START_DENSITY)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """`fields` for the canonical fields, and `temporal_distortion`, as stock dnerf has them."""
        return {**super().get_param_groups(), "temporal_distortion": [*self.deformation.parameters()]}

    def graph_fields(self) -> dict[str, GraphField]:
        """`deformation`, `coarse` and `fine`."""
        return {"deformation": self.deformation, **super().graph_fields()}

    def displacing_fields(self) -> tuple[str, ...]:
        """The deformation."""
        return ("deformation",)

    def query_module(self) -> nn.Module:
        """The fine field behind the deformation."""
        return DeformedGraphField(self.deformation, self.field_fine)

    def displace(self, ray_samples: RaySamples, mode: EvaluationMode) -> RaySamples:
        """The samples at their positions in the canonical scene.

        Raises:
            RunError: rays without times.
        """
        return displaced(ray_samples, self.deformation.offsets(ray_samples, mode))

    def evaluate_spans(self, ray_bundle: RayBundle, spans: Spans) -> FieldOutputs:
        """The fine field at displaced positions, the deformation evaluated once for each."""
        samples = self.displace(span_samples(ray_bundle, spans), EvaluationMode.INFERENCE)
        return self.field_fine.evaluate(samples, EvaluationMode.INFERENCE)

    def field_samples(self, ray_bundle: RayBundle, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `EugenNerfModel`; for the deformation, along the fine samples, the coarse ones among them."""
        if name != "deformation":
            return super().field_samples(ray_bundle, name)
        coarse, _, weights = self.sample_coarse(ray_bundle, EvaluationMode.INFERENCE)
        samples, _, weights = self.sample_fine(ray_bundle, coarse, weights, EvaluationMode.INFERENCE)
        samples = displaced(samples, None)
        return self.deformation.encode(samples.flatten()), weights.flatten()
