"""eugen-mipnerf360: Mip-NeRF 360 (Barron et al. 2022) whose networks are EUGen, dense or a baseline, by one flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nerfstudio.model_components.losses import interlevel_loss
from nerfstudio.model_components.ray_samplers import LinearDisparitySampler, Sampler
from torch import Tensor

from eugen_nerf.fields.frustum_field import UnboundedFieldConfig
from eugen_nerf.fields.mipnerf360 import MipNeRF360FieldConfig
from eugen_nerf.methods.proposals import Round
from eugen_nerf.methods.unbounded_model import UnboundedModel, UnboundedModelConfig


@dataclass
class MipNeRF360ModelConfig(UnboundedModelConfig):
    """Mip-NeRF 360 with replaceable layers, at the paper's sizes."""

    _target: type = field(default_factory=lambda: MipNeRF360Model)
    """Class to instantiate."""
    network: MipNeRF360FieldConfig = field(default_factory=MipNeRF360FieldConfig)
    """Sizes of the NeRF MLP, and its layers that are replaced."""
    proposal: MipNeRF360FieldConfig = field(
        default_factory=lambda: MipNeRF360FieldConfig(
            trunk_layers=4, trunk_width=256, skips=(), head_width=0, num_features=(64,), seed=1000
        )
    )
    """Sizes of the one proposal MLP that serves all rounds, and its layers that are replaced."""

    def field_settings(self) -> tuple[UnboundedFieldConfig, Sequence[UnboundedFieldConfig]]:
        """Settings of the final field, and of the proposal."""
        return self.network, [self.proposal]


class MipNeRF360Model(UnboundedModel):
    """Mip-NeRF 360 (arXiv 2111.12077)."""

    config: MipNeRF360ModelConfig

    def first_sampler(self) -> Sampler:
        """Linear in disparity."""
        return LinearDisparitySampler(single_jitter=True)

    def interlevel_loss(self, rounds: Sequence[Round]) -> Tensor:
        """Part of the final weights that the proposals' do not bound (Eq. 13 of arXiv 2111.12077)."""
        return interlevel_loss([r.weights for r in rounds], [r.samples for r in rounds])
