"""Comparing runs of one scene: the same views, the same protocol, times taken in turns in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.costs.fast_rows import check_fast, with_fast
from eugen_nerf.evaluation.costs.feature_shares import parse_shares, with_shares
from eugen_nerf.evaluation.costs.inference_modes import apply_inference, image_change
from eugen_nerf.evaluation.costs.reduced_precision import parse_reduced, with_reduced
from eugen_nerf.evaluation.costs.resources import (
    count_parameters,
    environment,
    fit_seconds,
    inference_parameters,
    peak_memory,
    tf32_note,
)
from eugen_nerf.evaluation.costs.training_cost import KEYS as TRAINING_KEYS
from eugen_nerf.evaluation.costs.training_cost import draw_batches, seeded, training_costs
from eugen_nerf.evaluation.images.film import frames_over_time
from eugen_nerf.evaluation.images.ground_truth import baseline_images, shared_truth
from eugen_nerf.evaluation.images.view_rendering import (
    eval_dataset,
    images_hash,
    poses_hash,
    render_rgb,
    render_views,
    view_camera,
)
from eugen_nerf.evaluation.protocol import Inference, Protocol, Timing
from eugen_nerf.evaluation.reports.training_curves import psnr_curve
from eugen_nerf.evaluation.stage_lines import counted
from eugen_nerf.evaluation.turns import add_splits, add_times
from eugen_nerf.fields.counting import macs_per_query
from eugen_nerf.methods.runs.image_metrics import Image8, LpipsMetric, load_lpips, psnr, ssim
from eugen_nerf.methods.runs.loading import Run, load_run, query_module, usable_device
from eugen_nerf.methods.runs.run_paths import check_names, run_names

BASELINE_VARIANTS = ("mean-image", "white")


@dataclass
class Comparison:
    """The result of `evaluate`.

    Attributes:
        rows: one dictionary a variant (the runs in their order, then `BASELINE_VARIANTS`); `report` explains the keys.
        protocol: the settings of scores and times.
        environment: what the numbers were taken on.
        notes: what a reader has to know: metrics left out and why, settings that differ between runs.
        views: indices of the scored views.
        truth: the views' photographs, uint8 [H, W, 3].
        renders: each run's renders of them, by variant.
        times: where the data have times, some from 0 to 1.
        frames: the first view at those times, by variant.
        published: results to show beside them, see `published`.
    """

    rows: list[dict[str, Any]]
    protocol: dict[str, Any]
    environment: dict[str, Any]
    notes: list[str]
    views: list[int]
    truth: list[Image8] = field(repr=False)
    renders: dict[str, list[Image8]] = field(repr=False)
    times: list[float] = field(default_factory=list)
    frames: dict[str, list[Image8]] = field(default_factory=dict, repr=False)
    published: list[dict[str, str]] = field(default_factory=list)


def evaluate(
    config_paths: Sequence[Path],
    *,
    names: Sequence[str] = (),
    baseline: str | None = None,
    protocol: Protocol | None = None,
    timing: Timing | None = None,
    device: str | None = None,
    data: Path | None = None,
    trust_config: bool = False,
    reduced: Sequence[str] = (),
    fast: Sequence[str] = (),
    shares: Sequence[str] = (),
    inference: Inference | None = None,
    console: Console | None = None,
) -> Comparison:
    """Load runs, check that they saw the same test views, render, score and time them.

    Args:
        config_paths: the ``config.yml`` of each run.
        names: what to call them; by default the shortest distinct parts of their paths, see `run_names`.
        baseline: the name that speeds are compared with; the first run by default.
        protocol: views and metrics.
        timing: warm-ups, repeats, number of queries, chunk size, views timed, seed, training iterations.
        device: where all runs are loaded; None takes CUDA where there is a GPU, else the CPU.
        data: read the scene from here instead of where the configs say.
        trust_config: as in `read_config`.
        reduced: runs to compare once more in less precise arithmetic, such as "dense:bfloat16"; see `reduced`.
        fast: names of runs to compare once more by their fast renderers; see `with_fast`.
        shares: runs to compare once more at a share of their features, such as "eugen:0.5"; see `with_shares`.
        inference: plans and approximations for all runs alike; None leaves all as the methods have it.
        console: where progress goes; standard error by default.

    Raises:
        RunError: a run cannot be loaded or rendered, or trained where training is timed.
        DataError: the runs' test views differ.
        ConfigError: names or baseline do not fit.
    """
    protocol, timing, inference = protocol or Protocol(), timing or Timing(), inference or Inference()
    if not config_paths:
        raise ConfigError("nothing to compare: give the config.yml of at least one run")
    check_names(names, len(config_paths), reserved=BASELINE_VARIANTS)  # before minutes are spent on loading
    names = run_names(config_paths, names, reserved=BASELINE_VARIANTS)
    precisions, widths = parse_reduced(reduced, names), parse_shares(shares, names)
    check_fast(fast, names)
    further = [f"{name} {precision}" for name, precision in precisions]
    further += [f"{name} {share:g}" for name, share in widths] + [f"{name} fast" for name in fast]
    if twice := sorted({*further} & {*names}):
        raise ConfigError(f"two rows would be called {twice[0]!r}: give that run another name by --names")
    baseline = baseline or names[0]
    if baseline not in names:
        raise ConfigError(f"no run is called {baseline!r}: --baseline takes one of {', '.join(names)}")
    for path in config_paths:
        fit_seconds(path)  # a damaged record shows now, and not after rendering
    where = usable_device(device)
    timing = timing.on(where.type)

    def load(path: Path) -> Run:
        # data managers shuffle the training images, and all runs train on the same rays
        with seeded(timing.seed, where):
            return load_run(path, device=where, test_mode=protocol.split, data=data, trust_config=trust_config)

    runs = []
    with counted("loading runs", len(config_paths), console) as done:
        for path in config_paths:
            runs.append(load(path))
            done()
    named = dict(zip(names, runs, strict=True))
    notes: list[str] = []
    shown = with_reduced(named, precisions, lambda run: load(run.path), notes)
    shown = with_shares(shown, widths, lambda run: load(run.path), notes)
    shown = with_fast(shown, fast, lambda run: load(run.path), notes)
    training = timing.train_iterations
    batches = {name: draw_batches(run, training, seed=timing.seed) for name, run in named.items()} if training else {}
    for run in shown.values():
        _stop_background_loaders(run)

    indices = protocol.view_indices(len(eval_dataset(runs[0])))
    truth = shared_truth(runs, names, indices)
    lpips, reason = load_lpips(protocol.lpips_net, side=min(min(image.shape[:2]) for image in truth), device=where)
    notes += [reason] if reason else []
    applied = apply_inference(shown, inference, indices, notes)

    rows, renders = [], {}
    for name, run in shown.items():
        rendered = render_views(run, indices, label=name, console=console)
        renders[name] = rendered.images
        with counted(f"scoring {name}", len(truth), console) as done:
            scores = _scores(rendered.images, truth, lpips, done)
        with counted(f"memory of {name}", 1, console):
            costs = _costs(run, indices[0], notes, name)
        stated = {**applied[name], "shortcuts": image_change(applied[name]["shortcuts"], truth[0])}
        rows.append({"variant": name, **scores, **costs, **stated})
    add_times(rows, shown, indices, timing, baseline, console)
    add_splits(rows, shown, indices[0], timing, console)
    times, frames = frames_over_time(shown, indices[0], protocol.frames_over_time, console)
    trained = training_costs(named, batches, baseline, console) if batches else {}  # last: it changes the weights
    for row in rows:
        row.update(trained.get(row["variant"], dict.fromkeys(TRAINING_KEYS)))
    for name, images in baseline_images(runs[0], truth, notes).items():
        rows.append({"variant": name, **_scores(images, truth, lpips), **_NO_COSTS})

    if len({row["rays_per_chunk"] for row in rows if row["config"] is not None}) > 1:
        notes.append("the runs render with different numbers of rays at once (rays_per_chunk): it affects image times")
    if len({row["rays_per_iteration"] for row in rows if row["config"] is not None}) > 1:
        notes.append("the runs train with different numbers of rays an iteration (rays_per_iteration)")
    if any(eval_dataset(run)._dataparser_outputs.mask_filenames for run in runs):
        notes.append("the data set has masks; metrics are over whole images, masks are not applied")
    notes += tf32_note({name: run.model for name, run in named.items()}, where)
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for run in runs for value in run.model.parameters()})
    settings = {
        **protocol.to_dict(),
        "timing": timing.to_dict(),
        "inference": inference.to_dict(),
        "baseline": baseline,
        "views": indices,
        "number_of_views": len(indices),
        "resolution": sorted({f"{image.shape[1]}x{image.shape[0]}" for image in truth}),
        "lpips_left_out": reason,
        "ground_truth_sha256": images_hash(truth),
        "poses_sha256": poses_hash(runs[0], indices),
    }
    measured_on = environment(where, dtypes)
    return Comparison(rows, settings, measured_on, notes, indices, truth, renders, times, frames)


_NO_COSTS: dict[str, Any] = dict.fromkeys(
    [
        *("seconds_per_image", "image_speed_ratio", "image_speed_ratio_quartiles", "image_seconds"),
        *("queries_per_second", "query_speed_ratio", "query_speed_ratio_quartiles", "query_seconds"),
        *("parameters", "model_parameters", "macs_per_query", "macs_source", "checkpoint_bytes", "peak_memory_bytes"),
        *("inference_parameters", "fit_seconds", "image_split", "image_ceiling", "psnr_curve", *TRAINING_KEYS),
        *("plans", "shortcuts", "rays_per_chunk", "seed", "step", "method", "checkpoint", "config"),
    ]
)  # baselines are no networks: nothing is timed or counted


def _stop_background_loaders(run: Run) -> None:
    """End the processes that prepare training rays (nerfacto's data manager): they would compete with what is timed."""
    for process in getattr(run.pipeline.datamanager, "data_procs", []):
        process.terminate()
        process.join()


def _scores(
    images: Sequence[Image8],
    truth: Sequence[Image8],
    lpips: LpipsMetric | None,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Means over the views, the values of each view, and the hash of what was scored; calls `done` after each view."""
    psnrs, ssims = [], []
    distances: list[float] | None = [] if lpips else None
    for pair in zip(images, truth, strict=True):
        psnrs.append(psnr(*pair))
        ssims.append(ssim(*pair))
        if lpips and distances is not None:
            distances.append(lpips(*pair))
        done()
    return {
        "psnr": statistics.fmean(psnrs),
        "ssim": statistics.fmean(ssims),
        "lpips": statistics.fmean(distances) if distances else None,
        "psnr_per_view": psnrs,
        "ssim_per_view": ssims,
        "lpips_per_view": distances,
        "predictions_sha256": images_hash(images),
    }


def _costs(run: Run, view: int, notes: list[str], name: str) -> dict[str, Any]:
    """Sizes, operations and memory of a run."""
    network, device = query_module(run.model), run.pipeline.device
    macs, source = macs_per_query(network, device)
    if macs is None:
        notes.append(f"{name}: macs_per_query {source}")
    camera = view_camera(run, view)
    return {
        "parameters": count_parameters(network),
        "model_parameters": count_parameters(run.model, trainable_only=True),
        "macs_per_query": macs,
        "macs_source": source,
        "checkpoint_bytes": run.checkpoint.stat().st_size,
        "inference_parameters": inference_parameters(network),
        "peak_memory_bytes": peak_memory(lambda: render_rgb(run, camera), device),
        "fit_seconds": fit_seconds(run.path),
        "psnr_curve": psnr_curve(run.path.parent / run.config.logging.relative_log_dir),
        "rays_per_chunk": run.model.config.eval_num_rays_per_chunk,
        "seed": run.config.machine.seed,
        "step": run.step,
        "method": run.config.method_name,
        "checkpoint": str(run.checkpoint),
        "config": str(run.path),
    }
