"""What the models of Mip-NeRF 360 and Zip-NeRF share: proposal rounds, one final field, robust colour loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.losses import distortion_loss
from nerfstudio.model_components.ray_samplers import Sampler
from nerfstudio.model_components.renderers import AccumulationRenderer, DepthRenderer
from nerfstudio.model_components.scene_colliders import NearFarCollider
from torch import Tensor, nn
from torch.nn import Parameter

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.networks.nerf_mlp import Variant
from eugen_nerf.core.rendering.proposal_renderer import ProposalRenderer
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.frustum_field import UnboundedField, UnboundedFieldConfig
from eugen_nerf.methods.background_renderers import rgb_renderer
from eugen_nerf.methods.graph_model import FastRenderer, GraphModel, GraphModelConfig
from eugen_nerf.methods.proposals import ProposalSampler, Round
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples, sample_counts
from eugen_nerf.methods.rendering.shortcuts import front_to_back
from eugen_nerf.methods.training.plane_check import check_before_training


@dataclass
class UnboundedModelConfig(GraphModelConfig):
    """Settings that Mip-NeRF 360 and Zip-NeRF share; both add `network` and `proposal`, the fields' settings."""

    proposal_variant: Variant = "dense"
    """Network of the proposals."""
    near_plane: float = 0.2
    """Distance of the first sample."""
    far_plane: float = 1e3
    """Distance of the last sample."""
    num_proposal_samples: tuple[int, ...] = (64, 64)
    """Samples a ray of each proposal round."""
    num_samples: int = 32
    """Samples a ray of the final field."""
    anneal_slope: float = 10.0
    """How fast the proposals' weights become sharp over training (Schlick's bias); 0 does not anneal."""
    histogram_padding: float = 0.01
    """Added to a proposal's weights before samples are drawn from them."""
    background_color: Literal["random", "last_sample", "black", "white"] = "last_sample"
    """Colour behind the scene."""
    charbonnier_padding: float = 0.001
    """Width of the colour loss's quadratic part."""
    interlevel_loss_mult: float = 1.0
    """Weight of the loss that trains the proposals."""
    distortion_loss_mult: float = 0.01
    """Weight of the loss that makes weights compact along a ray (Eq. 15 of arXiv 2111.12077)."""

    def field_settings(self) -> tuple[UnboundedFieldConfig, Sequence[UnboundedFieldConfig]]:
        """Settings of the final field, and of each distinct proposal."""
        raise NotImplementedError

    def settings_of(self, name: str) -> tuple[UnboundedFieldConfig, str]:
        """`network` and `variant` for the field, `proposal` and `proposal_variant` for all proposals."""
        if name == "field":
            return self.network, "variant"  # type: ignore[attr-defined]
        return self.proposal, "proposal_variant"  # type: ignore[attr-defined]


