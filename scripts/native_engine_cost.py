#!/usr/bin/env python
"""What the engine of web pages costs in Python on this machine's adapter, next to PyTorch's plans on the processor.

python scripts/native_engine_cost.py --fields RUN/config.yml BUNDLE ... --names nerf demo ... \
    --output docs/results/data/native_engine_cpu.json

Pictures are of the first test view. Ways take turns, so that other work on the machine slows all of them; "x" is the
multiply-adds a second over those of PyTorch's plans, of each round: median, least and most. A round that compiles comes
first and is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from eugen_nerf.conversion.page_export import field_at
from eugen_nerf.core import plan_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.web.native.adapters import choose_adapter
from eugen_nerf.web.native.native_engine import NativeEngine
from eugen_nerf.web.scene_data import scene_data

PYTORCH = "PyTorch's plans"
FORMS = {"a tile a thread": False, "tiles shared by threads": True}
"""Of the engine: on software adapters its own choice, and what GPUs run."""


def main() -> None:
    """Measures fields one after another and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=Path, nargs="+", required=True, help="bundles, or config.yml of runs")
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--size", type=int, default=64, help="rows of a picture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    adapter = choose_adapter()
    rows: list[dict[str, str]] = []
    report = {
        "pictures": {"size": options.size, "rounds": options.rounds, "rows": rows},
        "adapter": {"name": adapter.name, "kind": adapter.kind, "api": adapter.api},
        "environment": environment("cpu", ["float32"]),
    }
    for name, path in zip(options.names, options.fields, strict=True):
        rows += measure(name, field_at(path), options.size, options.rounds)
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(name: str, field: BundledField, size: int, rounds: int) -> list[dict[str, str]]:
    """One field's rows."""
    camera = field.cameras[0].resized(size)
    data = scene_data(field)
    exact = field.render(camera).colour
    plan_bundle(field)
    products = counted_products(field, camera)
    first: dict[str, float] = {}
    images: dict[str, torch.Tensor] = {}
    seconds: dict[str, list[float]] = {PYTORCH: [], **{form: [] for form in FORMS}}
    with ExitStack() as opened:
        ways: dict[str, Callable[[], torch.Tensor]] = {PYTORCH: lambda: field.render(camera).colour}
        for form, tiles in FORMS.items():
            start = time.perf_counter()
            engine = opened.enter_context(NativeEngine(data, tiles=tiles))
            ways[form] = lambda engine=engine: engine.render(camera).pixels.colour
            images[form] = ways[form]()
            first[form] = time.perf_counter() - start
        for number in range(rounds + 1):
            for way, render in ways.items():
                start = time.perf_counter()
                images[way] = render()
                if number:
                    seconds[way].append(time.perf_counter() - start)
    rows = []
    for way, taken in seconds.items():
        ratios = sorted(base / own for base, own in zip(seconds[PYTORCH], taken, strict=True))
        row = {
            "field": name,
            "multiply-adds a query": f"{field.multiply_adds():,}",
            "way": way,
            "first picture, s": f"{first[way]:.1f}" if way in first else "",
            "10^9 multiply-adds a second": f"{products / statistics.median(taken) / 1e9:.2f}",
            "x": f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            "PSNR to PyTorch": f"{decibel(images[way], exact):.1f}",
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


@torch.no_grad()
def counted_products(field: BundledField, camera: PinholeCamera) -> int:
    """Multiply-adds of all networks, proposals too, for a picture as PyTorch renders it."""
    products = 0

    def count(network: BundledGraph, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal products
        products += inputs[0].shape[:-1].numel() * network.graph.multiply_adds()

    networks = [part for part in field.modules() if isinstance(part, BundledGraph)]
    hooks = [network.register_forward_pre_hook(count) for network in networks]
    field.render(camera)
    for hook in hooks:
        hook.remove()
    return products


def decibel(image: torch.Tensor, other: torch.Tensor) -> float:
    """PSNR of two images, dB; 120 at most."""
    error: Any = (image.double() - other.double()).square().mean().clamp_min(1e-12)
    return float(-10 * error.log10())


if __name__ == "__main__":
    main()
