#!/usr/bin/env python
"""Correctness and speed of inference plans on the device at hand, with torch alone (no nerfstudio): one run, minutes.

    python scripts/gpu_check.py [--device cuda] [--output speed.json]

First every network of NeRF (8 x 256), Mip-NeRF 360 (8 x 1024), Zip-NeRF (its head) and iSDF (4 x 256) is checked:
collapsed against uncollapsed in float64, and every backend and dtype of a plan against float32 on regular, empty,
single and strided inputs; a failure is shown as FAIL, and the run ends with status 1 once all is measured. Then come
the measured peaks, the table of queries with ratios to the best dense network, a picture, training steps, and the time
of Zip-NeRF's grid. Figures are kept as they come; what is not compiled in time, or not begun after `--minutes`, is left
out and named.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core import LayerGraph, make_plan
from eugen_nerf.core.fused import kernel_problem
from eugen_nerf.core.hashgrid import HashGrid, pyramid
from eugen_nerf.core.packed import why_not
from eugen_nerf.core.picture import measure_pictures, picture_lines
from eugen_nerf.core.plan import PLAN_DTYPES
from eugen_nerf.core.speed import FAMILIES, Family, encoded_inputs, networks_of
from eugen_nerf.core.speed_table import measure_family, measure_peaks, table_lines
from eugen_nerf.core.timing import medians, synchronise, time_interleaved
from eugen_nerf.core.training_speed import measure_training, training_lines, training_steps

TOLERANCES = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 0.15, "float16": 5e-2}
"""Largest deviation from float32 over the largest output, above which a plan is taken for broken."""
TRAINED = 2
"""Families whose training is measured."""
COMPILING = 0.4
"""Share of the time that compiling may take."""
SLOW = 0.25
"""Share of that time above which one network is named."""


@torch.no_grad()
def collapse_deviation(network: LayerGraph, device: torch.device) -> float:
    """Largest difference between collapsed and uncollapsed outputs in float64, over the largest output."""
    graph = network.double().to(device)
    inputs = [x.double() for x in encoded_inputs(graph.input_widths, 2048, device)]
    values = list(graph.values(*inputs).items())
    numbers = [graph.names[v - len(graph.input_widths)] for v in graph.outputs]
    pairs = [(a, dict(values)[name]) for a, name in zip(graph(*inputs), numbers, strict=True)]
    found = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    network.float()
    return found


@torch.no_grad()
def check_plan(network: LayerGraph, backend: str, dtype: str, device: torch.device) -> tuple[str, bool]:
    """The plan's statement, and whether its outputs are what it states on inputs of every form."""
    inputs = encoded_inputs(network.input_widths, 1000, device, seed=3)
    plan = make_plan(network, inputs, backend=backend, dtype=dtype)  # type: ignore[arg-type]
    expected = network(*inputs)
    largest = max(float(y.abs().max()) for y in expected)
    found, rounding = plan(*inputs), 1e-6 * largest + 1e-12
    fits = all(float((a - b).abs().max()) <= plan.deviation + rounding for a, b in zip(found, expected, strict=True))
    fits &= plan.deviation <= TOLERANCES[dtype] * largest
    strided = plan(*(torch.stack([x, -x], dim=-1)[..., 0] for x in inputs))
    empty, single = plan(*(x[:0] for x in inputs)), plan(*(x[7] for x in inputs))
    for y, other, none, one in zip(found, strided, empty, single, strict=True):
        fits &= torch.equal(y, other) and none.shape == (0, y.shape[1])
        fits &= float((one - y[7]).abs().max()) <= plan.deviation + 1e-5 * largest
    # a part, as a coarse field is asked: its output alone
    needed = network.needed_inputs((0,))
    part = plan(*(inputs[i] for i in needed), outputs=(0,))[0]
    fits &= float((part - expected[0]).abs().max()) <= plan.part((0,)).deviation + rounding
    return str(plan), fits


def check(device: torch.device, left: Collection[Job], *, compiled: bool) -> bool:
    """Checks all networks and prints the findings."""
    sound = True
    for number, family in enumerate(FAMILIES):
        for name, network in networks_of(family, device).items():
            error = collapse_deviation(network, device)
            sound &= error < 1e-10
            print(f"{family.name}: {name}: collapsed against uncollapsed, float64: {error:.1e}", flush=True)
            for backend, dtype in ways(name, network, device, compiled=compiled):
                if Job(number, name, backend, dtype) in left:
                    continue
                statement, fits = check_plan(network, backend, dtype, device)
                sound &= fits
                print(f"  {'ok  ' if fits else 'FAIL'} {statement}", flush=True)
            reason = kernel_problem(device) or why_not(network.collapse(), network.input_widths)
            if reason is not None:
                print(f"  no fused kernel: {reason}")
    return sound