class UnboundedModel(GraphModel):
    """Proposal rounds and one field in contracted space."""

    config: UnboundedModelConfig
    field: UnboundedField
    renders_fast = True
    renderer_kind = FewerSamples

    def populate_modules(self) -> None:
        """Builds fields, samplers and renderers; metrics are functions, so that checkpoints hold the scene alone."""
        super().populate_modules()
        config = self.config
        if not 0 < config.near_plane < config.far_plane:
            raise ConfigError(
                f"near and far plane must be 0 < near < far, got {config.near_plane:g} and {config.far_plane:g}"
            )
        self.collider = NearFarCollider(config.near_plane, config.far_plane, reset_near_plane=False)  # type: ignore[assignment]
        self.build_fields()
        counts = (*config.num_proposal_samples, config.num_samples)
        self.sampler = ProposalSampler(self.first_sampler(), counts, config.anneal_slope, config.histogram_padding)
        self.renderer_rgb = rgb_renderer(config.background_color, None)
        self.renderer_accumulation = AccumulationRenderer()
        self.renderer_depth = DepthRenderer()

    def build_fields(self) -> None:
        """Sets `field` and `proposals`."""
        final, proposals = self.config.field_settings()
        self.field = final.setup(variant=self.config.network_variant())
        self.proposals = nn.ModuleList(p.setup(variant=self.config.proposal_variant) for p in proposals)

    def first_sampler(self) -> Sampler:
        """What places the samples of the first round."""
        raise NotImplementedError

    def bundled_renderer(self, counts: tuple[int, ...]) -> ProposalRenderer:
        """What samples as this model does in evaluation, in torch alone; by default its first round in disparity.

        Args:
            counts: samples of each round of proposals, then of the field.
        """
        return ProposalRenderer(counts, padding=self.config.histogram_padding)

    def interlevel_loss(self, rounds: Sequence[Round]) -> Tensor:
        """The loss of proposals against the final samples, which come last; a scalar."""
        raise NotImplementedError

    def graph_fields(self) -> dict[str, UnboundedField]:  # type: ignore[override]
        """`proposal_0`, ... and `field`."""
        proposals = {f"proposal_{i}": p for i, p in enumerate(self.proposals)}
        return {**proposals, "field": self.field}  # type: ignore[dict-item]

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """`fields` and `proposal_networks`."""
        return {"fields": [*self.field.parameters()], "proposal_networks": [*self.proposals.parameters()]}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Sets the sampler's fraction of training before each step."""
        check_before_training(self.collider, attributes, "--pipeline.model.near-plane, --pipeline.model.far-plane")
        trainer = attributes.trainer
        steps = trainer.config.max_num_iterations if trainer is not None else 0

        def follow(step: int) -> None:
            self.sampler.fraction = min(1.0, step / max(1, steps - 1)) if steps else 1.0

        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], follow)]

    def densities(self, mode: EvaluationMode) -> list[Callable[[RaySamples], Tensor]]:
        """Density function of each proposal round; one proposal serves all rounds where there is only one."""
        count = len(self.config.num_proposal_samples)
        fields = [self.proposals[min(i, len(self.proposals) - 1)] for i in range(count)]
        return [lambda samples, f=f: _density(f, samples, mode) for f in fields]  # type: ignore[misc]

    def fast_renderers(self, ray_bundle: RayBundle) -> list[FewerSamples]:
        """With fewer samples than training had, whichever rays there are."""
        return sample_counts(self.sampler.counts)

    def render_by(self, renderer: FastRenderer | None) -> None:
        """See `GraphModel`."""
        super().render_by(renderer)
        for proposal in self.proposals:
            proposal.encoder.thinned = renderer is not None  # type: ignore[union-attr]

    @property
    def fewer_samples(self) -> FewerSamples | None:
        """`fast_renderer`, by its name here."""
        assert self.fast_renderer is None or isinstance(self.fast_renderer, FewerSamples)
        return self.fast_renderer

    def queries_a_ray(self, ray_bundle: RayBundle) -> float:
        """See `GraphModel`."""
        return float((self.sampler if self.fewer_samples is None else self.fewer_samples).counts[-1])

    def render(self, ray_bundle: RayBundle, mode: EvaluationMode) -> dict[str, Any]:
        """`rgb`, `depth`, `accumulation` `[rays, channels]`; `rounds` for the losses while training."""
        shortcuts = self.shortcuts_in(mode)
        few = self.fewer_samples if mode is EvaluationMode.INFERENCE and not self.training else None
        rounds, samples = self.sampler(ray_bundle, self.densities(mode), counts=None if few is None else few.counts)
        field = front_to_back(partial(self.field.evaluate, mode=mode), samples, shortcuts.opaque)
        weights = samples.get_weights(field[FieldHeadNames.DENSITY])
        outputs: dict[str, Any] = {
            "rgb": self.renderer_rgb(rgb=field[FieldHeadNames.RGB], weights=weights),
            "accumulation": self.renderer_accumulation(weights),
            "depth": self.renderer_depth(weights, samples),
        }
        if self.training:
            outputs["rounds"] = [*rounds, Round(samples, weights)]
        elif shortcuts.extras:
            for i, proposal in enumerate(rounds):
                outputs[f"prop_depth_{i}"] = self.renderer_depth(proposal.weights, proposal.samples)
        return outputs

    def field_samples(self, ray_bundle: RayBundle, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs of a field's network along rays, and the samples' rendering weights."""
        densities = self.densities(EvaluationMode.INFERENCE)
        if name == "field":
            _, samples = self.sampler(ray_bundle, densities)
            weights = samples.get_weights(_density(self.field, samples, EvaluationMode.INFERENCE))
        else:
            # a proposal that serves several rounds is fitted on the samples of the last one
            index = int(name.removeprefix("proposal_"))
            number = len(densities) - 1 if len(self.proposals) == 1 else index
            samples, weights = self.sampler(ray_bundle, densities, rounds=number + 1)[0][number]
        inputs = self.graph_fields()[name].encode(samples)
        return tuple(v.flatten(0, -2) for v in inputs), weights.flatten()

    @full_precision()
    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Charbonnier colour loss; while training, those of the proposals and of compact weights."""
        predicted, target = self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"],
            pred_accumulation=outputs["accumulation"],
            gt_image=batch["image"].to(self.device),
        )
        square = (predicted - target).square()
        losses = {"rgb_loss": (square + self.config.charbonnier_padding**2).sqrt().mean()}
        if self.training:
            rounds: list[Round] = outputs["rounds"]
            weights, samples = [r.weights for r in rounds], [r.samples for r in rounds]
            losses["interlevel_loss"] = self.config.interlevel_loss_mult * self.interlevel_loss(rounds)
            losses["distortion_loss"] = self.config.distortion_loss_mult * distortion_loss(weights, samples)
        return losses


def _density(field: UnboundedField, samples: RaySamples, mode: EvaluationMode) -> Tensor:
    return field.evaluate(samples, mode, density_only=True)[FieldHeadNames.DENSITY]


def edges(samples: RaySamples) -> Tensor:
    """Normalised distances of the samples' edges, `[rays, samples + 1]`."""
    assert samples.spacing_starts is not None
    assert samples.spacing_ends is not None
    return torch.cat([samples.spacing_starts[..., 0], samples.spacing_ends[..., -1:, 0]], dim=-1)
