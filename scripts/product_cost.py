#!/usr/bin/env python
"""What queries and training steps of degree 2 cost beside those of a narrower network of equal multiply-adds, in turns.

python scripts/product_cost.py --output docs/results/data/product_cost_cpu.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core import (
    EUGenConfig,
    LayerGraph,
    NeRFShape,
    Replacement,
    build_variant,
    make_plan,
    merged_for_training,
)
from eugen_nerf.core.choices import PLAN_DTYPES
from eugen_nerf.core.inference.onednn import has_fast_bfloat16
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.core.layers.projections import seeded_generator
from eugen_nerf.evaluation.costs.resources import environment

SHAPES = {
    "4 x 128": (NeRFShape(39, 27, 4, 128, (2,), 0, 1, 64), 96),
    "8 x 256": (NeRFShape(), 128),
    "8 x 1024": (NeRFShape(504, 27, 8, 1024, (5,), 256, 1, 128), 256),
}
"""Networks, and the features that stand for a layer's outputs: m in degree 1, m / 2 in degree 2."""
BASELINE = "narrower"
QUERIES = 1 << 16
STEP = 1 << 12
"""Points of a training step."""


def networks_of(shape: NeRFShape, features: int) -> dict[str, LayerGraph]:
    """A narrower network and EUGen networks of its multiply-adds, their weights random."""
    first = Replacement(num_features=(features,), eugen=EUGenConfig(norm=False))
    networks = {BASELINE: build_variant(shape, "narrow", first), "degree 1": build_variant(shape, "eugen", first)}
    for product in PRODUCTS:
        eugen = EUGenConfig(degree=2, phi="identity", norm=False, product=product)
        replacement = Replacement(num_features=(features // 2,), eugen=eugen)
        networks[f"degree 2, {product}"] = build_variant(shape, "eugen", replacement)
    return networks


def inputs_of(network: LayerGraph, count: int) -> list[Tensor]:
    """Encoded points, float32 `[count, d_i]`."""
    generator = seeded_generator(0, "queries")
    return [2 * torch.rand(count, width, generator=generator) - 1 for width in network.input_widths]


def query(network: LayerGraph, dtype: Any) -> Callable[[], object]:
    """A query of `QUERIES` points by the eager plan."""
    inputs = inputs_of(network, QUERIES)
    plan = make_plan(network, [x[:2048] for x in inputs], dtype=dtype)
    return lambda: plan(*inputs)


def step(network: LayerGraph) -> Callable[[], object]:
    """Forward and backward pass of `STEP` points, trained merged."""
    trained, inputs = merged_for_training(network), inputs_of(network, STEP)

    def run() -> None:
        trained.zero_grad(set_to_none=True)
        sum(y.square().mean() for y in trained(*inputs)).backward()

    return run


def shares(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Processor time over the baseline's of the same round: quartiles, and milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 2):
        for name, work in works.items():
            start = time.process_time()
            work()
            if turn >= 2:
                seconds[name].append(time.process_time() - start)
    rows = {}
    for name, own in seconds.items():
        low, middle, high = quantiles([a / b for a, b in zip(own, seconds[BASELINE], strict=True)], n=4)
        rows[name] = {"ratio": middle, "low": low, "high": high, "ms": 1e3 * quantiles(own, n=4)[1]}
    return rows


def main() -> None:
    """Times them, prints and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for shape_name, (shape, features) in SHAPES.items():
        networks = networks_of(shape, features)
        kinds: dict[str, dict[str, Callable[[], object]]] = {
            f"query, {dtype}": {name: query(network, dtype) for name, network in networks.items()}
            for dtype in PLAN_DTYPES
            if dtype == "float32" or has_fast_bfloat16(torch.device("cpu"))
        }
        kinds["training step"] = {name: step(network) for name, network in networks.items()}
        for kind, works in kinds.items():
            for name, figures in shares(works, arguments.rounds).items():
                spread = (figures["high"] - figures["low"]) / 2
                row = {"shape": shape_name, "network": name, "group": kind, **figures}
                row |= {"multiply_adds": networks[name].multiply_adds(), "mean": {"ratio": [figures["ratio"], spread]}}
                rows.append(row)
                print(f"{shape_name}, {kind}, {name}: {figures['ratio']:.2f} ({figures['low']:.2f} to "
                      f"{figures['high']:.2f}), {figures['ms']:.1f} ms", flush=True)  # fmt: skip
    content = {"environment": environment("cpu", list(PLAN_DTYPES)), "rows": rows}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
