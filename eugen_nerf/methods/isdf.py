"""eugen-isdf: signed distance from a stream of depth images (iSDF, arXiv 2204.02296), EUGen or dense by one flag."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.utils import colormaps
from torch import Tensor
from torch.nn import Parameter

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.distributed import process_index
from eugen_nerf.core.rendering.sdf_losses import BoundMethod, distance_loss, eikonal_loss, gradient_loss, sdf_bounds
from eugen_nerf.core.rendering.sphere_tracing import first_crossing, surface_samples
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
from eugen_nerf.core.training.mixed_precision import full_precision
from eugen_nerf.data.rgbd.keyframes import step_seed
from eugen_nerf.data.stream import Reference, RGBDStreamDataManager
from eugen_nerf.fields.graph_field import GraphField
from eugen_nerf.fields.isdf import ISDFField, ISDFFieldConfig
from eugen_nerf.methods.graph_model import GraphModel, GraphModelConfig
from eugen_nerf.methods.rendering.surface_rendering import render_surface, surface_queries, surface_renderers
from eugen_nerf.methods.runs.depth_metrics import depth_metrics

CHECK_MARGIN = 0.8
"""Metres behind the measured surface within which the map's surface is searched when a frame is compared with it."""


@dataclass
class ISDFModelConfig(GraphModelConfig):
    """Signed distance from depth; the defaults are the settings that iSDF's authors published (replicaCAD)."""

    _target: type = field(default_factory=lambda: ISDFModel)
    """Class to instantiate."""
    network: ISDFFieldConfig = field(default_factory=ISDFFieldConfig)
    """Sizes, and the layers that are replaced."""
    num_stratified_samples: int = 19
    """Samples a ray between the near plane and a little behind the surface."""
    num_surface_samples: int = 8
    """Samples a ray at the surface and around it."""
    surface_spread: float = 0.1
    """Standard deviation of the samples around the surface, metres."""
    surface_margin: float = 0.1
    """How far behind the surface samples lie, metres."""
    bounds: BoundMethod = "batch"
    """What bounds the distance of a sample: the ray's own surface point, its tangent plane, or all of the batch's."""
    truncation: float = 0.29365022
    """Bound below which the distance is fitted to it, metres."""
    near_surface_weight: float = 5.3834402
    """Weight of that fit; the free-space loss has weight 1."""
    free_space_beta: float = 5.0
    """How steeply negative distances cost in free space, 1 / metres."""
    eikonal_weight: float = 0.268
    """Weight of the eikonal loss."""
    eikonal_beyond: float = 0.1
    """Bound from which the eikonal loss applies, metres."""
    gradient_weight: float = 0.018
    """Weight of the gradient's direction."""
    agreement_tolerance: float = 0.1
    """Relative depth error up to which a ray of a new frame agrees with the map."""
    seed: int = 0
    """Of the samples along training rays."""
    collider_params: dict[str, float] | None = field(default_factory=lambda: {"near_plane": 0.07, "far_plane": 12.0})
    """Near and far plane, metres."""
    eval_num_rays_per_chunk: int = 1 << 14
    """Rays rendered at a time."""

    @property
    def sdf_field(self) -> ISDFFieldConfig:
        """`network`, by the name that ns-export marching-cubes looks for."""
        return self.network

    def settings_of(self, name: str) -> tuple[ISDFFieldConfig, str]:
        """`network` and `variant`."""
        return self.network, "variant"


