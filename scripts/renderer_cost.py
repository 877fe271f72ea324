#!/usr/bin/env python
"""Pictures of runs by the samplers of training and by the fast renderer, in turns in one process.

python scripts/renderer_cost.py --runs RUN/config.yml ... --names dense ... \
    --output docs/results/data/renderer_scene_cpu.json

Pictures are of test views, `--size` pixels high, as `model.get_outputs_for_camera` makes them; PSNR to photographs is
taken at the photographs' own size.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.timing import speed_ratios, time_interleaved
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.evaluation.images.ground_truth import composite
from eugen_nerf.evaluation.images.view_rendering import eval_dataset
from eugen_nerf.methods.graph_model import FastRenderer, GraphModel
from eugen_nerf.methods.rendering.grid_rendering import rays_of
from eugen_nerf.methods.rendering.planning import plan_model, unplan_model
from eugen_nerf.methods.runs.fast_rendering import kept_renderer
from eugen_nerf.methods.runs.loading import Run, load_run


@dataclass(frozen=True)
class Way:
    """A way to render: with the fast renderer or without, networks as they are or by plans of a dtype."""

    name: str
    fast: bool
    plan: str | None = None


def ways() -> list[Way]:
    """Those that are compared on this machine; the first is the default of evaluation."""
    found = [
        Way("samplers of training", False),
        Way("the same, plans in float32", False, "float32"),
        Way("fast renderer", True),
        Way("fast renderer, plans in float32", True, "float32"),
    ]
    return (
        [*found, Way("fast renderer, plans in bfloat16", True, "bfloat16")]
        if has_fast_bfloat16(torch.device("cpu"))
        else found
    )


def measure(run: Run, name: str, size: int, views: int, repeats: int, quality: float) -> list[dict[str, Any]]:
    """A row for each way."""
    model = run.model
    assert isinstance(model, GraphModel)
    kept = kept_renderer(run, quality=quality, progress=print)
    assert kept is not None, f"{name} has no fast renderer"
    renderer, choice = kept
    assert choice.rate, f"{name} keeps the exact samplers: {choice}"
    print(choice)
    data, pictures = eval_dataset(run), dict[Way, Tensor]()
    large = data.cameras[:1].to(model.device)
    large.rescale_output_resolution(size / float(large.height[0]))

    def prepare(way: Way) -> None:
        model.render_by(None)
        unplan_model(model)
        if way.plan is not None:
            bundle = large.generate_rays(camera_indices=0, keep_shape=True).flatten()
            plan_model(model, model.collider(bundle[:: max(1, len(bundle) // 512)]), dtype=way.plan)  # type: ignore
        model.render_by(renderer if way.fast else None)

    def picture(camera: Any) -> Tensor:
        return model.get_outputs_for_camera(camera)["rgb"].reshape(-1, 3)

    all_ways = ways()
    psnr: dict[Way, float] = {}
    for way in all_ways:
        prepare(way)
        errors = []
        for view in range(min(views, len(data)) if model.renders_colours else 0):
            truth = composite(run, data.get_image_float32(view)).reshape(-1, 3).to(model.device)
            errors.append(float((picture(data.cameras[view : view + 1].to(model.device)) - truth).square().mean()))
        psnr[way] = sum(map(_decibel, errors)) / max(1, len(errors))
        pictures[way] = picture(large)
    seconds = {way.name: list[float]() for way in all_ways}
    for _ in range(repeats):
        for way in all_ways:
            prepare(way)
            taken = time_interleaved({way.name: lambda: picture(large)}, warmup=0, repeats=1, device=model.device)
            seconds[way.name] += taken[way.name]
    ratios = speed_ratios(seconds, all_ways[0].name)
    queries = _queries(renderer, model, large)
    rows = []
    for way in all_ways:
        exact = float((pictures[way] - pictures[all_ways[0]]).square().mean())
        ratio = ratios[way.name]
        rows.append(
            {
                "run": name,
                "way": way.name,
                "seconds": f"{sorted(seconds[way.name])[repeats // 2]:.2f}",
                "x": f"{ratio.median:.1f} ({ratio.lower_quartile:.1f} to {ratio.upper_quartile:.1f})",
                "PSNR to photographs": f"{psnr[way]:.2f}" if model.renders_colours else "",
                "PSNR to the first": f"{_decibel(exact):.1f}" if exact else "",
                "queries a ray that meets something": f"{queries:.1f}" if way.fast else "",
            }
        )
    return rows


@torch.no_grad()
def _queries(renderer: FastRenderer, model: GraphModel, camera: Any) -> float:
    """Queries of the final field for a ray of a picture that meets anything in a grid, or for any ray."""
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True).flatten()
    assert model.collider is not None
    bundle = model.collider(bundle)
    if isinstance(renderer, GridRenderer):
        spans = renderer.place(rays_of(bundle))
        return len(spans) / max(1, int((spans.counts > 0).sum()))
    model.render_by(renderer)
    return model.queries_a_ray(bundle)


def _decibel(squared_error: float) -> float:
    return -10 * math.log10(max(squared_error, 1e-12))


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quality", type=float, default=QUALITY, help="dB that the fast renderer may lose in training")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rows = []
    for path, name in zip(arguments.runs, arguments.names, strict=True):
        run = load_run(path, device=arguments.device)
        run.model.eval()
        rows += measure(run, name, arguments.size, arguments.views, arguments.repeats, arguments.quality)
    for row in rows:
        print(" | ".join(map(str, row.values())))
    machine = environment(arguments.device, ["float32"])
    result = {"pictures": {"size": arguments.size, "views": arguments.views, "rows": rows}, "environment": machine}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
