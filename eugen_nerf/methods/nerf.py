"""eugen-nerf: coarse and fine NeRF (as vanilla-nerf) whose networks are EUGen, dense or a baseline, by one flag."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.losses import MSELoss
from nerfstudio.model_components.ray_samplers import PDFSampler, UniformSampler
from nerfstudio.model_components.renderers import AccumulationRenderer, DepthRenderer
from nerfstudio.model_components.scene_colliders import NearFarCollider
from torch import Tensor
from torch.nn import Parameter

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig
from eugen_nerf.fields.nerf import NeRFFieldConfig
from eugen_nerf.fields.occupancy import OccupancyGrid, evaluate_occupied
from eugen_nerf.fields.radiance_field import FieldOutputs, RadianceField, selected_samples
from eugen_nerf.methods.background_renderers import Background, rgb_renderer
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig
from eugen_nerf.methods.rendering.shortcuts import evaluated_space, front_to_back, samples_at, trained_occupancy
from eugen_nerf.methods.training.hull_carving import carve_before_training
from eugen_nerf.methods.training.plane_check import check_before_training


@dataclass
class EugenNerfModelConfig(GraphModelConfig):
    """Coarse and fine NeRF with replaceable layers."""

    _target: type = field(default_factory=lambda: EugenNerfModel)
    """Class to instantiate."""
    network: GraphFieldConfig = field(default_factory=NeRFFieldConfig)
    """Sizes, and the layers that are replaced; coarse and fine fields are alike."""
    num_coarse_samples: int = 64
    """Samples a ray of the coarse field, stratified between near and far plane."""
    num_importance_samples: int = 128
    """Further samples a ray of the fine field, drawn from the coarse weights."""
    background_color: Background = "white"
    """Colour behind the scene; data is that of the data set, found before the first step and kept in the checkpoint."""
    reset_near_plane: bool = False
    """Start evaluation rays at the camera, as stock methods do, although no sample so near was ever trained."""
    occupancy: Literal["none", "hull"] = "none"
    """hull: carve empty cells from the training images' alpha before the first step, for any variant alike."""
    occupancy_resolution: int = 96
    """Cells of the grid along each side of the scene box."""

    def settings_of(self, name: str) -> tuple[GraphFieldConfig, str]:
        """`network` and `variant`, for both fields."""
        return self.network, "variant"


