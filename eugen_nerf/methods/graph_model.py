"""What every model here shares: the mode of an evaluation, strict loading, image metrics, and a conversion's view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from torch import Tensor, nn

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.choices import Variant, VariantSetting
from eugen_nerf.core.distributed import summed
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.rendering.surface_renderer import SurfaceRenderer
from eugen_nerf.core.training.mixed_precision import Arithmetic, full_precision
from eugen_nerf.fields.graph_field import GraphField, GraphFieldConfig
from eugen_nerf.fields.occupancy import OccupancyGrid
from eugen_nerf.fields.radiance_field import FieldOutputs
from eugen_nerf.methods.rendering.core_threads import render_side_by_side
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples
from eugen_nerf.methods.rendering.grid_rendering import grid_renderers, rays_of, render_by_grid
from eugen_nerf.methods.rendering.shortcuts import Shortcuts
from eugen_nerf.methods.runs.checkpoints import architecture_mismatch
from eugen_nerf.methods.runs.image_metrics import image_metrics

FastRenderer = GridRenderer | FewerSamples | SurfaceRenderer
"""What can render in inference in place of a method's own samplers."""
FAST_RAYS = 1 << 15
"""Rays of a view that are rendered fast at a time; threads take parts of them."""
DIVERGENCE_CHECK_INTERVAL = 100
"""Training batches between two checks whether training has diverged: each makes the host wait."""


@dataclass
class GraphModelConfig(ModelConfig):
    """Settings of a model whose fields are graphs of layers."""

    arithmetic: Arithmetic = "fast"
    """What networks multiply in: fast (TF32 on CUDA, float32 on a CPU, half with --mixed-precision), exact
    (float32 everywhere), bfloat16 (that while training, on any device, else as fast). All else stays float32."""
    variant: VariantSetting = "eugen"
    """Network: eugen; dense, its twin; a baseline: lowrank, monarch, narrow, shallow at the same multiply-adds, snnk;
    auto, the cheap one that is recommended for the method (`docs/guides/training.md`)."""
    recommended: ClassVar[Variant] = "eugen"
    """What `auto` is: of networks of one cost, the one that trained best in this method's suites."""

    def __post_init__(self) -> None:
        # settled before config.yml is written: a run keeps its network when another one is recommended later
        self.variant = self.network_variant()

    def network_variant(self) -> Variant:
        """The variant that is built."""
        return self.recommended if self.variant == "auto" else self.variant

    def settings_of(self, name: str) -> tuple[GraphFieldConfig, str]:
        """The settings that describe a field of `GraphModel.graph_fields`, and the attribute that holds its variant.

        Fields may share both: then they can only be changed together.
        """
        raise NotImplementedError


