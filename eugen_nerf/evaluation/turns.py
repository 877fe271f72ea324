"""Times of several runs that take turns: field queries, images, and where an image's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console

from eugen_nerf.evaluation.costs.time_breakdown import ceiling, image_splits
from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.evaluation.protocol import Timing
from eugen_nerf.evaluation.stage_lines import counted, followed
from eugen_nerf.fields.query_timing import field_query_callable, medians, speed_ratios, time_interleaved
from eugen_nerf.methods.runs.loading import Run, query_module


def add_times(
    rows: list[dict[str, Any]],
    runs: dict[str, Run],
    indices: Sequence[int],
    timing: Timing,
    baseline: str,
    console: Console | None = None,
) -> None:
    """Time field queries and whole images in turns, and write both into the rows."""
    device = next(iter(runs.values())).pipeline.device
    timed_views = indices[: timing.num_views]
    num_queries, chunk_size = timing.query_counts(device.type)

    def render(run: Run):
        cameras = [view_camera(run, index) for index in timed_views]

        def once() -> None:
            for camera in cameras:
                render_rgb(run, camera)

        return once

    queries = {
        name: field_query_callable(query_module(run.model), num_queries, timing.seed, device, chunk_size=chunk_size)
        for name, run in runs.items()
    }
    rounds = timing.warmup + timing.repeats
    take = partial(time_interleaved, warmup=timing.warmup, repeats=timing.repeats, device=device)
    with counted("timing field queries", rounds * len(runs), console, timed=True) as done:
        query_seconds = take({name: followed(query, done) for name, query in queries.items()})
    renders = {name: render(run) for name, run in runs.items()}
    with counted("timing images", rounds * len(runs), console, timed=True) as done:
        image_seconds = take({name: followed(image, done) for name, image in renders.items()})
    image_seconds = {name: [value / len(timed_views) for value in values] for name, values in image_seconds.items()}
    query_ratios, image_ratios = speed_ratios(query_seconds, baseline), speed_ratios(image_seconds, baseline)
    for row in rows:
        name = row["variant"]
        query, image = asdict(query_ratios[name]), asdict(image_ratios[name])
        row["seconds_per_image"] = medians(image_seconds)[name]
        row["queries_per_second"] = num_queries / medians(query_seconds)[name]
        row["query_speed_ratio"] = query["median"]
        row["query_speed_ratio_quartiles"] = [query["lower_quartile"], query["upper_quartile"]]
        row["image_speed_ratio"] = image["median"]
        row["image_speed_ratio_quartiles"] = [image["lower_quartile"], image["upper_quartile"]]
        row["query_seconds"], row["image_seconds"] = query_seconds[name], image_seconds[name]


def add_splits(
    rows: list[dict[str, Any]], runs: dict[str, Run], view: int, timing: Timing, console: Console | None = None
) -> None:
    """Take the time of one view apart, and write it into the rows."""
    with counted("taking an image's time apart", timing.split_repeats * len(runs), console, timed=True) as done:
        splits = image_splits(runs, view, repeats=timing.split_repeats, done=done)
    for row in rows:
        row["image_split"] = splits[row["variant"]]
        row["image_ceiling"] = ceiling(row["image_split"])
