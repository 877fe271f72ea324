#!/usr/bin/env python
"""The narrower network that takes the time of an EUGen network: what `--pipeline.model.network.num-features` makes the
variant `narrow` cost as much a query as EUGen of m features, measured in turns in one process.

    python scripts/equal_time.py eugen-nerf-small --num-features 96
    python scripts/equal_time.py eugen-nerf --num-features 128 --set position_frequencies=8 position_max_exponent=6
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods

from eugen_nerf.core import LayerGraph, build_variant
from eugen_nerf.core.timing import speed_ratios, time_interleaved
from eugen_nerf.fields.graph_field import GraphFieldConfig

QUERIES = 1 << 14


def network_of(config: GraphFieldConfig, variant: str, num_features: int) -> LayerGraph:
    """A network as the field of this configuration has it."""
    replacement = replace(config.replacement(), num_features=(num_features,))
    return build_variant(config.shape(), variant, replacement).eval()


def query(network: LayerGraph) -> Callable[[], None]:
    """A query of the collapsed network on random inputs."""
    collapsed, generator = network.collapse(), torch.Generator().manual_seed(0)
    inputs = [torch.randn(QUERIES, width, generator=generator) for width in network.input_widths]

    def run() -> None:
        with torch.no_grad():
            collapsed(*inputs)

    return run


def main() -> None:
    """Times the networks and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="one of this project's methods")
    parser.add_argument("--num-features", type=int, required=True, help="m of the EUGen network")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of the network, NAME=NUMBER")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config: Any = all_methods[arguments.method].pipeline.model.network  # type: ignore[attr-defined]
    own = {
        name: type(getattr(config, name))(float(value)) for name, _, value in (s.partition("=") for s in arguments.set)
    }
    config = replace(config, **own)
    m = arguments.num_features
    networks = {f"EUGen, m = {m}": network_of(config, "eugen", m)}
    step = max(1, m // 24)
    for size in range(m - 6 * step, m + 3 * step, step):
        networks[f"narrow, num-features {size}"] = network_of(config, "narrow", size)
    first, *others = networks
    queries = {name: query(network) for name, network in networks.items()}
    ratios = speed_ratios(time_interleaved(queries, warmup=2, repeats=arguments.rounds, device="cpu"), first)
    for name, network in networks.items():
        print(f"{name}: {network.multiply_adds():,} multiply-adds, {ratios[name].median:.2f} times as fast")
    fast_enough = [name for name in others if ratios[name].median >= 1.0]
    best = max(fast_enough, key=lambda name: networks[name].multiply_adds(), default=None)
    print(f"of equal time: {best or 'none of these; widen the range'}")


if __name__ == "__main__":
    main()