class GraphModel(Model):
    """A nerfstudio model whose fields are graphs of layers."""

    config: GraphModelConfig
    renderer_rgb: RGBRenderer
    renders_colours = True
    """Whether its outputs for rays hold colours that depend on its fields differentiably, `rgb` among them."""
    renders_fast = False
    """Whether it has `fast_renderers`; by default they go by a grid, which takes `trained_density` and
    `evaluate_spans`."""
    shortcuts = Shortcuts()
    """What rendering leaves out in inference mode; no part of a checkpoint."""
    renderer_kind: type[FastRenderer] = GridRenderer
    """What `fast_renderers` are."""
    fast_renderer: FastRenderer | None = None
    """What renders in inference mode in place of the method's own samplers; no part of a checkpoint."""
    _batches = 0

    def __init__(self, config: GraphModelConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        for graph_field in self.graph_fields().values():
            graph_field.arithmetic = config.arithmetic

    @full_precision()
    def forward(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """As in nerfstudio. Under its mixed precision networks multiply in half, and nothing else does.

        In training the networks of fields that have shares of their features to draw are evaluated at one of them, all
        fields at that of the same place.
        """
        if not self.training or not any(field.shares for field in self.graph_fields().values()):
            return super().forward(ray_bundle)  # type: ignore[return-value]
        number = float(torch.rand(()))
        with ExitStack() as stack:
            for field in self.graph_fields().values():
                stack.enter_context(field.drawn_share(number))
            return super().forward(ray_bundle)  # type: ignore[return-value]

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:  # type: ignore[override]
        """`render` in PyTorch's current mode: the one place where rendering looks at it."""
        mode, grid = EvaluationMode.current(), self.grid_renderer
        if mode is not EvaluationMode.INFERENCE or self.fast_renderer is None or self.training:
            return self.render(ray_bundle, mode)
        if grid is not None:
            return render_side_by_side(
                lambda part: render_by_grid(grid, self.evaluate_spans, part, self.renderer_rgb), ray_bundle
            )
        most = self.config.eval_num_rays_per_chunk
        return render_side_by_side(lambda part: self.render(part, mode), ray_bundle, most)

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> dict[str, Tensor]:
        """As in nerfstudio, `[height, width, channels]`; by a fast renderer `FAST_RAYS` at a time."""
        if self.fast_renderer is None or self.training:
            return super().get_outputs_for_camera_ray_bundle(camera_ray_bundle)
        height, width = camera_ray_bundle.origins.shape[:2]
        rays = camera_ray_bundle.flatten()
        parts = [self(rays[start : start + FAST_RAYS].to(self.device)) for start in range(0, len(rays), FAST_RAYS)]
        whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        return {key: value.to(rays.origins.device).view(height, width, -1) for key, value in whole.items()}

    @property
    def grid_renderer(self) -> GridRenderer | None:
        """`fast_renderer`, where it is one by a grid of densities."""
        return self.fast_renderer if isinstance(self.fast_renderer, GridRenderer) else None

    def fast_renderers(self, ray_bundle: RayBundle) -> Sequence[FastRenderer]:
        """Renderers that can take the place of the method's own samplers in inference, from fast to close.

        Args:
            ray_bundle: rays `[rays]` of many training views, near and far planes set.
        """
        return grid_renderers(self.trained_density, ray_bundle)

    def render_by(self, renderer: FastRenderer | None) -> None:
        """Renders by one of `fast_renderers` in inference mode from now on; by the method's own samplers for None."""
        self.fast_renderer = renderer

    def queries_a_ray(self, ray_bundle: RayBundle) -> float:
        """Queries of the final field for a ray, on average, by the renderer that is in use.

        Args:
            ray_bundle: rays `[rays]`, near and far planes set.
        """
        assert self.grid_renderer is not None
        return len(self.grid_renderer.place(rays_of(ray_bundle))) / len(ray_bundle)

    def render(self, ray_bundle: RayBundle, mode: EvaluationMode) -> dict[str, Any]:
        """Outputs for rays, `[rays, channels]` each.

        Args:
            ray_bundle: rays `[rays]`, near and far planes set.
            mode: handed down to the fields; `shortcuts` apply to inference alone.
        """
        raise NotImplementedError

    def shortcuts_in(self, mode: EvaluationMode) -> Shortcuts:
        """What rendering leaves out in a mode."""
        return self.shortcuts if mode is EvaluationMode.INFERENCE else Shortcuts()

    def trial_loss(self, cameras: Cameras, rays: int) -> Tensor:
        """A scalar that costs about what a training step of so many rays does, losses apart, backwards as well.

        Args:
            cameras: of the training views.
            rays: of the step; drawn from the first view by torch's global generator.
        """
        camera = cameras[0:1]
        coords = torch.rand(rays, 2) * torch.tensor([int(camera.height), int(camera.width)])
        bundle = camera.generate_rays(torch.zeros(rays, 1, dtype=torch.long), coords=coords)
        return self(bundle)["rgb"].mean()

    def graph_fields(self) -> dict[str, GraphField]:
        """The fields by the names that reports use, in the order a ray meets them; proposals are `proposal_...`."""
        raise NotImplementedError

    def trained_shares(self) -> tuple[float, ...]:
        """Shares of their features at which all fields that draw shares were trained, the largest first; none where no
        field draws any."""
        drawn = [set(field.shares) for field in self.graph_fields().values() if field.shares]
        return tuple(sorted(set.intersection(*drawn), reverse=True)) if drawn else ()

    def check_trained_share(self, share: float) -> None:
        """Raises `ConfigError` where a share is none of `trained_shares`; it says which there are."""
        shares = self.trained_shares()
        if share not in shares:
            known = f"at these: {', '.join(f'{s:g}' for s in shares)}" if shares else "with all of them alone"
            raise ConfigError(f"the run cannot be evaluated with {share:g} of its features: it was trained {known}")

    def evaluate_at(self, share: float) -> None:
        """Evaluates the fields that draw shares at one of `trained_shares` from now on; inference plans are dropped.

        Raises:
            ConfigError: they were not trained at it.
        """
        self.check_trained_share(share)
        for field in self.graph_fields().values():
            if field.shares:
                field.network.share = share

    @contextmanager
    def evaluated_at(self, share: float) -> Iterator[None]:
        """`evaluate_at` within it."""
        before = {name: field.network.share for name, field in self.graph_fields().items()}
        self.evaluate_at(share)
        try:
            yield
        finally:
            for name, field in self.graph_fields().items():
                field.network.share = before[name]

    def displacing_fields(self) -> tuple[str, ...]:
        """Those of `graph_fields` that displace the samples of later ones; a conversion uses them as converted."""
        return ()

    def scene_occupancy(self, box: Tensor, resolution: int) -> OccupancyGrid:
        """A grid over a box `[2, 3]` of the cells in which the trained density is, for `Shortcuts.empty`.

        Raises:
            ConfigError: the method skips no empty space, or fewer than 2 cells a side.
        """
        raise ConfigError(f"{type(self).__name__} skips no empty space: only eugen-nerf and eugen-dnerf runs do")

    def sampled_box(self, ray_bundle: RayBundle) -> Tensor:
        """Corners `[2, 3]` of the box of all positions at which the fields are evaluated along rays.

        Raises:
            ConfigError: as `scene_occupancy`.
        """
        raise ConfigError(f"{type(self).__name__} skips no empty space: only eugen-nerf and eugen-dnerf runs do")

    def trained_density(self, points: Tensor, times: Tensor | None) -> Tensor:
        """Density of the final field for inference, `[n]`, at points `[n, 3]` and, where a scene moves, times `[n]`.

        Raises:
            ConfigError: the method cannot be rendered by a grid of its density.
        """
        raise ConfigError(f"{type(self).__name__} has no density for a grid to be rendered by")

    def evaluate_spans(self, ray_bundle: RayBundle, spans: Spans) -> FieldOutputs:
        """The final field for inference in spans `[n]` of rays `[rays]`: `DENSITY` `[n, 1]` and `RGB` `[n, 3]`.

        Raises:
            ConfigError: as `trained_density`.
        """
        raise ConfigError(f"{type(self).__name__} has no density for a grid to be rendered by")

    def query_module(self) -> nn.Module:
        """The module of one query, with all networks that it runs: from ray samples to density and colour.

        Evaluation times it and counts its parameters and multiply-adds.
        """
        return list(self.graph_fields().values())[-1]

    def field_samples(self, ray_bundle: RayBundle, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs of a field's network along rays, and how much each sample weighs in an image.

        Args:
            ray_bundle: rays `[rays]`, near and far planes set.
            name: of the field.

        Returns:
            The network's inputs `[samples, d_i]`, and rendering weights `[samples]`.
        """
        raise NotImplementedError

    @full_precision()
    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the final colours of a training batch, dB.

        Raises:
            RunError: as `refuse_divergence`.
        """
        image = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        error = (outputs["rgb"] - image).square().mean()
        self.refuse_divergence(error)
        return {"psnr": -10 * torch.log10(error)}

    def refuse_divergence(self, error: Tensor) -> None:
        """Ends a training that has diverged, which nerfstudio would carry on with to its last step.

        Raises:
            RunError: the error of a training batch is not a number, in any of the processes that train together; looked
                every `DIVERGENCE_CHECK_INTERVAL` batches.
        """
        if not self.training:
            return
        self._batches += 1
        # one process that ended alone would leave the others waiting for it
        if self._batches % DIVERGENCE_CHECK_INTERVAL == 0 and not bool(summed(error).isfinite()):
            raise RunError(
                f"training has diverged: after {self._batches} steps the error of a batch is not a number. Lower the "
                "learning rate (--optimizers.fields.optimizer.lr), or start smoother "
                "(--pipeline.model.network.start linear, above all with --pipeline.model.network.degree 2)"
            )

    @full_precision()
    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM and (where its weights are at hand) LPIPS of an image, and images to look at."""
        image = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        metrics = image_metrics(outputs["rgb"], image)
        accumulation = colormaps.apply_colormap(outputs["accumulation"])
        depth = colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"])
        images = {
            "img": torch.cat([image, outputs["rgb"]], dim=1),
            "accumulation": accumulation,
            "depth": depth,
        }
        return metrics, images

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As in torch, but a checkpoint of another architecture is an error that nerfstudio cannot pass over.

        nerfstudio's pipeline catches torch's RuntimeError and loads again without `strict`, and so leaves weights at
        random.

        Raises:
            RunError: names or shapes differ; the message holds the first few.
        """
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise architecture_mismatch(self, state_dict) from error