def ways(name: str, network: LayerGraph, device: torch.device, *, compiled: bool) -> list[tuple[str, str]]:
    """Backends and dtypes that a network is checked with."""
    fused = device.type == "cuda" and why_not(network.collapse(), network.input_widths) is None
    found = [("eager", dtype) for dtype in PLAN_DTYPES]
    if compiled and name in ("dense", "EUGen m=64"):
        found += [("compile", "float32"), ("compile", "bfloat16")]
    return found + [("triton", dtype) for dtype in PLAN_DTYPES if fused]


class Job(NamedTuple):
    """Something that takes long to compile: a plan, or a training step (`backend` is "training")."""

    family: int
    name: str
    backend: str
    dtype: str


def jobs_of(device: torch.device, *, compiled: bool) -> list[Job]:
    """All that is compiled later on, what is needed most first."""
    found = []
    for number, family in enumerate(FAMILIES):
        for name, network in networks_of(family, torch.device("cpu")).items():
            wanted = {*ways(name, network, device, compiled=compiled)}
            if compiled and name.startswith("EUGen") and not family.gradient:
                wanted.add(("compile", "bfloat16"))
            found += [Job(number, name, *way) for way in sorted(wanted) if way[0] != "eager"]
            if compiled and name in compiled_steps(family) and not family.gradient and number < TRAINED:
                found.append(Job(number, name, "training", "float32"))
    order = ("triton", "training", "compile")
    # iSDF's plans are checked and not timed
    return sorted(found, key=lambda job: (FAMILIES[job.family].gradient, order.index(job.backend), job.dtype))


def compiled_steps(family: Family) -> tuple[str, ...]:
    """Networks whose training steps are compiled: the dense one and EUGen's first."""
    return "dense", f"EUGen m={family.features[0]}"


def compile_all(jobs: Sequence[Job], device: torch.device, limit: float) -> set[Job]:
    """Compiles side by side, in other processes: what compilers keep on disk is found there later.

    Returns:
        The jobs that were not done after `limit` seconds.
    """
    began, left, workers = time.monotonic(), set(jobs), max(1, (os.cpu_count() or 2) - 1)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        running = [(job, pool.apply_async(compile_one, (job, str(device)))) for job in jobs]
        for job, found in running:
            try:
                seconds = found.get(timeout=max(0.0, began + limit - time.monotonic()))
            except multiprocessing.TimeoutError:
                print(f"left out, for it was not compiled in {limit:.0f} s: {describe(job)}", flush=True)
                continue
            except Exception as error:  # whatever a compiler raises: that one is left out
                print(f"left out, for it does not compile: {describe(job)}: {error}", flush=True)
                continue
            left.discard(job)
            if seconds > SLOW * limit:
                print(f"{describe(job)} took {seconds:.0f} s to compile", flush=True)
    print(f"{len(jobs) - len(left)} of {len(jobs)} compiled in {time.monotonic() - began:.0f} s\n", flush=True)
    return left


def describe(job: Job) -> str:
    """In words."""
    return f"{FAMILIES[job.family].name}: {job.name}, {job.backend} {job.dtype}"


def compile_one(job: Job, device: str) -> float:
    """Seconds that it took; runs in a process of its own."""
    began, family = time.monotonic(), FAMILIES[job.family]
    if job.backend == "training":
        steps, _ = training_steps(family, torch.device(device), compiled=(job.name,))
        steps[f"{job.name}, compiled"]()
        return time.monotonic() - began
    network = networks_of(family, torch.device(device))[job.name]
    samples = encoded_inputs(network.input_widths, 256, torch.device(device))
    with torch.no_grad():
        make_plan(network, samples, backend=job.backend, dtype=job.dtype).part((0,))  # type: ignore[arg-type]
    return time.monotonic() - began


@torch.no_grad()
def launch_seconds(device: torch.device, left: Collection[Job]) -> dict[str, float]:
    """What a call of a NeRF's bfloat16 plan takes for one row: the host's share of a launch, in seconds."""
    found = {}
    for name in ("dense", "EUGen m=128", "EUGen m=64"):
        network = networks_of(FAMILIES[0], device)[name]
        one = [x[:1] for x in encoded_inputs(network.input_widths, 256, device)]
        for backend in ("eager", "triton") if device.type == "cuda" else ("eager",):
            if Job(0, name, backend, "bfloat16") in left:
                continue
            plan = make_plan(network, one, backend=backend, dtype="bfloat16")  # type: ignore[arg-type]
            work = {f"{name}, {plan.backend}": lambda plan=plan, one=one: plan(*one)}
            found |= medians(time_interleaved(work, warmup=20, repeats=100, device=device))
    return found