class EugenNerfModel(GraphModel):
    """NeRF (Mildenhall et al. 2020) with two fields and hierarchical sampling."""

    config: EugenNerfModelConfig
    renders_fast = True

    def populate_modules(self) -> None:
        """Builds fields, samplers and renderers; metrics are functions, so that checkpoints hold the scene alone."""
        super().populate_modules()
        config = self.config
        if config.enable_collider and config.collider_params is not None:
            self.collider = NearFarCollider(  # type: ignore[assignment]
                **config.collider_params, reset_near_plane=config.reset_near_plane
            )
        self.field_coarse = self._build_field(config.network)
        # other random projections than the coarse field's
        self.field_fine = self._build_field(replace(config.network, seed=config.network.seed + 1000))
        self.occupancy = (
            OccupancyGrid(self.scene_box.aabb, config.occupancy_resolution) if config.occupancy == "hull" else None
        )
        self.sampler_uniform = UniformSampler(num_samples=config.num_coarse_samples)
        self.sampler_pdf = PDFSampler(num_samples=config.num_importance_samples)
        self.renderer_rgb = rgb_renderer(config.background_color, self.kwargs.get("metadata"))
        self.renderer_accumulation = AccumulationRenderer()
        self.renderer_depth = DepthRenderer()
        self.rgb_loss = MSELoss()

    def _build_field(self, settings: GraphFieldConfig) -> RadianceField:
        field = settings.build(self.config.network_variant(), self.scene_box)
        assert isinstance(field, RadianceField), f"{type(settings).__name__} describes no field of density and colour"
        return field

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """All parameters in the group `fields`."""
        return {"fields": [*self.field_coarse.parameters(), *self.field_fine.parameters()]}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Carves the occupancy grid once, before the first step of a run that starts from nothing."""
        check_before_training(self.collider, attributes)
        if self.occupancy is None:
            return []
        return [carve_before_training(self.occupancy, attributes)]

    def graph_fields(self) -> dict[str, GraphField]:
        """`coarse` and `fine`."""
        return {"coarse": self.field_coarse, "fine": self.field_fine}

    def render(self, ray_bundle: RayBundle, mode: EvaluationMode) -> dict[str, Tensor]:
        """`rgb`, `depth`, `accumulation`, and the coarse field's as `*_coarse`; `[rays, channels]`."""
        samples_coarse, coarse, weights_coarse = self.sample_coarse(ray_bundle, mode)
        samples_fine, fine, weights = self.sample_fine(ray_bundle, samples_coarse, weights_coarse, mode)
        outputs = {
            "rgb": self.renderer_rgb(rgb=fine[FieldHeadNames.RGB], weights=weights),
            "accumulation": self.renderer_accumulation(weights),
            "depth": self.renderer_depth(weights, samples_fine),
        }
        if self.shortcuts_in(mode).extras:
            outputs["rgb_coarse"] = self.renderer_rgb(rgb=coarse[FieldHeadNames.RGB], weights=weights_coarse)
            outputs["accumulation_coarse"] = self.renderer_accumulation(weights_coarse)
            outputs["depth_coarse"] = self.renderer_depth(weights_coarse, samples_coarse)
        return outputs

    def sample_coarse(self, ray_bundle: RayBundle, mode: EvaluationMode) -> tuple[RaySamples, FieldOutputs, Tensor]:
        """Coarse samples of rays, the coarse field there, and the samples' rendering weights `[rays, samples, 1]`."""
        shortcuts = self.shortcuts_in(mode)
        samples = self.displace(self.sampler_uniform(ray_bundle), mode)
        grid = evaluated_space(self.occupancy, shortcuts.empty)
        outputs = evaluate_occupied(self.field_coarse, samples, grid, mode, density_only=not shortcuts.extras)
        return samples, outputs, samples.get_weights(outputs[FieldHeadNames.DENSITY])

    def sample_fine(
        self, ray_bundle: RayBundle, samples: RaySamples, weights: Tensor, mode: EvaluationMode
    ) -> tuple[RaySamples, FieldOutputs, Tensor]:
        """As `sample_coarse` for the fine field, by the coarse samples and their weights."""
        shortcuts = self.shortcuts_in(mode)
        samples = self.displace(self.sampler_pdf(ray_bundle, samples, weights), mode)
        grid = evaluated_space(self.occupancy, shortcuts.empty)
        evaluate = partial(evaluate_occupied, self.field_fine, grid=grid, mode=mode)
        outputs = front_to_back(evaluate, samples, shortcuts.opaque)
        return samples, outputs, samples.get_weights(outputs[FieldHeadNames.DENSITY])

    def displace(self, ray_samples: RaySamples, mode: EvaluationMode) -> RaySamples:
        """The samples at the positions where the fields are evaluated: on their rays, unless a method bends them."""
        return ray_samples

    def field_samples(self, ray_bundle: RayBundle, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs of a field's network along rays, empty cells left out, and the samples' rendering weights."""
        samples, _, weights = self.sample_coarse(ray_bundle, EvaluationMode.INFERENCE)
        if name == "fine":
            samples, _, weights = self.sample_fine(ray_bundle, samples, weights, EvaluationMode.INFERENCE)
        field = self.graph_fields()[name]
        if self.occupancy is None:
            return field.encode(samples.flatten()), weights.flatten()
        mask = self.occupancy.occupied(samples.frustums.get_positions())
        # an empty batch breaks nerfstudio's encodings; one sample of empty space does no harm to a fit
        mask[0, 0] |= ~mask.any()
        indices = mask.nonzero(as_tuple=True)
        return field.encode(selected_samples(samples, indices)), weights[..., 0][indices]

    def scene_occupancy(self, box: Tensor, resolution: int) -> OccupancyGrid:
        """A grid over a box `[2, 3]` of the cells in which the coarse or the fine field has density, canonical ones."""
        return trained_occupancy([self.field_coarse, self.field_fine], self.occupancy, box, resolution)

    def trained_density(self, points: Tensor, times: Tensor | None) -> Tensor:
        """That of the fine field, zero in cells carved empty before training."""
        samples = self.displace(samples_at(points, times), EvaluationMode.INFERENCE)
        outputs = evaluate_occupied(
            self.field_fine, samples, self.occupancy, EvaluationMode.INFERENCE, density_only=True
        )
        return outputs[FieldHeadNames.DENSITY].flatten()

    def evaluate_spans(self, ray_bundle: RayBundle, spans: Spans) -> FieldOutputs:
        """Those of the fine field; its density is zero in cells carved empty before training."""
        outputs = self.field_fine.evaluate_spans(ray_bundle, spans)
        if self.occupancy is not None:
            origins, directions = spans.of_rays(ray_bundle.origins), spans.of_rays(ray_bundle.directions)
            points = origins + directions * spans.middle[:, None]
            outputs[FieldHeadNames.DENSITY] = outputs[FieldHeadNames.DENSITY] * self.occupancy.occupied(points)[:, None]
        return outputs

    def sampled_box(self, ray_bundle: RayBundle) -> Tensor:
        """Corners `[2, 3]` of the box of all coarse samples' positions, canonical ones."""
        samples = self.displace(self.sampler_uniform(ray_bundle), EvaluationMode.INFERENCE)
        positions = samples.frustums.get_positions().reshape(-1, 3)
        return torch.stack([positions.amin(dim=0), positions.amax(dim=0)])

    @full_precision()
    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Mean squared colour error of the coarse and of the fine field."""
        image = batch["image"].to(self.device)
        losses = {}
        for name, suffix in (("rgb_loss_coarse", "_coarse"), ("rgb_loss_fine", "")):
            predicted, target = self.renderer_rgb.blend_background_for_loss_computation(
                pred_image=outputs[f"rgb{suffix}"], pred_accumulation=outputs[f"accumulation{suffix}"], gt_image=image
            )
            losses[name] = self.config.loss_coefficients[name] * self.rgb_loss(target, predicted)
        return losses
