"""Runs compared by inference plans and with approximations of rendering, the same for all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle

from eugen_nerf.core import InferencePlan
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.evaluation.protocol import Inference
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering.planning import plan_model
from eugen_nerf.methods.rendering.shortcuts import Shortcuts
from eugen_nerf.methods.runs.image_metrics import psnr, quantise
from eugen_nerf.methods.runs.loading import Run

PLAN_RAYS = 64
"""Rays of the first scored view along which networks are evaluated, to measure what a plan changes."""
BOX_RAYS = 1024
"""Rays of every scored view whose samples an occupancy grid has to cover."""


def apply_inference(
    runs: Mapping[str, Run], inference: Inference, views: Sequence[int], notes: list[str]
) -> dict[str, dict[str, Any]]:
    """Sets plans and approximations of runs, and says what they are and what they change.

    Args:
        runs: by name.
        inference: for all of them.
        views: evaluation views that will be rendered; the first is where deviations are measured.
        notes: gets a line where bfloat16 is slower than float32.

    Returns:
        For each run, what goes into its row: `plans` by network; `shortcuts` with seconds to build the grid, the share
        of occupied cells, and for the first view the PSNR between images with and without.

    Raises:
        ConfigError: a run whose fields are no graphs of layers, or one that cannot skip empty space.
    """
    if inference == Inference():
        return {name: {"plans": None, "shortcuts": None} for name in runs}
    settings: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        model = run.model
        if not isinstance(model, GraphModel):
            raise ConfigError(f"plans and approximations are for runs of the eugen-* methods, and {name!r} is none")
        settings[name] = {"plans": None, "shortcuts": None}
        if inference.plan_backend != "none" and all(f.network.plan is None for f in model.graph_fields().values()):
            device = run.pipeline.device
            if inference.plan_dtype == "bfloat16" and not has_fast_bfloat16(device):
                notes.append(f"{device.type} has no bfloat16 products of its own: plans in bfloat16 are slow here")
            rays = random_rays(run, views[:1], PLAN_RAYS)
            plans = plan_model(
                model,
                rays,
                backend=inference.plan_backend,
                dtype=inference.plan_dtype,
                drop_norm=inference.plan_drop_norm,
            )
            settings[name]["plans"] = {key: describe_plan(plan) for key, plan in plans.items()}
        model.shortcuts = Shortcuts(extras=inference.auxiliary_outputs)
        if inference.changes_images:
            settings[name]["shortcuts"] = _measure_approximations(run, model, inference, views)
    return settings


def describe_plan(plan: InferencePlan) -> dict[str, Any]:
    """What a plan is, and by how much it deviates, as plain data."""
    return {
        "backend": plan.backend,
        "dtype": plan.dtype,
        "chunk": plan.chunk,
        "deviation": plan.deviation,
        "samples": plan.samples,
        "fallback": plan.fallback,
        "statement": str(plan),
    }


def random_rays(run: Run, views: Sequence[int], count: int, *, seed: int = 0) -> RayBundle:
    """`count` rays of random pixels of each of some evaluation views, near and far planes set."""
    generator = torch.Generator().manual_seed(seed)
    bundles = []
    for view in views:
        camera = view_camera(run, view)
        rays = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()
        chosen = torch.randperm(len(rays), generator=generator)[:count].to(run.pipeline.device)
        bundles.append(rays[chosen])
    joined = bundles[0] if len(bundles) == 1 else _joined(bundles)
    collider = run.model.collider
    return joined if collider is None else collider(joined)


def _joined(bundles: Sequence[RayBundle]) -> RayBundle:
    return RayBundle(
        origins=torch.cat([b.origins for b in bundles]),
        directions=torch.cat([b.directions for b in bundles]),
        pixel_area=torch.cat([b.pixel_area for b in bundles]),
        times=None if bundles[0].times is None else torch.cat([b.times for b in bundles if b.times is not None]),
    )


def _measure_approximations(run: Run, model: GraphModel, inference: Inference, views: Sequence[int]) -> dict[str, Any]:
    camera = view_camera(run, views[0])
    without = quantise(render_rgb(run, camera))
    grid, seconds = None, None
    if inference.skip_empty:
        start = time.perf_counter()
        grid = model.scene_occupancy(model.sampled_box(random_rays(run, views, BOX_RAYS)), inference.skip_empty)
        seconds = time.perf_counter() - start
    model.shortcuts = Shortcuts(extras=inference.auxiliary_outputs, opaque=inference.early_stop, empty=grid)
    image = quantise(render_rgb(run, camera))
    return {
        "view": views[0],
        "grid_seconds": seconds,
        "occupied_share": None if grid is None else float(grid.cells.float().mean()),
        "psnr_between": psnr(image, without),
        "without": without,
        "with": image,
    }


def image_change(approximations: dict[str, Any] | None, truth: Any) -> dict[str, Any] | None:
    """What a result says of approximations: in place of the two images, how many dB nearer to the photograph one is.

    Args:
        approximations: from `apply_inference`.
        truth: photograph of the view.
    """
    if approximations is None:
        return None
    with_them, without = psnr(approximations["with"], truth), psnr(approximations["without"], truth)
    kept = {key: value for key, value in approximations.items() if key not in ("with", "without")}
    return {**kept, "psnr_change": with_them - without}
