#!/usr/bin/env python
"""Correctness and speed of collapsed networks on the device at hand, with torch alone (no nerfstudio).

    python scripts/gpu_check.py [--device cuda] [--queries 1048576]

Prints, for the networks of NeRF (8 x 256), Mip-NeRF 360 (8 x 1024) and Zip-NeRF (its head), how far collapsed outputs
are from uncollapsed ones, and the time of a field query against the dense twin: the same code path, dtype and chunk,
timed in turns. For Zip-NeRF's full-size grid it prints the time of the features that the network reads, for the share
that a cheaper network cannot save.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core import EUGenConfig, LayerGraph, NeRFShape, Replacement, build_variant, count_parameters
from eugen_nerf.core.hashgrid import HashGrid, pyramid

MIP = NeRFShape(504, 27, 8, 1024, (5,), bottleneck_width=256, head_layers=1, head_width=128)
ZIP = NeRFShape(50, 27, 1, 64, (), bottleneck_width=256, head_layers=2, head_width=256)


def nerf_networks() -> dict[str, LayerGraph]:
    """NeRF's dense network and its variants."""
    found = {"dense": build_variant(NeRFShape(), "dense", Replacement())}
    for m in (256, 128, 64):
        for norm in (False, True):
            eugen = EUGenConfig(norm=norm)
            name = f"eugen {m}{' norm' if norm else ''}"
            found[name] = build_variant(NeRFShape(), "eugen", Replacement(num_features=(m,), eugen=eugen))
    paper = Replacement(("trunk_[567]",), (256,), EUGenConfig(norm=True))
    found["eugen-nerf-paper"] = build_variant(NeRFShape(), "eugen", paper)
    for peer in ("lowrank", "narrow"):
        found[f"{peer} ~ eugen 64"] = build_variant(
            NeRFShape(), peer, Replacement(num_features=(64,), eugen=EUGenConfig(norm=False))
        )
    return found


def unbounded_networks(shape: NeRFShape, layers: tuple[str, ...], counts: tuple[int, ...]) -> dict[str, LayerGraph]:
    """The dense network of Mip-NeRF 360 or Zip-NeRF, and EUGen networks of `counts` features in `layers`."""
    found = {"dense": build_variant(shape, "dense", Replacement())}
    for m in counts:
        replacement = Replacement(layers, (m,), EUGenConfig(norm=False))
        found[f"eugen {m}"] = build_variant(shape, "eugen", replacement)
    return found


@torch.no_grad()
def grid_seconds(device: str, samples: int) -> float:
    """Median time of Zip-NeRF's grid features (10 levels, 2^21 rows, 6 points a sample) for so many samples."""
    grid = HashGrid(pyramid(16, 8192), 4, 21).to(device)
    points, widths = torch.rand(samples, 6, 3, device=device), torch.rand(samples, 6, device=device) * 1e-2
    times = []
    for _ in range(6):
        if points.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for part, width in zip(points.split(1 << 16), widths.split(1 << 16), strict=True):
            grid(part, width)
        if points.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@torch.no_grad()
def deviation(network: LayerGraph, device: str) -> float:
    """Largest difference between collapsed and uncollapsed outputs in float64, over the largest output."""
    double = network.double().to(device)
    inputs = [torch.randn(4096, width, dtype=torch.float64, device=device) for width in network.input_widths]
    values = double.values(*inputs)
    pairs = [(collapsed, values[name]) for collapsed, name in zip(double(*inputs), ("density", "rgb"), strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def seconds(network: LayerGraph, inputs: list[torch.Tensor], chunk: int, *, train: bool) -> float:
    """Time of one pass over the inputs, chunk by chunk; with `train`, backward pass included."""
    cuda = inputs[0].is_cuda
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(train):
        for parts in zip(*(x.split(chunk) for x in inputs), strict=True):
            outputs = network(*parts)
            if train:
                sum(x.square().mean() for x in outputs).backward()  # type: ignore[union-attr]
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(networks: dict[str, LayerGraph], inputs: list[torch.Tensor], chunk: int, repeats: int, train: bool) -> None:
    """Prints a table of times taken in turns, and the ratios within a round to the first network."""
    times: dict[str, list[float]] = {key: [] for key in networks}
    for repeat in range(repeats + 2):
        for key, network in networks.items():
            elapsed = seconds(network, inputs, chunk, train=train)
            if repeat >= 2:  # the first rounds warm up
                times[key].append(elapsed)
    what = "training steps (forward and backward)" if train else "queries"
    print(f"\n{what}, {inputs[0].dtype}, chunks of {chunk}")
    print(f"{'network':20}{'parameters':>12}{'MACs':>11}{'Mq/s':>9}{'ratio':>9}{'quartiles':>13}")
    baseline = times[next(iter(networks))]
    for key, network in networks.items():
        ratios = [d / t for d, t in zip(baseline, times[key], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        speed = len(inputs[0]) / statistics.median(times[key]) / 1e6
        size, macs = count_parameters(network), network.multiply_adds()
        print(f"{key:20}{size:12,}{macs:11,}{speed:9.2f}{middle:8.2f}x{f'{low:.2f}-{high:.2f}':>13}")


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--queries", type=int, default=1 << (20 if torch.cuda.is_available() else 15))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    device, cuda = options.device, options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.queries} queries, {options.repeats} rounds in turns")
    families = {
        "NeRF": nerf_networks(),
        "Mip-NeRF 360": unbounded_networks(MIP, ("trunk_.*",), (1024, 512, 256)),
        "Zip-NeRF": unbounded_networks(ZIP, ("head_.*",), (128, 64, 32)),
    }
    for family, built in families.items():
        print(f"\n{family}")
        for key, network in built.items():
            error = deviation(network, device)
            print(f"{key:20} collapsed against uncollapsed, float64: {error:.1e}")
            if not error < 1e-10:
                sys.exit(f"{key}: collapsed outputs differ")
        # the widest network's activations decide the chunk
        chunk = min(options.queries, 1 << (16 if family == "Mip-NeRF 360" else 18)) if cuda else 4096
        for dtype in (torch.float32, torch.bfloat16):
            inputs = [torch.randn(options.queries, w, device=device).to(dtype) for w in built["dense"].input_widths]
            cast = {key: network.to(device=device, dtype=dtype) for key, network in built.items()}
            compare(cast, inputs, chunk, options.repeats, train=False)
            if dtype == torch.float32:
                compare(cast, inputs, chunk, options.repeats, train=True)
    taken = grid_seconds(device, min(options.queries, 1 << 18))
    print(f"\nZip-NeRF's grid: {min(options.queries, 1 << 18) / taken / 1e6:.2f} M samples a second, features alone")


if __name__ == "__main__":
    main()
