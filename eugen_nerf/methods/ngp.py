"""eugen-ngp: a field on hash grids (as Instant-NGP) whose networks are EUGen, dense or a baseline, by one flag."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.model_components.losses import MSELoss
from nerfstudio.model_components.scene_colliders import NearFarCollider
from torch import Tensor
from torch.nn import Parameter

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.core.rendering.compositing import composite, rendering_weights
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.fields.hash import HashField, HashFieldConfig
from eugen_nerf.fields.occupancy import evaluate_occupied
from eugen_nerf.fields.radiance_field import FieldOutputs, span_samples
from eugen_nerf.methods.background_renderers import Background, rgb_renderer
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig
from eugen_nerf.methods.rendering.grid_rendering import rays_of
from eugen_nerf.methods.rendering.shortcuts import samples_at
from eugen_nerf.methods.training.hull_carving import carve_before_training
from eugen_nerf.methods.training.plane_check import check_before_training
from eugen_nerf.methods.training.sampling_grid import SamplingGrid

EARLY_STOP = 1e-3
"""Transmittance, by the grid, below which a ray ends."""
MIN_WEIGHT = 3e-3
"""Rendering weight of a cell, by the grid, below which the field is not evaluated in it."""
FAST_SHARES = (0.25, 0.375, 0.5, 0.75)
"""Samples of the fast renderers, of those that evaluation takes."""


@dataclass
class EugenNGPModelConfig(GraphModelConfig):
    """A field on hash grids with replaceable layers, sampled by a grid of its own densities."""

    _target: type = field(default_factory=lambda: EugenNGPModel)
    """Class to instantiate."""
    network: HashFieldConfig = field(
        default_factory=lambda: HashFieldConfig(layers=("trunk_.*", "head_.*"), density_bias=0.0)
    )
    """Sizes, and the layers that are replaced."""
    background_color: Background = "white"
    """Colour behind the scene; data is that of the data set, found before the first step and kept in the checkpoint."""
    reset_near_plane: bool = False
    """Start evaluation rays at the camera, as stock methods do, although no sample so near was ever trained."""
    occupancy: Literal["none", "hull"] = "none"
    """hull: carve empty cells from the training images' alpha before the first step, for any variant alike."""
    grid_resolution: int = 128
    """Cells along each side of the grid that places samples, and of the hull."""
    grid_interval: int = 32
    """Steps between two looks of the grid at the field."""
    grid_cells: int = 1 << 14
    """Cells of a look."""
    train_rate: float = 2.0
    """Samples, while training, of a ray whose light ends within one cell; see `GridRenderer`."""
    render_rate: float = 4.0
    """Likewise in evaluation."""

    def settings_of(self, name: str) -> tuple[HashFieldConfig, str]:
        """`network` and `variant`."""
        return self.network, "variant"


