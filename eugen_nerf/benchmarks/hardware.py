"""What a machine can do at most, measured: matrix products and copies, to hold the speed of networks against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from eugen_nerf.core.inference.onednn import has_onednn
from eugen_nerf.core.timing import synchronise

SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
"""Sides of the square matrices that are multiplied."""
COPIED = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Bytes that are copied: more than any cache holds."""


@torch.no_grad()
def matmul_peak(device: torch.device, dtype: torch.dtype, *, repeats: int = 12) -> float:
    """Highest rate of square matrix products met here, FLOP/s (a multiply-add is two).

    Args:
        device: where.
        dtype: of the matrices; TF32 is used for float32 where torch is set to.
        repeats: products of each size; the fastest counts.
    """
    best = 0.0
    for side in SIDES.get(device.type, SIDES["cpu"]):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        ways: list[Callable[[], object]] = [lambda a=a, b=b: a @ b]  # type: ignore[misc]
        if has_onednn(device, dtype):
            ways.append(lambda a=a, b=b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))  # type: ignore[misc]
        for way in ways:
            best = max(best, 2 * side**3 / _fastest(way, device, repeats))
    return best


@torch.no_grad()
def copy_bandwidth(device: torch.device, *, repeats: int = 8) -> float:
    """Highest rate of a large copy within the device's memory, bytes/s, read and written bytes both counted.

    Args:
        device: where.
        repeats: copies; the fastest counts.
    """
    size = COPIED.get(device.type, COPIED["cpu"])
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device, repeats)


def _fastest(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):  # the first ones allocate and choose an algorithm
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)