class ISDFModel(GraphModel):
    """Signed distance trained from rays with a measured surface (see `RGBDStreamDataManager`).

    Rays without that are rendered: `depth` is the distance along the unit ray to the first zero crossing, as
    nerfstudio's is; `z_depth` that along the optical axis; `accumulation` 1 where there is a crossing; `normals` and
    `rgb` (normals lit from the camera: there is no colour) in [0, 1].
    """

    config: ISDFModelConfig
    renders_colours = False
    renders_fast = True
    renderer_kind = SurfaceRenderer
    field: ISDFField

    def populate_modules(self) -> None:
        """Builds the field; metrics are functions, so that checkpoints hold the map alone."""
        super().populate_modules()
        if self.config.enable_collider and self.config.collider_params is not None:
            self.collider = NearFarCollider(  # type: ignore[assignment]
                **self.config.collider_params, reset_near_plane=False
            )
        self.field = self.config.network.build(self.config.network_variant(), self.scene_box)
        self.renderer_rgb = RGBRenderer(background_color="black")
        self._step = 0
        self._recalled: tuple[Reference, ISDFField] | None = None
        self._ray_losses: tuple[Tensor, Tensor] | None = None

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """All parameters in the group `fields`."""
        return {"fields": list(self.field.parameters())}

    def graph_fields(self) -> dict[str, GraphField]:
        """`distance`."""
        return {"distance": self.field}

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Connects the stream: it gets the model's agreement with new frames, and after each step the rays' losses."""
        assert attributes.pipeline is not None
        stream = attributes.pipeline.datamanager
        if isinstance(stream, RGBDStreamDataManager):
            stream.set_map(self.agreement, self.snapshot)

        def before(step: int) -> None:
            self._step = step

        def after(step: int) -> None:
            if self._ray_losses is not None and isinstance(stream, RGBDStreamDataManager):
                stream.record(*self._ray_losses)

        where = TrainingCallbackLocation
        return [
            TrainingCallback([where.BEFORE_TRAIN_ITERATION], before),
            TrainingCallback([where.AFTER_TRAIN_ITERATION], after),
        ]

    def snapshot(self) -> Reference:
        """A copy of the network's weights."""
        return {name: value.detach().clone() for name, value in self.field.network.state_dict().items()}

    @torch.no_grad()
    def agreement(self, ray_bundle: RayBundle, reference: Reference) -> float:
        """Share of rays on which the map with other weights meets the measured surface, within a relative tolerance."""
        if self._recalled is None or self._recalled[0] is not reference:
            field = copy.deepcopy(self.field)
            field.network.load_state_dict(reference)
            self._recalled = reference, field.eval()
        surface = ray_bundle.metadata["surface_distance"][:, 0]
        near = self._near(ray_bundle, surface)
        t, hit = _crossing(self._recalled[1], ray_bundle, near, surface + CHECK_MARGIN)
        agrees = hit & ((t - surface).abs() < self.config.agreement_tolerance * surface)
        return float(agrees.float().mean())

    def trial_loss(self, cameras: Cameras, rays: int) -> Tensor:
        """Of distances and gradients at as many random points as a step of these rays samples."""
        points = torch.rand(rays, self.config.num_stratified_samples + self.config.num_surface_samples, 3)
        distance, gradient = self.field.distance_and_gradient(points, create_graph=True)
        return distance.mean() + gradient.square().mean()

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """Losses of samples `[rays, samples]` for rays with a measured surface, else `render`."""
        return self._fit(ray_bundle) if "surface_distance" in ray_bundle.metadata else super().get_outputs(ray_bundle)

    def _fit(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        config, surface = self.config, ray_bundle.metadata["surface_distance"][:, 0]
        directions, normals = ray_bundle.directions, ray_bundle.metadata["surface_normals"]
        t = self._samples(ray_bundle, surface, step_seed(config.seed, self._step, process_index()))
        points = ray_bundle.origins[:, None] + t[..., None] * directions[:, None]
        distance, gradient = self.field.distance_and_gradient(points, create_graph=self.training)
        with torch.no_grad():
            bound, direction = sdf_bounds(
                config.bounds, points, t, surface, directions, normals, reach=config.truncation
            )
            # at the surface itself the direction is the normal's, where that is known
            direction = direction.clone()
            direction[:, 0] = torch.where(normals[:, :1].isnan(), -directions, normals)
        free, near = distance_loss(distance, bound, config.truncation, config.free_space_beta)
        return {
            "distance": distance,
            "frame": ray_bundle.metadata["frame"],
            "free_space_loss": free,
            "near_surface_loss": config.near_surface_weight * near,
            "eikonal_loss": config.eikonal_weight * eikonal_loss(gradient, bound, config.eikonal_beyond),
            "gradient_loss": config.gradient_weight * gradient_loss(gradient, direction),
        }

    @full_precision()
    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The four terms, each averaged over all samples of the batch."""
        terms = {name: value for name, value in outputs.items() if name.endswith("_loss")}
        if self.training:
            per_ray = torch.stack([value.detach().mean(dim=1) for value in terms.values()]).sum(dim=0)
            self._ray_losses = outputs["frame"][:, 0], per_ray
        return {name: value.mean() for name, value in terms.items()}

    @full_precision()
    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Mean absolute distance at the measured surface points of a batch, in centimetres: 0 would be right.

        Raises:
            RunError: as `refuse_divergence`.
        """
        if "distance" not in outputs:
            return {}
        error = outputs["distance"][:, 0].detach().abs().mean()
        self.refuse_divergence(error)
        return {"surface_cm": 100 * error}

    def fast_renderers(self, ray_bundle: RayBundle) -> list[SurfaceRenderer]:
        """One by a grid of the distance over the scene's box, whichever rays there are."""
        return surface_renderers(self.field, self.scene_box.aabb.to(self.device))

    @property
    def surface_renderer(self) -> SurfaceRenderer | None:
        """`fast_renderer`, by its name here."""
        assert self.fast_renderer is None or isinstance(self.fast_renderer, SurfaceRenderer)
        return self.fast_renderer

    def queries_a_ray(self, ray_bundle: RayBundle) -> float:
        """See `GraphModel`."""
        return surface_queries(self.field, self.surface_renderer or SurfaceRenderer(), ray_bundle)

    def render(self, ray_bundle: RayBundle, mode: EvaluationMode) -> dict[str, Tensor]:
        """The first surface along rays, its depth and its normals; in either mode without gradients."""
        fast = self.surface_renderer if mode is EvaluationMode.INFERENCE and not self.training else None
        return render_surface(self.field, fast or SurfaceRenderer(), ray_bundle)

    def _near(self, ray_bundle: RayBundle, surface: Tensor) -> Tensor:
        """Where sampling begins: the near plane, but never behind the surface."""
        params = self.config.collider_params or {}
        near = torch.full_like(surface, params.get("near_plane", 0.0))
        return torch.minimum(near if ray_bundle.nears is None else ray_bundle.nears[:, 0], 0.5 * surface)

    def _samples(self, ray_bundle: RayBundle, surface: Tensor, seed: int) -> Tensor:
        """Distances along rays `[rays, samples]`; the same for the same seed."""
        config = self.config
        generator = torch.Generator(surface.device).manual_seed(seed)
        return surface_samples(
            self._near(ray_bundle, surface),
            surface,
            stratified=config.num_stratified_samples,
            around=config.num_surface_samples,
            margin=config.surface_margin,
            spread=config.surface_spread,
            generator=generator,
        )

    def field_samples(self, ray_bundle: RayBundle, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """The network's inputs along rays as in training, with the rendered surface in place of a measured one.

        Samples weigh `exp(-|distance| / truncation)`. Rays that meet nothing are left out where others meet something.
        """
        assert ray_bundle.nears is not None
        assert ray_bundle.fars is not None
        with torch.no_grad():
            t, hit = _crossing(self.field, ray_bundle, ray_bundle.nears[:, 0], ray_bundle.fars[:, 0])
        rays = hit.nonzero()[:, 0]
        if len(rays):
            ray_bundle, t = ray_bundle[rays], t[rays]
        t = self._samples(ray_bundle, t, step_seed(self.config.seed, 0))
        points = (ray_bundle.origins[:, None] + t[..., None] * ray_bundle.directions[:, None]).flatten(0, 1)
        distance = self.field.distance(points, EvaluationMode.INFERENCE)
        return (self.field.encoding(points),), torch.exp(-distance.abs() / self.config.truncation)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """`depth_metrics` of the depth along the optical axis, and images to look at."""
        truth, rendered = batch["depth_image"].to(self.device), outputs["z_depth"].to(self.device)
        hit, valid = outputs["accumulation"].to(self.device) > 0.5, truth.isfinite()
        far = float(truth[valid].max()) if valid.any() else 1.0
        shown = [
            colormaps.apply_depth_colormap(d.nan_to_num(0.0), accumulation=a.float(), near_plane=0.0, far_plane=far)
            for d, a in ((truth, valid), (rendered, hit))
        ]
        image = batch["image"].to(self.device)[..., :3]
        images = {
            "img": torch.cat([image, outputs["rgb"].to(image)], dim=1),
            "depth": torch.cat(shown, dim=1),
            "normals": outputs["normals"],
        }
        return depth_metrics(rendered, truth, hit), images


def _crossing(field: ISDFField, ray_bundle: RayBundle, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """As `first_crossing`, between distances `[rays]`."""
    distance = partial(field.distance, mode=EvaluationMode.INFERENCE)
    return first_crossing(distance, ray_bundle.origins, ray_bundle.directions, near, far)
