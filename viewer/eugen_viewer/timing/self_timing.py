"""Measures the viewer without a browser: start, frames while orbiting, refits of the sliders."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console

from eugen_nerf.core import DenseLinear
from eugen_nerf.core.errors import EugenError
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.least_squares import MomentSums, greedy_columns
from eugen_nerf.evaluation.costs.resources import environment
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.panels.compression import LiveCompression
from eugen_viewer.panels.refit import fitted_layer
from eugen_viewer.run_comparison import RunComparison
from eugen_viewer.shown_runs import ShownRun
from eugen_viewer.timing.interaction_timing import Interaction, measure_interaction
from eugen_viewer.viewer_cameras import Viewpoint, viewpoint_at_view

FRAMES = 24
"""Frames of the orbit."""
SIDE = 48
"""Pixels along the longer side of its images, the same for all runs; runs are interleaved."""
WIDE = 256


def print_timing(runs: Sequence[ShownRun], console: Console, *, max_size: int, started: float) -> None:
    """Prints seconds from `started` (`time.perf_counter`) to the first image, milliseconds a frame, and refits.

    Raises:
        RunError: a run cannot be rendered.
    """
    comparison = RunComparison({run.name: run for run in runs}, Renderer(FrameBudget(max_size=max_size)))
    viewpoint = first_viewpoint(comparison)
    comparison.choose(second=None)
    size = comparison.next_size(viewpoint, "low_static")
    comparison.render_frame(viewpoint, size)
    first = time.perf_counter() - started
    about = environment(runs[0].model.device, ["float32"])
    machine = f"{about['device_name']}, {about['threads']} thread(s), float32, torch {about['torch']}"
    console.print(machine, highlight=False)
    console.print(f"start to first image ({size[1]} x {size[0]}): {first:.1f} s", highlight=False)
    seconds = orbit_seconds(comparison, viewpoint)
    height, width = orbit_size(comparison, viewpoint)
    for name, values in seconds.items():
        low, middle, high = 1e3 * np.quantile(values, [0.25, 0.5, 0.75])
        console.print(
            f"orbiting, {width} x {height}: {middle:.0f} ms a frame ({low:.0f} to {high:.0f}), {name}", highlight=False
        )
        comparison.choose(first=name, second=None, mode="first")
        for line in interaction_lines(measure_interaction(comparison, viewpoint)):
            console.print(f"  {line}, {name}", highlight=False)
    for shown_run in runs:
        compression = LiveCompression(shown_run.run)
        try:
            compression.replaceable()
        except EugenError:
            continue
        for line in refit_lines(compression):
            console.print(f"{line}, {shown_run.name}", highlight=False)
        break
    console.print(f"refit of a layer {WIDE} -> {WIDE} at half its width: {1e3 * wide_refit():.0f} ms", highlight=False)


def interaction_lines(interaction: Interaction) -> list[str]:
    """A drag and the rest after it, in words."""
    height, width = interaction.drag_size
    lines = [f"dragging: {interaction.frames_per_second:.0f} frames/s of {width} x {height}"]
    stages = ", ".join(f"{w} x {h} after {seconds:.2f} s" for (h, w), seconds in interaction.rest)
    return [*lines, f"at rest: {stages}"]


def first_viewpoint(comparison: RunComparison) -> Viewpoint:
    """The first test view, or a viewpoint in front of the scene if a run has none."""
    if comparison.base.cameras is not None:
        return viewpoint_at_view(comparison.base.cameras, 0, 1.0)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -3], [0, 1, 0, 0]], dtype=torch.float64)
    return Viewpoint(pose, 0.8, 1.0)


def orbit_size(comparison: RunComparison, viewpoint: Viewpoint) -> tuple[int, int]:
    """Height and width of the orbit's images."""
    return SIDE, round(SIDE * viewpoint.aspect)


def orbit_seconds(comparison: RunComparison, viewpoint: Viewpoint) -> dict[str, list[float]]:
    """Seconds of each run's frames on an orbit about the scene's vertical axis; runs are interleaved."""
    size = orbit_size(comparison, viewpoint)
    seconds: dict[str, list[float]] = {name: [] for name in comparison.runs}
    for number in range(-1, FRAMES):
        angle = torch.tensor(2 * torch.pi * number / FRAMES, dtype=torch.float64)
        turn = torch.eye(3, dtype=torch.float64)
        turn[0, 0] = turn[1, 1] = angle.cos()
        turn[1, 0], turn[0, 1] = angle.sin(), -angle.sin()
        at = Viewpoint(turn @ viewpoint.pose, viewpoint.fov, viewpoint.aspect, viewpoint.time)
        for name in comparison.runs:
            comparison.choose(first=name, second=None, mode="first")
            frame = comparison.render_frame(at, size)
            if number >= 0:  # the first frame warms up
                seconds[name].append(frame.images[name].seconds)
    return seconds


def refit_lines(compression: LiveCompression) -> list[str]:
    """Lines on the times of gathering moments, refitting each layer, and refitting all of them."""
    gathered = timed(compression.gather)
    lines = [f"moments gathered once: {gathered:.1f} s"]
    full = {group: dict(layers) for group, layers in compression.widths.items()}
    alone = []
    for group, layers in full.items():
        for layer, width in layers.items():
            compression.set({group: {layer: width // 2}})
            alone.append(compression.refit_seconds)
            compression.set({group: {layer: width}})
    lines.append(
        f"refit of one layer: {1e3 * max(alone):.0f} ms at most, {1e3 * float(np.median(alone)):.0f} ms median"
    )
    halved = {group: {layer: width // 2 for layer, width in layers.items()} for group, layers in full.items()}
    compression.set(halved)
    lines.append(f"refit of all layers together: {1e3 * compression.refit_seconds:.0f} ms")
    return lines


def wide_refit() -> float:
    """Seconds to refit a layer 256 wide at half its width, the median of five."""
    generator = torch.Generator().manual_seed(0)
    layer = DenseLinear(WIDE, WIDE, "relu").requires_grad_(False)
    outputs = layer(torch.randn(8192, WIDE, generator=generator))
    sums = MomentSums(WIDE, WIDE)
    sums.add(outputs, outputs)
    moments = LayerMoments(sums, torch.eye(WIDE, dtype=torch.float64))
    path = greedy_columns(sums, WIDE, moments.metric)
    return float(np.median([timed(lambda: fitted_layer(layer, moments, path, WIDE // 2)) for _ in range(5)]))


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
