"""Part "launches": the fused kernel by rows, warps and tiles loaded ahead; the source of `default_launch`."""

from __future__ import annotations

import multiprocessing
import os
import time
from functools import partial
from typing import Any

import torch

from eugen_nerf.benchmarks.hardware import matmul_peak
from eugen_nerf.benchmarks.network_speed import encoded_inputs, networks_of
from eugen_nerf.core.inference.fused import Launch, default_launch, kernel_unavailable_reason, run_fused
from eugen_nerf.core.inference.packing import PackedNetwork, pack
from eugen_nerf.core.timing import medians, time_interleaved
from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.measurements.compiling import DRY
from eugen_nerf.gpu_day.rows import RowLog

NETWORKS = ((0, "EUGen m=64"), (0, "EUGen m=128"), (0, "dense"), (1, "EUGen m=128"), (1, "EUGen m=256"))
ALL = 1 << 10
"""A window of all tiles."""
SHAPES = ((64, 4), (128, 4), (128, 8), (256, 8), (256, 16))
LAUNCHES = tuple(Launch(rows, warps, window) for rows, warps in SHAPES for window in (1, 2, 3, ALL))
QUERIES = 1 << 21
SHARED = 227 << 10
"""Bytes of shared memory that a program can have at compute capability 9.0."""
Work = tuple[int, str, Launch]


def sweep(day: Day, log: RowLog) -> None:
    """Launches are compiled side by side first; those that do not compile or do not fit are named."""
    if (problem := kernel_unavailable_reason(day.target)) is not None:
        raise RuntimeError(problem)
    networks = [(DRY, "EUGen m=4")] if day.tiny else list(NETWORKS)
    launches = LAUNCHES[:1] if day.tiny else LAUNCHES
    if day.tiny:
        problems = {
            (*network, launch): compile_launch((*network, launch), day) for network in networks for launch in launches
        }
    else:
        problems = _compiled([(*network, launch) for network in networks for launch in launches], day, 0.6 * log.left)
    for number, name in networks:
        own_problems = {launch: problems[number, name, launch] for launch in launches}
        log.measure(f"{day.families[number].name}, {name}", partial(measure_launches, day, number, name, own_problems))


def _compiled(jobs: list[Work], day: Day, seconds: float) -> dict[Work, str | None]:
    """Why each launch does not run, or None; whatever is not compiled in time does not."""
    end = time.monotonic() + seconds
    with multiprocessing.get_context("spawn").Pool(max(1, (os.cpu_count() or 2) - 1)) as pool:
        running = {job: pool.apply_async(compile_launch, (job, day)) for job in jobs}
        problems: dict[Work, str | None] = {}
        for job, result in running.items():
            try:
                problems[job] = result.get(timeout=max(0.0, end - time.monotonic()))
            except multiprocessing.TimeoutError:
                problems[job] = "not compiled in time"
    return problems


def compile_launch(job: Work, day: Day) -> str | None:
    """Why a launch does not run, or None; in a process of its own."""
    number, name, launch = job
    with torch.no_grad():
        packed = packed_network(day, number, name)
        if launch.window == ALL and packed.weights.numel() * packed.weights.element_size() > SHARED:
            return "weights do not fit shared memory"
        try:
            inputs = encoded_inputs(packed.input_widths, 16 if day.tiny else 300, day.target)
            run_fused(packed, *inputs, launch=launch)
        except Exception as error:  # whatever a compiler or a driver raises: it is shown
            return (str(error).strip().splitlines() or [type(error).__name__])[0][:90]
    return None


def packed_network(day: Day, number: int, name: str) -> PackedNetwork:
    """In bfloat16, on the day's device."""
    network = networks_of(day.families[number], day.target)[name]
    return pack(network.collapse(), network.input_widths, "bfloat16")


@torch.no_grad()
def measure_launches(day: Day, number: int, name: str, problems: dict[Launch, str | None]) -> dict[str, Any]:
    """Queries a second by each launch without a problem, the fastest first; the problems of the others."""
    packed, device = packed_network(day, number, name), day.target
    inputs = encoded_inputs(packed.input_widths, 16 if day.tiny else QUERIES // (1 + number), device)
    macs = networks_of(day.families[number], torch.device("cpu"))[name].multiply_adds()
    sound = [launch for launch, problem in problems.items() if problem is None]
    runs = {str(tuple(launch)): partial(_run, packed, inputs, launch) for launch in sound}
    seconds = medians(time_interleaved(runs, warmup=1, repeats=1 if day.tiny else 7, device=device))
    peak = 1e12 if day.tiny else matmul_peak(device, torch.bfloat16)
    rows = [
        {
            "launch": launch,
            "queries_per_second": len(inputs[0]) / seconds[launch],
            "share_of_peak": 2 * macs * len(inputs[0]) / seconds[launch] / peak,
        }
        for launch in sorted(seconds, key=lambda launch: seconds[launch])
    ]
    broken = {str(tuple(launch)): problem for launch, problem in problems.items() if problem is not None}
    return {
        "chosen": str(tuple(default_launch(packed, device))),
        "tiles": len(packed.tiles),
        "launches": rows,
        "broken": broken,
    }


def _run(packed: PackedNetwork, inputs: list[torch.Tensor], launch: Launch) -> None:
    run_fused(packed, *inputs, launch=launch)
