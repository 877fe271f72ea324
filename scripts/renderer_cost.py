#!/usr/bin/env python
"""Pictures of runs by the samplers of training and by the fast renderer, in turns in one process.

Runs of stock methods are rendered as nerfstudio renders them first, and by their copies where there are such. What the
products of all queries would take at the measured peak of this machine is the physical limit.

python scripts/renderer_cost.py --runs RUN/config.yml ... --names dense ... \
    --output docs/results/data/renderer_scene_cpu.json

Pictures are of test views, `--size` pixels high, as `model.get_outputs_for_camera` makes them; PSNR to photographs is
taken at the photographs' own size.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from eugen_nerf.benchmarks.hardware import matmul_peak
from eugen_nerf.core import HashGrid, IntegratedEncoding
from eugen_nerf.core.choices import PlanDtype
from eugen_nerf.core.encodings import frustum_points, hash_grid, integrated
from eugen_nerf.core.encodings.compiled_gaussians import can_compile
from eugen_nerf.core.encodings.compiled_grid import can_pool
from eugen_nerf.core.encodings.compiled_multisamples import can_place
from eugen_nerf.core.encodings.integrated import LEAST_EXPONENT
from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.core.networks.layer_graph import LayerGraph
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.core.rendering.grid_renderer import GridRenderer
from eugen_nerf.core.timing import speed_ratios, synchronise
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.evaluation.images.ground_truth import composite
from eugen_nerf.evaluation.images.view_rendering import eval_dataset
from eugen_nerf.methods.graph_model import FastRenderer, GraphModel
from eugen_nerf.methods.rendering.grid_rendering import rays_of
from eugen_nerf.methods.rendering.planning import plan_model, unplan_model
from eugen_nerf.methods.runs.fast_rendering import kept_renderer
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.training_rays import COLOURS


@dataclass(frozen=True)
class Way:
    """A way to render: with the fast renderer or without, networks as they are or by plans of a dtype."""

    name: str
    fast: bool
    plan: PlanDtype | None = None
    before: bool = False
    """Without compiled loops, and with dampings too small for a float: what images took once."""


STOCK = Way("as nerfstudio renders it", False)


def ways(model: GraphModel) -> list[Way]:
    """Those that are compared on this machine; the first is the default of evaluation, as it was before."""
    found = [
        *([Way("before", False, before=True)] if _has_changed(model) else []),
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


class Contender:
    """A run and the ways in which it is rendered.

    Args:
        run: of ours, or of a stock method, which nerfstudio's own way is the first of.
        name: for the table.
        size: height of its picture of the first test view, pixels.
        quality: dB that the fast renderer may lose in training.
        clock: seconds, of all processes or of this one.
    """

    def __init__(self, run: Run, name: str, size: int, quality: float, clock: Callable[[], float]) -> None:
        self.run, self.name, self.data, self.clock = run, name, eval_dataset(run), clock
        self.camera = self.data.cameras[:1].to(run.model.device)
        self.camera.rescale_output_resolution(size / float(self.camera.height[0]))
        self.renderer: FastRenderer | None = None
        self.ways, self.seconds, self.model = [STOCK], dict[str, list[float]](), run.model
        kept = kept_renderer(run, quality=quality, progress=print)
        if kept is not None:
            assert isinstance(run.model, GraphModel)
            self.renderer, choice = kept
            assert choice.rate, f"{name} keeps the exact samplers: {choice}"
            print(choice)
            self.ways = ways(run.model) if run.stock is None else [STOCK, *ways(run.model)]

    def prepare(self, way: Way) -> None:
        """Makes the model render in that way."""
        self.model = self.run.trained_model if way is STOCK else self.run.model
        model = self.model
        if not isinstance(model, GraphModel):
            return
        model.render_by(None)
        unplan_model(model)
        if way.plan is not None:
            rays = self._rays()
            plan_model(model, rays[:: max(1, len(rays) // 512)], dtype=way.plan)
        model.render_by(self.renderer if way.fast else None)
        hash_grid.can_pool = _never if way.before else can_pool
        frustum_points.can_place = _never if way.before else can_place
        frustum_points.can_compile = integrated.can_compile = _never if way.before else can_compile
        integrated.LEAST_EXPONENT = -math.inf if way.before else LEAST_EXPONENT

    def picture(self, camera: Any = None) -> Tensor:
        """Colours `[pixels, 3]` of a view; by default the large one."""
        chosen = self.camera if camera is None else camera
        outputs = self.model.get_outputs_for_camera(chosen)
        return next(outputs[name] for name in COLOURS if name in outputs).reshape(-1, 3)

    def take_turn(self) -> None:
        """Times every way once."""
        for way in self.ways:
            self.prepare(way)
            synchronise(self.run.model.device)
            start = self.clock()
            self.picture()
            synchronise(self.run.model.device)
            self.seconds.setdefault(way.name, []).append(self.clock() - start)

    def rows(self, views: int, peaks: Mapping[str, float]) -> list[dict[str, Any]]:
        """A row for each way, after its turns.

        Args:
            views: test views that PSNR is of, at the photographs' own size.
            peaks: FLOP/s of products, by dtype.
        """
        ratios, rows, first = speed_ratios(self.seconds, self.ways[0].name), [], None
        for way in self.ways:
            self.prepare(way)
            picture, multiply_adds = self._counted_picture()
            first = picture if first is None else first
            error, ratio = float((picture - first).square().mean()), ratios[way.name]
            at_peak = 2 * multiply_adds / peaks[way.plan or "float32"]
            rows.append(
                {
                    "run": self.name,
                    "way": way.name,
                    "seconds": f"{statistics.median(self.seconds[way.name]):.2f}",
                    "x": f"{ratio.median:.1f} ({ratio.lower_quartile:.1f} to {ratio.upper_quartile:.1f})",
                    "products at the peak, s": f"{at_peak:.3f}" if multiply_adds else "",
                    "PSNR to photographs": f"{self._psnr(views):.2f}" if _renders_colours(self.run) else "",
                    "PSNR to the first": f"{_decibel(error):.1f}" if error else "",
                    "queries a ray that meets something": f"{self._queries():.1f}" if way.fast else "",
                }
            )
        return rows

    def _psnr(self, views: int) -> float:
        psnr = []
        for view in range(min(views, len(self.data))):
            truth = composite(self.run, self.data.get_image_float32(view)).reshape(-1, 3).to(self.run.model.device)
            picture = self.picture(self.data.cameras[view : view + 1].to(self.run.model.device))
            psnr.append(_decibel(float((picture - truth).square().mean())))
        return statistics.mean(psnr)

    def _counted_picture(self) -> tuple[Tensor, int]:
        """The picture, and the multiply-adds of its networks' queries; 0 where nerfstudio renders."""
        if not isinstance(self.model, GraphModel):
            return self.picture(), 0
        counts, hooks = list[int](), []

        def count(network: LayerGraph, _: Any, options: Mapping[str, Any], outputs: tuple[Tensor, ...]) -> None:
            graph, wanted = network.collapsed(), options.get("outputs")
            part = graph if wanted is None else graph.pruned(len(network.input_widths), wanted)[0]
            counts.append(outputs[0].shape[:-1].numel() * part.multiply_adds())

        for field in self.model.graph_fields().values():
            hooks.append(field.network.register_forward_hook(count, with_kwargs=True))  # type: ignore[arg-type]
        try:
            return self.picture(), sum(counts)
        finally:
            for hook in hooks:
                hook.remove()

    def _rays(self) -> RayBundle:
        model = self.run.model
        assert model.collider is not None
        return model.collider(self.camera.generate_rays(camera_indices=0, keep_shape=True).flatten())

    @torch.no_grad()
    def _queries(self) -> float:
        """Queries of the final field for a ray of the picture that meets anything in a grid, or for any ray."""
        model = self.run.model
        assert isinstance(model, GraphModel)
        if isinstance(self.renderer, GridRenderer):
            spans = self.renderer.place(rays_of(self._rays()))
            return len(spans) / max(1, int((spans.counts > 0).sum()))
        return model.queries_a_ray(self._rays())


def _has_changed(model: GraphModel) -> bool:
    return any(isinstance(part, HashGrid | IntegratedEncoding) for part in model.modules())


def _never(*_: object) -> bool:
    return False


def _renders_colours(run: Run) -> bool:
    return not isinstance(run.model, GraphModel) or run.model.renders_colours


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
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of this process, where others are at work too"
    )
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    contenders = []
    for path, name in zip(arguments.runs, arguments.names, strict=True):
        run = load_run(path, device=arguments.device)
        run.model.eval()
        contenders.append(Contender(run, name, arguments.size, arguments.quality, clock))
    for _ in range(arguments.repeats):
        for contender in contenders:
            contender.take_turn()
    device = torch.device(arguments.device)
    peaks = {name: matmul_peak(device, getattr(torch, name)) for name in ("float32", "bfloat16")}
    rows = [row for contender in contenders for row in contender.rows(arguments.views, peaks)]
    for row in rows:
        print(" | ".join(map(str, row.values())))
    machine = {**environment(arguments.device, ["float32"]), "peak_flops": peaks}
    result = {"pictures": {"size": arguments.size, "views": arguments.views, "rows": rows}, "environment": machine}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
