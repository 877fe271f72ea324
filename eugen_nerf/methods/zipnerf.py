"""eugen-zipnerf: Zip-NeRF (Barron et al. 2023) whose networks are EUGen, dense or a baseline, by one flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from nerfstudio.model_components.ray_samplers import Sampler
from torch import Tensor

from eugen_nerf.core.choices import Variant
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.rendering.proposal_renderer import ProposalRenderer
from eugen_nerf.core.rendering.step_functions import antialiased_interlevel_loss, check_halfwidth
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.frustum_field import UnboundedFieldConfig
from eugen_nerf.fields.zipnerf import ZipNeRFField, ZipNeRFFieldConfig
from eugen_nerf.methods.proposals import Round, power_sampler
from eugen_nerf.methods.unbounded_model import UnboundedModel, UnboundedModelConfig, edges


@dataclass
class ZipNeRFModelConfig(UnboundedModelConfig):
    """Zip-NeRF with replaceable layers, at the paper's sizes."""

    _target: type = field(default_factory=lambda: ZipNeRFModel)
    """Class to instantiate."""
    recommended: ClassVar[Variant] = "narrow"  # the head is small: EUGen was no better there in any suite
    network: ZipNeRFFieldConfig = field(default_factory=ZipNeRFFieldConfig)
    """Sizes of the final field, and its layers that are replaced."""
    proposal: ZipNeRFFieldConfig = field(
        default_factory=lambda: ZipNeRFFieldConfig(
            layers=("trunk_.*",), num_features=(16,), features_per_level=1, head_width=0, seed=1000
        )
    )
    """Sizes of the proposals; each round has one of its own, with `proposal_resolutions`."""
    proposal_resolutions: tuple[int, ...] = (512, 2048)
    """Finest resolution of each round's grid."""
    near_plane: float = 0.05
    """Distance of the first sample."""
    interlevel_loss_mult: float = 0.01
    """Weight of the loss that trains the proposals."""
    interlevel_blurs: tuple[float, ...] = (0.03, 0.003)
    """Half-width of the blur of each proposal round, in normalised distance; 0 for none."""
    distortion_loss_mult: float = 0.005
    """Weight of the loss that makes weights compact along a ray (Eq. 15 of arXiv 2111.12077)."""
    grid_decay_mult: float = 0.1
    """Weight of the normalised weight decay of all grids."""
    distance_exponent: float = -1.5
    """Exponent of the power transformation of distance."""
    distance_multiplier: float = 2.0
    """What distance is multiplied by before it."""

    def field_settings(self) -> tuple[UnboundedFieldConfig, Sequence[UnboundedFieldConfig]]:
        """Settings of the final field, and of the proposals."""
        rounds = len(self.num_proposal_samples)
        if not rounds == len(self.proposal_resolutions) == len(self.interlevel_blurs):
            raise ConfigError(
                f"{rounds} proposal rounds need as many proposal_resolutions and interlevel_blurs, got "
                f"{len(self.proposal_resolutions)} and {len(self.interlevel_blurs)}"
            )
        for halfwidth in self.interlevel_blurs:
            try:
                check_halfwidth(halfwidth)
            except ValueError as error:
                raise ConfigError(f"interlevel_blurs: {error}") from None
        seeds = range(self.proposal.seed, self.proposal.seed + rounds)
        proposals = [
            replace(self.proposal, max_resolution=n, seed=seed)
            for n, seed in zip(self.proposal_resolutions, seeds, strict=True)
        ]
        return self.network, proposals


class ZipNeRFModel(UnboundedModel):
    """Zip-NeRF (arXiv 2304.06706)."""

    config: ZipNeRFModelConfig

    def first_sampler(self) -> Sampler:
        """Spaced by the power transformation."""
        return power_sampler(self.config.distance_exponent, self.config.distance_multiplier)

    def bundled_renderer(self, counts: tuple[int, ...]) -> ProposalRenderer:
        """See `UnboundedModel`."""
        config = self.config
        return ProposalRenderer(counts, config.distance_exponent, config.distance_multiplier, config.histogram_padding)

    def interlevel_loss(self, rounds: Sequence[Round]) -> Tensor:
        """The anti-aliased loss, against blurred final weights."""
        *proposals, final = [(edges(r.samples), r.weights[..., 0]) for r in rounds]
        return antialiased_interlevel_loss(*final, proposals, self.config.interlevel_blurs)

    @full_precision()
    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The losses of `UnboundedModel`, and the grids' decay."""
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training:
            fields = [f for f in self.graph_fields().values() if isinstance(f, ZipNeRFField)]
            losses["grid_decay"] = (
                self.config.grid_decay_mult * torch.stack([f.grid.decay_loss() for f in fields]).sum()
            )
        return losses