class EugenNGPModel(GraphModel):
    """One field on hash grids; a grid of its densities, followed while it is trained, places all samples."""

    config: EugenNGPModelConfig
    field: HashField
    renders_fast = True

    def populate_modules(self) -> None:
        """Builds field, grid and renderer; metrics are functions, so that checkpoints hold the scene alone."""
        super().populate_modules()
        config = self.config
        if config.enable_collider and config.collider_params is not None:
            self.collider = NearFarCollider(  # type: ignore[assignment]
                **config.collider_params, reset_near_plane=config.reset_near_plane
            )
        self.field = config.network.build(config.network_variant(), self.scene_box)  # type: ignore[assignment]
        self.occupancy = SamplingGrid(self.scene_box.aabb, config.grid_resolution)
        self.renderer_rgb = rgb_renderer(config.background_color, self.kwargs.get("metadata"))
        self.rgb_loss = MSELoss()

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """`fields`, the network, and `grids`, the table of features."""
        table = self.field.encoder.grid.table
        return {"fields": [p for p in self.field.parameters() if p is not table], "grids": [table]}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Carves the grid once, where a hull is wanted, and lets it follow the field."""
        check_before_training(self.collider, attributes)
        before = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
        hull = [carve_before_training(self.occupancy, attributes)] if self.config.occupancy == "hull" else []
        return [*hull, TrainingCallback(before, self.follow_field)]

    def follow_field(self, step: int) -> None:
        """Lets the grid look at the field: in all cells where it has not yet, else at intervals in some."""
        if not self.occupancy.density.any():
            self.occupancy.follow(self.trained_density)
        elif step % self.config.grid_interval == 0:
            self.occupancy.follow(self.trained_density, self.config.grid_cells)

    def graph_fields(self) -> dict[str, HashField]:  # type: ignore[override]
        """`field`."""
        return {"field": self.field}

    def renderer(self, rate: float) -> GridRenderer:
        """What places samples by the grid, at a rate."""
        return GridRenderer(self.occupancy.as_density_grid(), rate, early_stop=EARLY_STOP, min_weight=MIN_WEIGHT)

    def fast_renderers(self, ray_bundle: RayBundle) -> list[GridRenderer]:
        """By the grid of training, with fewer samples than evaluation takes."""
        return [self.renderer(share * self.config.render_rate) for share in FAST_SHARES]

    def place(self, ray_bundle: RayBundle) -> Spans:
        """Spans of rays to evaluate the field in: at least one, for gradients need a graph to go back through."""
        rays = rays_of(ray_bundle)
        spans = self.renderer(self.config.train_rate if self.training else self.config.render_rate).place(rays)
        if len(spans):
            return spans
        return Spans(torch.zeros_like(rays.near[:1], dtype=torch.long), rays.near[:1], rays.near[:1], len(rays))

    def render(self, ray_bundle: RayBundle, mode: EvaluationMode) -> dict[str, Tensor]:
        """`rgb`, `depth`, `accumulation`; `[rays, channels]`. Training draws a point of each span, at random."""
        spans = self.place(ray_bundle)
        at = spans.middle if not self.training else torch.lerp(spans.start, spans.end, torch.rand_like(spans.start))
        samples = span_samples(ray_bundle, replace(spans, start=at, end=at))
        outputs = self.field.evaluate(samples, mode)
        result = composite(spans, outputs[FieldHeadNames.DENSITY][:, 0], outputs[FieldHeadNames.RGB])
        background = self.renderer_rgb.get_background_color(
            self.renderer_rgb.background_color, shape=result.colour.shape, device=result.colour.device
        )
        rgb = result.colour + (1 - result.accumulation) * background
        return {"rgb": rgb, "accumulation": result.accumulation, "depth": result.depth}

    def field_samples(self, ray_bundle: RayBundle, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs of the field's network along rays, and the samples' rendering weights."""
        spans = self.place(ray_bundle)
        samples = span_samples(ray_bundle, spans)
        outputs = self.field.evaluate(samples, EvaluationMode.INFERENCE, density_only=True)
        return self.field.encode(samples), rendering_weights(spans, outputs[FieldHeadNames.DENSITY][:, 0])

    def trained_density(self, points: Tensor, times: Tensor | None) -> Tensor:
        """That of the field, zero in cells carved empty before training."""
        outputs = evaluate_occupied(
            self.field, samples_at(points, times), self.occupancy, EvaluationMode.INFERENCE, density_only=True
        )
        return outputs[FieldHeadNames.DENSITY].flatten()

    def evaluate_spans(self, ray_bundle: RayBundle, spans: Spans) -> FieldOutputs:
        """Those of the field; its density is zero in cells carved empty before training."""
        outputs = self.field.evaluate_spans(ray_bundle, spans)
        origins, directions = spans.of_rays(ray_bundle.origins), spans.of_rays(ray_bundle.directions)
        points = origins + directions * spans.middle[:, None]
        outputs[FieldHeadNames.DENSITY] = outputs[FieldHeadNames.DENSITY] * self.occupancy.occupied(points)[:, None]
        return outputs

    @full_precision()
    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Mean squared colour error."""
        predicted, target = self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"],
            pred_accumulation=outputs["accumulation"],
            gt_image=batch["image"].to(self.device),
        )
        return {"rgb_loss": self.rgb_loss(target, predicted)}
