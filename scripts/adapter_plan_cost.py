#!/usr/bin/env python
"""What queries of networks cost by inference plans on this machine's WebGPU adapter, next to those on the processor.

python scripts/adapter_plan_cost.py --families "NeRF 8x256" --networks dense \
    --output docs/results/data/adapter_plans_cpu.json

Networks are those of `eugen-bench speed`, with random weights. Ways take turns, so that other work on the machine slows
all of them; "x" is the queries a second over those of the eager plan, of each round: median, least and most. The first
call of a plan, which compiles, comes before and is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from eugen_nerf.benchmarks.network_speed import FAMILIES, Family, encoded_inputs, networks_of
from eugen_nerf.benchmarks.query_speed import queries_for
from eugen_nerf.core import InferencePlan, LayerGraph, make_plan
from eugen_nerf.core.choices import Backend, PlanDtype
from eugen_nerf.core.timing import time_interleaved
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.web.native.adapters import choose_adapter

WAYS: tuple[tuple[Backend, PlanDtype], ...] = (("eager", "float32"), ("wgpu", "float32"), ("wgpu", "float16"))
"""The first one is what others are compared with."""
CPU = torch.device("cpu")


def main() -> None:
    """Measures networks one after another and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=[FAMILIES[0].name, FAMILIES[2].name])
    parser.add_argument("--networks", nargs="+", default=["dense", "EUGen"], help="how their names begin")
    parser.add_argument("--scale", type=float, default=0.05, help="of the number of queries, as of eugen-bench speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    adapter = choose_adapter()
    rows: list[dict[str, str]] = []
    report = {
        "queries": {"scale": options.scale, "rounds": options.rounds, "rows": rows},
        "adapter": {"name": adapter.name, "kind": adapter.kind, "api": adapter.api},
        "environment": environment("cpu", ["float32", "float16"]),
    }
    for family in FAMILIES:
        if family.name in options.families:
            for name, network in networks_of(family, CPU).items():
                if name.startswith(tuple(options.networks)):
                    rows += measure(family, name, network, options.scale, options.rounds)
                    options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(family: Family, name: str, network: LayerGraph, scale: float, rounds: int) -> list[dict[str, str]]:
    """One network's rows."""
    macs = network.multiply_adds()
    inputs = encoded_inputs(network.input_widths, queries_for(macs, CPU, scale), CPU)
    plans: dict[str, InferencePlan] = {}
    first: dict[str, float] = {}
    for backend, dtype in WAYS:
        start = time.perf_counter()
        plan = make_plan(network, [x[:1024] for x in inputs], backend=backend, dtype=dtype)
        assert plan.fallback is None, plan.fallback
        first[f"{backend} {dtype}"] = time.perf_counter() - start
        plans[f"{backend} {dtype}"] = plan

    seconds = time_interleaved(
        {way: lambda plan=plan: plan(*inputs) for way, plan in plans.items()},  # type: ignore[misc]
        warmup=1,
        repeats=rounds,
        device=CPU,
    )
    base, count = seconds[f"{WAYS[0][0]} {WAYS[0][1]}"], len(inputs[0])
    rows = []
    for way, taken in seconds.items():
        ratios = sorted(other / own for other, own in zip(base, taken, strict=True))
        rate = count / statistics.median(taken)
        row = {
            "network": f"{family.name}, {name}",
            "multiply-adds a query": f"{macs:,}",
            "plan": way,
            "made in, s": f"{first[way]:.1f}",
            "queries a second": f"{rate:,.0f}",
            "10^9 multiply-adds a second": f"{rate * macs / 1e9:.2f}",
            "x": f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            "deviation": f"{plans[way].deviation:.1e}",
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
