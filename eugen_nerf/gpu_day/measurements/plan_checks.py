"""Part "networks": the card, and every network and plan against its float32 reference, before any figure."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import partial
from typing import Any

import torch

from eugen_nerf.benchmarks.network_speed import encoded_inputs, networks_of
from eugen_nerf.benchmarks.query_speed import measure_peaks
from eugen_nerf.core import LayerGraph, make_plan
from eugen_nerf.core.inference.fused import kernel_unavailable_reason
from eugen_nerf.core.inference.packing import unsupported_reason
from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.measurements.compiling import (
    DRY,
    CompileJob,
    compiling,
    jobs_of,
    left_out,
    wait_for,
    ways_of_plan,
)
from eugen_nerf.gpu_day.rows import RowLog

TOLERANCES = {"float32": 1e-3, "bfloat16": 0.15}
"""Largest deviation from float32 over the largest output, above which a plan is taken for broken."""
COLLAPSE_TOLERANCE = 1e-10
"""Of collapsed against uncollapsed networks in float64."""
COMPILING = 0.75
"""Share of the part's time that compiling may take."""
CARD = "name,driver_version,memory.total,power.limit,clocks.max.sm"
"""What nvidia-smi is queried for."""


def check_networks(day: Day, log: RowLog) -> None:
    """The card; what is compiled; each network of each family."""
    log.measure("device", partial(describe_device, day))
    with compiling(day, jobs_of(day)) as running:
        log.measure("compiling", lambda: wait_for(running, COMPILING * log.left, day))
    log.measure("peaks", lambda: {"peaks": {} if day.tiny else measure_peaks(day.target)})
    missing = left_out(day)
    for number, family in enumerate(day.families):
        for name in networks_of(family, torch.device("cpu")):
            log.measure(f"{family.name}: {name}", partial(check_network, day, number, name, missing))


def describe_device(day: Day) -> dict[str, Any]:
    """The card and its driver, and what runs on it."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if day.device == "cuda" else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    try:
        import triton
    except ImportError:
        found["triton"] = None
    else:
        found["triton"] = triton.__version__
    if shutil.which("nvidia-smi"):
        words = ["nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        found["nvidia_smi"] = dict(zip(CARD.split(","), done.stdout.strip().split(", "), strict=False))
    return found


def check_network(day: Day, number: int, name: str, missing: set[CompileJob]) -> dict[str, Any]:
    """One network: its collapse, and every plan that was compiled. `ok` is whether all of it holds."""
    family, device = day.families[number], day.target
    network = networks_of(family, device)[name]
    error = collapse_deviation(network, device)
    plans = []
    for backend, dtype in ways_of_plan(name, network, day):
        if CompileJob(number, name, backend, dtype) in missing or not checked(day, number, name, backend):
            continue
        statement, fits = check_plan(network, backend, dtype, device, rows=40 if day.tiny else 1000)
        plans.append({"plan": statement, "ok": fits})
    ok = error < COLLAPSE_TOLERANCE and all(plan["ok"] for plan in plans)
    reason = kernel_unavailable_reason(device) or unsupported_reason(network.collapse(), network.input_widths)
    return {"ok": ok, "collapse": error, "plans": plans, "no_kernel": reason}


def checked(day: Day, number: int, name: str, backend: str) -> bool:
    """Whether a way of running a network is checked: a gradient goes by no compiled plan, and a dry run takes one
    network by what is slow."""
    family = day.families[number]
    if day.tiny and backend != "eager":
        return number == DRY and name == ("dense" if backend == "compile" else f"EUGen m={family.features[-1]}")
    return backend != "compile" or not family.gradient


@torch.no_grad()
def collapse_deviation(network: LayerGraph, device: torch.device) -> float:
    """Largest difference between collapsed and uncollapsed outputs in float64, over the largest output."""
    graph = network.double().to(device)
    inputs = [x.double() for x in encoded_inputs(graph.input_widths, 2048, device)]
    values = graph.values(*inputs)
    names = [graph.names[v - len(graph.input_widths)] for v in graph.outputs]
    pairs = [(output, values[name]) for output, name in zip(graph(*inputs), names, strict=True)]
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    network.float()
    return error


@torch.no_grad()
def check_plan(
    network: LayerGraph, backend: str, dtype: str, device: torch.device, *, rows: int = 1000
) -> tuple[str, bool]:
    """The plan's statement, and whether its outputs are what it states on inputs of every form.

    A plan that fell back to another backend fails: what it was made for does not run.
    """
    inputs = encoded_inputs(network.input_widths, rows, device, seed=3)
    plan = make_plan(network, inputs, backend=backend, dtype=dtype)  # type: ignore[arg-type]
    expected = network(*inputs)
    largest = max(float(y.abs().max()) for y in expected)
    outputs, rounding = plan(*inputs), 1e-6 * largest + 1e-12
    fits = all(float((a - b).abs().max()) <= plan.deviation + rounding for a, b in zip(outputs, expected, strict=True))
    fits &= plan.deviation <= TOLERANCES[dtype] * largest and plan.backend == backend
    strided = plan(*(torch.stack([x, -x], dim=-1)[..., 0] for x in inputs))
    empty, single = plan(*(x[:0] for x in inputs)), plan(*(x[7] for x in inputs))
    for y, other, none, one in zip(outputs, strided, empty, single, strict=True):
        fits &= torch.equal(y, other) and none.shape == (0, y.shape[1])
        fits &= float((one - y[7]).abs().max()) <= plan.deviation + 1e-5 * largest
    # a part, as a coarse field is queried: its output alone
    needed = network.needed_inputs((0,))
    part = plan(*(inputs[i] for i in needed), outputs=(0,))[0]
    fits &= float((part - expected[0]).abs().max()) <= plan.part((0,)).deviation + rounding
    return str(plan), fits
