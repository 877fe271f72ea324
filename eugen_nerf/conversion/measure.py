"""What a conversion is worth, measured: time of field queries, and photographs on rays that no fit has seen."""

from __future__ import annotations

import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from torch import Tensor

from eugen_nerf.conversion.rays import RAYS_PER_BATCH, ray_bundle, training_cameras
from eugen_nerf.core.errors import RunError
from eugen_nerf.core.parallel import agreed
from eugen_nerf.fields.timing import Ratio, field_query_callable, speed_ratios, time_interleaved
from eugen_nerf.methods.base import GraphModel
from eugen_nerf.methods.runs import Run

NUM_QUERIES = 16_384


def query_speedup(teacher: GraphModel, student: GraphModel, repeats: int = 7) -> Ratio:
    """How many times faster the student answers field queries, in turns with the teacher in this process."""
    device = teacher.device
    calls = {
        name: field_query_callable(model.query_module().eval(), NUM_QUERIES, 0, device)
        for name, model in (("teacher", teacher), ("student", student))
    }
    ratio = speed_ratios(time_interleaved(calls, warmup=2, repeats=repeats, device=device), "teacher")["student"]
    return Ratio(*agreed((ratio.median, ratio.lower_quartile, ratio.upper_quartile)))


def query_macs(model: GraphModel) -> int:
    """Multiply-adds of one query, all networks that it takes included."""
    count = model.query_module().macs_per_query
    return int(count())  # type: ignore[operator]


class Photographs:
    """Pixels of training views: their rays and colours.

    Args:
        run: a run with its training views.
        rays: int64 `[rays, 3]`: camera, row, column.

    Raises:
        RunError: a data manager that holds no images.
    """

    def __init__(self, run: Run, rays: Tensor) -> None:
        manager = run.pipeline.datamanager
        self.cameras = training_cameras(manager)
        assert isinstance(manager, VanillaDataManager)
        self.rays = rays
        pixels: Tensor | None = None
        for camera in rays[:, 0].unique().tolist():
            image = manager.train_dataset.get_image_float32(camera)
            mine = (rays[:, 0] == camera).nonzero()[:, 0]
            if pixels is None:
                pixels = image.new_zeros(len(rays), image.shape[-1])
            pixels[mine] = image[rays[mine, 1], rays[mine, 2]]
        if pixels is None:
            raise RunError("no rays to compare with photographs")
        self.pixels = pixels

    @torch.no_grad()
    def squared_error(self, model: GraphModel) -> float:
        """Mean squared error of a model's colours, clipped to [0, 1], over pixels and channels."""
        model.eval()
        cameras, total = self.cameras.to(model.device), 0.0
        for rays, pixels in zip(
            self.rays.split(RAYS_PER_BATCH * 8), self.pixels.split(RAYS_PER_BATCH * 8), strict=True
        ):
            colours = model.forward(ray_bundle(cameras, rays.to(model.device)))["rgb"]
            assert isinstance(colours, Tensor)
            truth = model.renderer_rgb.blend_background(pixels.to(model.device))
            total += float((colours.clamp(0, 1) - truth).double().square().sum())
        return float(agreed(total / (3 * len(self.rays))))
