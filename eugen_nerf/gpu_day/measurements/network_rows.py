"""Part "queries": networks by every way of running them, an image in plain PyTorch, the networks' training steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from eugen_nerf.benchmarks.network_speed import Contender, contenders_of, encoded_inputs, networks_of
from eugen_nerf.benchmarks.query_speed import measure_peaks, queries_for, rows_of
from eugen_nerf.benchmarks.render_speed import measure_renders
from eugen_nerf.benchmarks.training_speed import measure_training
from eugen_nerf.core import HashGrid, build_nerf, make_plan
from eugen_nerf.core.encodings.hash_grid import pyramid
from eugen_nerf.core.inference.fused import kernel_unavailable_reason
from eugen_nerf.core.timing import medians, time_interleaved
from eugen_nerf.core.training.tf32 import float32_products
from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.measurements.compiling import TRAINED, CompileJob, compiled_steps, left_out, left_out_of
from eugen_nerf.gpu_day.rows import RowLog

ORDER = (0, 1, 3, 2)
"""Families in order of worth."""
ROUNDS = 5
"""Timed rounds; in each, all ways take turns."""
SIDE = 400
"""Pixels along each side of the image."""


def measure_networks(day: Day, log: RowLog) -> None:
    """Queries of NeRF, its image, queries of the others, training steps, what is left."""
    missing = left_out(day)
    names = [family.name for family in day.families]
    log.measure(f"queries of {names[0]}", partial(measure_queries, day, 0, missing), needs=5.0)
    log.measure("an image by networks alone", partial(measure_image, day, missing), needs=5.0)
    for number in ORDER[1:]:
        log.measure(f"queries of {names[number]}", partial(measure_queries, day, number, missing), needs=5.0)
    for number in ORDER[: TRAINED + 1]:
        log.measure(f"training of {names[number]}", partial(measure_steps, day, number, missing), needs=5.0)
    log.measure("a call for one row", partial(measure_calls, day, missing))
    log.measure("the grid of Zip-NeRF", partial(measure_grid, day))


def measure_queries(day: Day, number: int, missing: set[CompileJob]) -> dict[str, Any]:
    """Every network of a family by every way of running it, taking turns; those of float32 with TF32 products too."""
    family, device = day.families[number], day.target
    peaks = {"float32": 1e12, "bfloat16": 1e12, "copy": 1e12} if day.tiny else measure_peaks(device)
    dense = build_nerf(family.shape)
    queries = 64 if day.tiny else queries_for(dense.multiply_adds(), device)
    inputs = encoded_inputs(dense.input_widths, queries, device)
    field = contenders_of(
        family,
        inputs,
        compiled=day.compiled and not day.tiny,
        left_out=left_out_of(number, missing),
        every_way=True,
    )
    plain = [c for c in field.contenders if c.dtype == torch.float32 and "eager" in c.name]
    field.contenders += [with_tf32(c) for c in plain]
    rows = rows_of(field, peaks, device, warmup=1, repeats=1 if day.tiny else ROUNDS)
    return {"queries": rows, "peaks": peaks, "notes": field.notes}


def with_tf32(contender: Contender) -> Contender:
    """The same network run with TF32 products, of no effect on a CPU."""
    return replace(contender, name=f"{contender.name} (TF32)", work=partial(_in_tf32, contender.work))


def _in_tf32(work: Callable[[], object]) -> None:
    with float32_products("tf32"):
        work()


def measure_image(day: Day, missing: set[CompileJob]) -> dict[str, Any]:
    """An image of a NeRF by networks alone, in plain PyTorch around them."""
    family = day.families[0]
    names = ["dense", *(f"EUGen m={m}" for m in family.features)]
    by_compiler = [n for n in names if CompileJob(0, n, "compile", "bfloat16") not in missing]
    compiled = by_compiler if day.compiled and day.device == "cuda" else []
    rows = measure_renders(
        day.target, 4 if day.tiny else SIDE, family=family, repeats=1 if day.tiny else ROUNDS, compiled=compiled
    )
    return {"pictures": rows}


def measure_steps(day: Day, number: int, missing: set[CompileJob]) -> dict[str, Any]:
    """A training step of a family's networks: dense, EUGen, narrower, of low rank; some of them compiled."""
    family = day.families[number]
    steps = [n for n in compiled_steps(family) if CompileJob(number, n, "training", "float32") not in missing]
    compiled = steps if day.compiled and not day.tiny and number < TRAINED else []
    scale = 1e-6 if day.tiny else 1.0
    rows = measure_training(family, day.target, scale=scale, repeats=1 if day.tiny else ROUNDS, compiled=compiled)
    return {"training": rows}


@torch.no_grad()
def measure_calls(day: Day, missing: set[CompileJob]) -> dict[str, Any]:
    """Seconds of a call for one row of NeRF's bfloat16 plans: the host's share of a launch."""
    family, device = day.families[0], day.target
    seconds_by_call: dict[str, float] = {}
    for name in ("dense", *(f"EUGen m={m}" for m in family.features)):
        network = networks_of(family, device)[name]
        one = [x[:1] for x in encoded_inputs(network.input_widths, 256, device)]
        fused = device.type == "cuda" and kernel_unavailable_reason(device) is None
        for backend in ("eager", "triton") if fused else ("eager",):
            if CompileJob(0, name, backend, "bfloat16") not in missing:
                plan = make_plan(network, one, backend=backend, dtype="bfloat16")
                work: dict[str, Callable[[], None]] = {f"{name}, {plan.backend}": partial(_discard, plan, one)}
                seconds_by_call |= medians(time_interleaved(work, warmup=20, repeats=100, device=device))
    return {"call_seconds": seconds_by_call}


@torch.no_grad()
def measure_grid(day: Day) -> dict[str, Any]:
    """Samples a second of Zip-NeRF's grid features (10 levels, 2^21 rows, 6 points a sample), no network."""
    device, samples = day.target, 1 << (6 if day.tiny else 18)
    grid = HashGrid(pyramid(16, 8192), 4, 9 if day.tiny else 21).to(device)
    points, widths = torch.rand(samples, 6, 3, device=device), torch.rand(samples, 6, device=device) * 1e-2

    def features() -> None:
        for part, width in zip(points.split(1 << 16), widths.split(1 << 16), strict=True):
            grid(part, width)

    seconds = medians(time_interleaved({"grid": features}, warmup=1, repeats=ROUNDS, device=device))["grid"]
    return {"grid_samples_per_second": samples / seconds}


def _discard(plan: Callable[..., object], inputs: list[torch.Tensor]) -> None:
    plan(*inputs)
