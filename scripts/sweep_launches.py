#!/usr/bin/env python
"""What the fused kernel takes by rows, warps and tiles loaded ahead of a program: what `launch_of` chooses from.

    python scripts/sweep_launches.py [--output sweep.json]

Networks of NeRF (8 x 256) and Mip-NeRF 360 (8 x 1024) in bfloat16 on the CUDA device at hand, with torch alone. Kernels
are compiled side by side first; launches that do not compile or do not fit the device are named.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core.fused import Launch, launch_of, run_fused
from eugen_nerf.core.machine import matmul_peak
from eugen_nerf.core.packed import PackedNetwork, pack
from eugen_nerf.core.speed import FAMILIES, encoded_inputs, networks_of
from eugen_nerf.core.timing import medians, time_interleaved

NETWORKS = ((0, "dense"), (0, "EUGen m=128"), (0, "EUGen m=64"), (1, "EUGen m=256"), (1, "EUGen m=128"))
ALL = 1 << 10
"""A window of all tiles."""
SHAPES = ((64, 4), (128, 4), (128, 8), (256, 8), (256, 16))
LAUNCHES = tuple(Launch(rows, warps, window) for rows, warps in SHAPES for window in (1, 2, 3, ALL))
QUERIES = 1 << 21
SHARED = 227 << 10
"""Bytes of shared memory that a program can have at compute capability 9.0."""


def packed_network(family: int, name: str) -> PackedNetwork:
    """On the CUDA device, in bfloat16."""
    network = networks_of(FAMILIES[family], torch.device("cuda"))[name]
    return pack(network.collapse(), network.input_widths, "bfloat16")


def compile_one(family: int, name: str, launch: Launch) -> str | None:
    """Why it does not run, or None; in a process of its own."""
    with torch.no_grad():
        packed = packed_network(family, name)
        if launch.window == ALL and packed.weights.numel() * packed.weights.element_size() > SHARED:
            return "weights do not fit shared memory"
        try:
            run_fused(packed, *encoded_inputs(packed.input_widths, 300, torch.device("cuda")), launch=launch)
        except Exception as error:  # whatever a compiler or a driver raises: it is shown
            return str(error).strip().splitlines()[0][:90]
    return None


@torch.no_grad()
def measure(family: int, name: str, launches: Sequence[Launch], peak: float, repeats: int) -> list[dict[str, Any]]:
    """One row a launch, as plain data, the fastest first."""
    packed, device = packed_network(family, name), torch.device("cuda")
    inputs = encoded_inputs(packed.input_widths, QUERIES // (1 + family), device)
    macs = networks_of(FAMILIES[family], torch.device("cpu"))[name].multiply_adds()

    def run(launch: Launch) -> None:
        run_fused(packed, *inputs, launch=launch)

    runs = {str(tuple(launch)): lambda launch=launch: run(launch) for launch in launches}
    seconds = medians(time_interleaved(runs, warmup=2, repeats=repeats, device=device))  # type: ignore[arg-type]
    chosen = launch_of(packed, device)
    print(f"\n{FAMILIES[family].name}, {name}: {len(packed.tiles)} tiles; launch_of takes {tuple(chosen)}")
    rows = []
    for launch in sorted(seconds, key=lambda launch: seconds[launch]):
        rate = len(inputs[0]) / seconds[launch]
        share = 2 * macs * rate / peak
        print(f"  {launch:16} {rate / 1e6:8.1f} M queries a second {share:5.0%} of the peak", flush=True)
        found = {"family": FAMILIES[family].name, "name": name, "launch": launch}
        rows.append({**found, "queries_per_second": rate, "share_of_peak": share})
    return rows


def main() -> None:
    """Compiles, times, prints, and writes the figures where asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    options = parser.parse_args()
    work = [(family, name, launch) for family, name in NETWORKS for launch in LAUNCHES]
    with multiprocessing.get_context("spawn").Pool(max(1, (os.cpu_count() or 2) - 1)) as pool:
        problems = dict(zip(work, pool.starmap(compile_one, work, chunksize=1), strict=True))
    peak, rows = matmul_peak(torch.device("cuda"), torch.bfloat16), []
    print(f"{torch.cuda.get_device_name()}, {QUERIES:,} queries, products in bfloat16 reach {peak / 1e12:.0f} TFLOP/s")
    for family, name in NETWORKS:
        sound = [launch for launch in LAUNCHES if problems[family, name, launch] is None]
        rows += measure(family, name, sound, peak, options.repeats)
    for (family, name, launch), problem in problems.items():
        if problem is not None:
            print(f"{FAMILIES[family].name}, {name}, {tuple(launch)}: {problem}")
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
