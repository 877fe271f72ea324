"""Kernels and compiled networks, made side by side on all cores before anything is measured.

Compilers keep on disk what they make (`Day.environment` says where), so that the parts that follow find it there.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from eugen_nerf.benchmarks.network_speed import Family, encoded_inputs, networks_of
from eugen_nerf.benchmarks.training_speed import training_steps
from eugen_nerf.core import LayerGraph, make_plan
from eugen_nerf.core.choices import PLAN_DTYPES
from eugen_nerf.core.inference.fused import kernel_unavailable_reason
from eugen_nerf.core.inference.packing import unsupported_reason
from eugen_nerf.gpu_day.day import Day

TRAINED = 2
"""Families whose compiled training steps are measured."""
DRY = 2
"""The family whose kernel a dry run interprets: the smallest."""
Compiling = dict["CompileJob", Any]


class CompileJob(NamedTuple):
    """Something that takes long to compile: a plan, or a training step (`backend` is "training")."""

    family: int
    name: str
    backend: str
    dtype: str


def ways_of_plan(name: str, network: LayerGraph, day: Day) -> list[tuple[str, str]]:
    """Backends and dtypes that a network is run by."""
    fused = (
        kernel_unavailable_reason(day.target) is None
        and unsupported_reason(network.collapse(), network.input_widths) is None
    )
    ways: list[tuple[str, str]] = [("eager", dtype) for dtype in PLAN_DTYPES]
    if day.compiled:
        ways += [("compile", dtype) for dtype in PLAN_DTYPES]
    return ways + [("triton", dtype) for dtype in PLAN_DTYPES if fused]


def jobs_of(day: Day) -> list[CompileJob]:
    """All that is compiled later on, what is needed most first."""
    jobs = []
    for number, family in enumerate(day.families):
        for name, network in networks_of(family, torch.device("cpu")).items():
            ways = [way for way in ways_of_plan(name, network, day) if way[0] != "eager"]
            jobs += [CompileJob(number, name, *way) for way in ways if way[0] == "triton" or not family.gradient]
            if day.compiled and name in compiled_steps(family) and not family.gradient and number < TRAINED:
                jobs.append(CompileJob(number, name, "training", "float32"))
    if day.tiny:  # one of each kind
        small = [job for job in jobs if job.family == DRY or job.backend == "training"]
        jobs = list({(job.backend, job.dtype): job for job in reversed(small)}.values())
    order = ("triton", "training", "compile")

    def worth(job: CompileJob) -> tuple[Any, ...]:
        baseline = not job.name.startswith(("dense", "EUGen"))
        return day.families[job.family].gradient, order.index(job.backend), baseline, job.dtype == "float32"

    return sorted(jobs, key=worth)


def compiled_steps(family: Family) -> tuple[str, ...]:
    """Networks whose training steps are compiled: the dense one and EUGen's first."""
    return "dense", f"EUGen m={family.features[0]}"


@contextmanager
def compiling(day: Day, jobs: Sequence[CompileJob]) -> Iterator[Compiling]:
    """Within it, other processes compile the jobs; they are stopped at its end."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    workers = 1 if day.tiny else max(1, (os.cpu_count() or 2) - 1)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield {job: pool.apply_async(compile_job, (job, day)) for job in jobs}


def wait_for(running: Compiling, seconds: float, day: Day) -> dict[str, Any]:
    """Waits for the jobs, and notes for the parts that follow which ones are not there (`left_out`).

    Returns:
        How many there are, seconds of the slowest one, and those left out with their reasons.
    """
    end, left, slowest = time.monotonic() + seconds, {}, 0.0
    for job, result in running.items():
        try:
            slowest = max(slowest, result.get(timeout=max(0.0, end - time.monotonic())))
        except multiprocessing.TimeoutError:
            left[job] = "not compiled in time"
        except Exception as error:  # whatever a compiler raises: that one is left out
            left[job] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    (day.work / "left_out.json").write_text(json.dumps([list(job) for job in left]), encoding="utf8")
    reasons = {describe(job, day): reason for job, reason in left.items()}
    return {"compiled": len(running) - len(left), "of": len(running), "slowest": slowest, "left_out": reasons}


def left_out(day: Day) -> set[CompileJob]:
    """Jobs that were not compiled, as `wait_for` noted them; all where it was stopped before."""
    path = day.work / "left_out.json"
    if not path.is_file():
        return set(jobs_of(day))
    return {CompileJob(*job) for job in json.loads(path.read_text(encoding="utf8"))}


def left_out_of(family: int, missing: Collection[CompileJob]) -> set[tuple[str, str, str]]:
    """Those of one family, as `core.speed` takes them."""
    return {job[1:] for job in missing if job.family == family}


def describe(job: CompileJob, day: Day) -> str:
    """In words."""
    return f"{day.families[job.family].name}: {job.name}, {job.backend} {job.dtype}"


def compile_job(job: CompileJob, day: Day) -> float:
    """Seconds that it took; runs in a process of its own."""
    began, family, device = time.monotonic(), day.families[job.family], day.target
    if job.backend == "training":
        steps, _ = training_steps(family, device, scale=1e-6 if day.tiny else 1.0, compiled=(job.name,))
        steps[f"{job.name}, compiled"]()
        return time.monotonic() - began
    network = networks_of(family, device)[job.name]
    samples = encoded_inputs(network.input_widths, 256, device)
    with torch.no_grad():
        plan = make_plan(network, samples, backend=job.backend, dtype=job.dtype)  # type: ignore[arg-type]
        if plan.backend != job.backend:
            raise RuntimeError(plan.fallback)
        plan.part((0,))
    return time.monotonic() - began
