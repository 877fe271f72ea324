"""What a conversion is worth, measured: time of field queries, and photographs on rays that were not fitted to."""

from __future__ import annotations

import torch
from nerfstudio.models.base_model import Model
from torch import Tensor

from eugen_nerf.conversion.ray_samples import RAYS_PER_BATCH, blended, ray_bundle, rendered_colours, training_views
from eugen_nerf.core.distributed import first_process_value
from eugen_nerf.core.errors import RunError
from eugen_nerf.fields.counting import macs_per_query
from eugen_nerf.fields.query_timing import Ratio, field_query_callable, speed_ratios, time_interleaved
from eugen_nerf.methods.runs.loading import Run, query_module

NUM_QUERIES = 16_384


def query_speedup(teacher: Model, student: Model, repeats: int = 7) -> Ratio:
    """How many times faster the student evaluates field queries, in turns with the teacher in this process."""
    device = teacher.device
    calls = {
        name: field_query_callable(query_module(model).eval(), NUM_QUERIES, 0, device)
        for name, model in (("teacher", teacher), ("student", student))
    }
    ratio = speed_ratios(time_interleaved(calls, warmup=2, repeats=repeats, device=device), "teacher")["student"]
    return Ratio(*first_process_value((ratio.median, ratio.lower_quartile, ratio.upper_quartile)))


def query_macs(model: Model) -> int:
    """Multiply-adds of one query, all networks that it takes included.

    Raises:
        RunError: a model whose field has no linear layer to count them at.
    """
    count, how = macs_per_query(query_module(model), model.device)
    if count is None:
        raise RunError(f"multiply-adds of {type(model).__name__} are {how}")
    return count


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
        for camera in rays[:, 0].unique().tolist():
            data = views.get_data(camera, image_type="float32")
            mine = (rays[:, 0] == camera).nonzero()[:, 0]
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
    def squared_error(self, model: Model) -> float:
        """Mean squared error of a model's colours, clipped to [0, 1], over pixels and channels."""
        model.eval()
        cameras, total = self.cameras.to(model.device), 0.0
        for rays, pixels in zip(
            self.rays.split(RAYS_PER_BATCH * 8), self.pixels.split(RAYS_PER_BATCH * 8), strict=True
        ):
            colours = rendered_colours(model, ray_bundle(cameras, rays.to(model.device)))[0]
            truth = blended(model, pixels.to(model.device))
            total += float((colours.clamp(0, 1) - truth).double().square().sum())
        return float(first_process_value(total / (3 * len(self.rays))))