@torch.no_grad()
def grid_rate(device: torch.device, samples: int) -> float:
    """Samples a second of Zip-NeRF's grid features (10 levels, 2^21 rows, 6 points a sample), no network."""
    grid = HashGrid(pyramid(16, 8192), 4, 21).to(device)
    points, widths = torch.rand(samples, 6, 3, device=device), torch.rand(samples, 6, device=device) * 1e-2
    times = []
    for _ in range(4):
        synchronise(device)
        start = time.perf_counter()
        for part, width in zip(points.split(1 << 16), widths.split(1 << 16), strict=True):
            grid(part, width)
        synchronise(device)
        times.append(time.perf_counter() - start)
    return samples / statistics.median(times[1:])


def main() -> None:
    """Checks, measures, prints, and writes the figures where asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of queries of a call")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--side", type=int, default=0, help="pixels along each side of the picture")
    parser.add_argument("--minutes", type=float, default=7.0, help="nothing is begun after them")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    options = parser.parse_args()
    device, compiled = torch.device(options.device), not options.no_compile
    cuda, began = device.type == "cuda", time.perf_counter()
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.repeats} rounds in turns\n")
    left = compile_all(jobs_of(device, compiled=compiled), device, COMPILING * 60 * options.minutes) if cuda else set()
    sound = check(device, left, compiled=compiled)
    print(f"checked in {time.perf_counter() - began:.0f} s", flush=True)
    peaks = measure_peaks(device)
    rates = ", ".join(f"{key} {value / 1e12:.2f} TFLOP/s" for key, value in peaks.items() if key != "copy")
    print(f"\nmeasured: matrix products {rates}; copies {peaks['copy'] / 1e9:.0f} GB/s")
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "peaks": peaks, "queries": [], "training": []}
    result["sound"] = sound
    result["launch_seconds"] = launch_seconds(device, left)
    for key, value in result["launch_seconds"].items():
        print(f"a call for one row: {key}: {1e6 * value:.0f} us")

    def keep(lines: Sequence[str]) -> None:
        print("", *lines, sep="\n", flush=True)
        if options.output is not None:
            part = options.output.with_name(options.output.name + ".part")
            part.write_text(json.dumps(result, indent=1) + "\n")
            part.replace(options.output)

    def queries(number: int) -> None:
        family, out = FAMILIES[number], {job[1:] for job in left if job.family == number}
        rows = measure_family(
            family,
            device,
            peaks,
            scale=options.scale,
            warmup=2,
            repeats=options.repeats,
            compiled=compiled,
            left_out=out,
        )
        result["queries"] += rows
        keep(table_lines(rows))

    def picture() -> None:
        needed = [
            Job(0, name, "triton", "bfloat16") for name in ("dense", *(f"EUGen m={m}" for m in FAMILIES[0].features))
        ]
        if missing := [describe(job) for job in needed if job in left]:
            print(f"\nleft out, for it needs what was not compiled: a picture ({'; '.join(missing)})")
            return
        by_compiler = [job.name for job in needed if compiled and cuda and job._replace(backend="compile") not in left]
        side = options.side or (400 if cuda else 16)
        result["pictures"] = measure_pictures(device, side, repeats=options.repeats, compiled=by_compiler)
        keep(picture_lines(result["pictures"]))

    def training(number: int) -> None:
        family = FAMILIES[number]
        steps = [n for n in compiled_steps(family) if cuda and Job(number, n, "training", "float32") not in left]
        rows = measure_training(
            family, device, scale=options.scale, repeats=options.repeats, compiled=steps if compiled else ()
        )
        result["training"] += rows
        keep(training_lines(rows))

    def grid() -> None:
        rate = grid_rate(device, int((1 << (18 if cuda else 13)) * min(1.0, options.scale)))
        result["grid_samples_per_second"] = rate
        keep([f"Zip-NeRF's grid: {rate / 1e6:.2f} M samples a second, features alone"])

    parts: dict[str, Callable[[], None]] = {"queries of NeRF": lambda: queries(0), "a picture": picture}
    parts |= {f"queries of {FAMILIES[i].name}": lambda i=i: queries(i) for i in (1, 3, 2)}  # type: ignore[misc]
    parts |= {f"training of {FAMILIES[i].name}": lambda i=i: training(i) for i in range(TRAINED)}  # type: ignore[misc]
    for what, measure in {**parts, "the grid": grid}.items():
        if time.perf_counter() - began > 60 * options.minutes:
            print(f"\nleft out, for {options.minutes:g} minutes are over: {what}")
            continue
        measure()
    print(f"all of it took {time.perf_counter() - began:.0f} s")
    if not sound:
        sys.exit("a plan or a collapse does not compute what it states: see FAIL above")


if __name__ == "__main__":
    main()
