"""Rays of a run's training views, with what its model renders along them and what its photographs show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.core.distributed import first_process_value
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.runs.loading import Run

RAYS_PER_BATCH = 64
DEPTHS_PER_BATCH = 4096
MAX_DEPTH_ERROR = 0.5
"""Metres; a ray that misses its surface by a hair is no worse than one that is far off."""
COLOURS = ("rgb", "rgb_fine", "rgb_coarse")
"""A model's rendered colours, the final ones first; a coarse field is judged by the image that it renders itself."""


def choose_rays(cameras: Cameras, fraction: float, limit: int, seed: int) -> Tensor:
    """Pixels of the training views, drawn without replacement.

    Args:
        cameras: the training cameras.
        fraction: of all their pixels, in (0, 1].
        limit: largest number of rays.
        seed: of the draw.

    Returns:
        int64 `[rays, 3]`: camera, row, column, in random order.

    Raises:
        ConfigError: a fraction outside (0, 1], or so few rays that none could be held out.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"the fraction of rays must be in (0, 1], got {fraction}")
    sizes = (cameras.height.flatten() * cameras.width.flatten()).long().cpu()
    total = int(sizes.sum())
    count = min(limit, round(fraction * total))
    if count < 5 * RAYS_PER_BATCH:
        raise ConfigError(
            f"{count} rays ({fraction:g} of {total} pixels, at most {limit}) are too few to fit and to hold some out; "
            f"take at least {5 * RAYS_PER_BATCH} by a larger --ray-fraction or --max-rays"
        )
    return draw_pixels(cameras, count, seed)


def draw_pixels(cameras: Cameras, count: int, seed: int) -> Tensor:
    """So many pixels of all views, or all where there are fewer, in random order: as `choose_rays`."""
    sizes = (cameras.height.flatten() * cameras.width.flatten()).long().cpu()
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(int(sizes.sum()), generator=generator)[:count]
    ends = sizes.cumsum(0)
    camera = torch.searchsorted(ends, flat, right=True)
    pixel = flat - (ends - sizes)[camera]
    width = cameras.width.flatten().cpu()[camera].long()
    return torch.stack([camera, pixel // width, pixel % width], dim=1)


def training_views(datamanager: object) -> InputDataset:
    """A run's training views.

    Raises:
        RunError: a data manager that does not hold them.
    """
    views = getattr(datamanager, "train_dataset", None)
    if not isinstance(getattr(views, "cameras", None), Cameras):
        raise RunError(f"{type(datamanager).__name__} holds no training cameras: a ray-based run is needed")
    return cast(InputDataset, views)


def ray_bundle(cameras: Cameras, rays: Tensor) -> RayBundle:
    """Rays through the middles of pixels `[rays, 3]` (camera, row, column), `[rays]`."""
    coords = rays[:, 1:].float() + 0.5  # rows and columns of pixel centres
    return cameras.generate_rays(camera_indices=rays[:, :1], coords=coords)


def rendered_colours(model: Model, bundle: RayBundle) -> list[Tensor]:
    """Colours that a model renders along rays: the final ones `[rays, 3]`, then those of a coarse field.

    Poses that the run has optimised are used, as in training: evaluation's own views have none, training views do.

    Raises:
        RunError: a model that renders no images.
    """
    _apply_poses(model, bundle)
    outputs = model.forward(bundle)
    colours = [outputs[key] for key in COLOURS if isinstance(outputs.get(key), Tensor)]
    if not colours:
        raise RunError(f"{type(model).__name__} renders no images: its outputs are {', '.join(outputs)}")
    return cast(list[Tensor], colours)


def _apply_poses(model: Model, bundle: RayBundle) -> None:
    """Moves rays of training views to the poses that the run has optimised, in place; training itself does so."""
    optimizer = getattr(model, "camera_optimizer", None)
    if optimizer is not None and not model.training:
        optimizer.apply_to_raybundle(bundle)


def blended(model: Model, pixels: Tensor) -> Tensor:
    """Pixels `[n, 3]` or, with alpha, `[n, 4]`, on the background that the model is compared before: `[n, 3]`."""
    renderer = model.renderer_rgb
    assert isinstance(renderer, RGBRenderer)
    return renderer.blend_background(pixels)


def _by_view(views: InputDataset, rays: Tensor) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """For each view that rays `[rays, 3]` are of: their numbers, and what its data are."""
    for camera in rays[:, 0].unique().tolist():
        yield (rays[:, 0] == camera).nonzero()[:, 0], views.get_data(camera, image_type="float32")


class Photographs:
    """Pixels of training views: their rays and colours. Pixels that a view's mask leaves out are left out.

    Args:
        run: a run with its training views.
        rays: int64 `[rays, 3]`: camera, row, column.

    Raises:
        RunError: a data manager that holds no images, or nothing but masked pixels.
    """

    def __init__(self, run: Run, rays: Tensor) -> None:
        views = training_views(run.pipeline.datamanager)
        self.cameras = views.cameras
        pixels: Tensor | None = None
        valid = torch.ones(len(rays), dtype=torch.bool)
        for mine, data in _by_view(views, rays):
            rows, columns = rays[mine, 1], rays[mine, 2]
            if pixels is None:
                pixels = data["image"].new_zeros(len(rays), data["image"].shape[-1])
            pixels[mine] = data["image"][rows, columns]
            if "mask" in data:
                valid[mine] = data["mask"][rows, columns, 0].bool()
        if pixels is None or not valid.any():
            raise RunError("no rays to compare with photographs")
        self.rays, self.pixels = rays[valid], pixels[valid]

    @torch.no_grad()
    def squared_error(self, model: Model, render: Callable[[RayBundle], Tensor] | None = None) -> float:
        """Mean squared error of a model's colours, clipped to [0, 1], over pixels and channels.

        Args:
            model: what renders, and whose background photographs with alpha are put on.
            render: in place of the model, colours `[rays, 3]` along rays.
        """
        model.eval()
        cameras, total = self.cameras.to(model.device), 0.0
        for rays, pixels in zip(
            self.rays.split(RAYS_PER_BATCH * 8), self.pixels.split(RAYS_PER_BATCH * 8), strict=True
        ):
            bundle = ray_bundle(cameras, rays.to(model.device))
            if render is None:
                colours = rendered_colours(model, bundle)[0]
            else:
                _apply_poses(model, bundle)
                colours = render(bundle)
            truth = blended(model, pixels.to(model.device))
            total += float((colours.clamp(0, 1) - truth).double().square().sum())
        return float(first_process_value(total / (3 * len(self.rays))))


class MeasuredDepths:
    """Pixels of training views with a measured depth: their rays, and distances along the optical axis.

    Args:
        run: a run with its training views.
        rays: int64 `[rays, 3]`: camera, row, column.

    Raises:
        RunError: a data manager that holds no depth, or none at these pixels.
    """

    def __init__(self, run: Run, rays: Tensor) -> None:
        views = training_views(run.pipeline.datamanager)
        self.cameras = views.cameras
        depths = torch.full((len(rays),), torch.nan)
        for mine, data in _by_view(views, rays):
            if "depth_image" in data:
                depths[mine] = data["depth_image"][rays[mine, 1], rays[mine, 2], 0].float()
        valid = depths.isfinite()
        if not valid.any():
            raise RunError("no rays to compare with measured depths")
        self.rays, self.depths = rays[valid], depths[valid]

    @torch.no_grad()
    def squared_error(self, model: Model) -> float:
        """Mean square of a model's errors of depth, each at most `MAX_DEPTH_ERROR`, in square metres."""
        model.eval()
        cameras, total = self.cameras.to(model.device), 0.0
        for rays, depths in zip(self.rays.split(DEPTHS_PER_BATCH), self.depths.split(DEPTHS_PER_BATCH), strict=True):
            outputs = model.forward(ray_bundle(cameras, rays.to(model.device)))
            error = (cast(Tensor, outputs["z_depth"])[:, 0] - depths.to(model.device)).abs().clamp_max(MAX_DEPTH_ERROR)
            total += float(error.double().square().sum())
        return float(first_process_value(total / len(self.rays)))
