"""Times that can be compared: the contenders take turns in one process, and ratios are taken within a round.

A machine slows down and speeds up while it runs (heat, neighbours). Running all repeats of one contender before the
next would credit that drift to one of them; a ratio of two times from the same round hardly feels it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from torch import nn

from eugen_nerf.core.errors import ConfigError


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline: the median of the per-round ratios and their quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float


def synchronise(device: str | torch.device) -> None:
    """Wait for the work queued on a CUDA device; on other devices calls have finished when they return."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def time_interleaved(
    callables: Mapping[str, Callable[[], None]], *, warmup: int, repeats: int, device: str | torch.device
) -> dict[str, list[float]]:
    """Time callables in turns: A B C A B C ...

    Args:
        callables: what to time, by name; each is called ``warmup + repeats`` times.
        warmup: untimed rounds before.
        repeats: timed rounds.
        device: where they work; a CUDA device is synchronised before and after each call.

    Returns:
        Seconds of each timed call by name, in the order of the rounds.
    """
    if warmup < 0 or repeats < 1:
        raise ConfigError(f"warmup must be at least 0 and repeats at least 1, not {warmup} and {repeats}")
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for turn in range(warmup + repeats):
        for name, function in callables.items():
            synchronise(device)
            start = time.perf_counter()
            function()
            synchronise(device)
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                seconds[name].append(elapsed)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of each name."""
    return {name: float(np.median(values)) for name, values in seconds.items()}


def speed_ratios(seconds: Mapping[str, list[float]], baseline: str) -> dict[str, Ratio]:
    """Baseline time over own time, round by round: above 1 is faster than the baseline.

    Args:
        seconds: as `time_interleaved` returns them.
        baseline: the name that every other is compared with; its own ratio is 1.

    Raises:
        ConfigError: no such name.
    """
    if baseline not in seconds:
        raise ConfigError(f"no baseline {baseline!r}: choose one of {', '.join(seconds)}")
    reference = np.asarray(seconds[baseline])
    result = {}
    for name, values in seconds.items():
        rounds = reference / np.asarray(values)
        lower, median, upper = (float(value) for value in np.quantile(rounds, [0.25, 0.5, 0.75]))
        result[name] = Ratio(median, lower, upper)
    return result


def random_queries(num_queries: int, *, seed: int, device: str | torch.device) -> RaySamples:
    """Random points, view directions and times as a field takes them, the same for every field, device and call.

    Positions are uniform in [-1, 1]^3, directions uniform on the sphere, times uniform in [0, 1]. Each point is the
    middle of a frustum 2e-3 long and about that wide, so that fields that integrate over a frustum get a proper one.

    Returns:
        RaySamples of shape [num_queries, 1], float32, with camera index 0.
    """
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(num_queries, 1, 3, generator=generator) * 2 - 1
    directions = nn.functional.normalize(torch.randn(num_queries, 1, 3, generator=generator), dim=-1)
    times = torch.rand(num_queries, 1, 1, generator=generator)
    ones = torch.ones(num_queries, 1, 1)
    samples = RaySamples(
        frustums=Frustums(
            origins=positions - directions,
            directions=directions,
            starts=ones - 1e-3,
            ends=ones + 1e-3,
            pixel_area=ones * 1e-6,
        ),
        camera_indices=torch.zeros(num_queries, 1, 1, dtype=torch.long),
        deltas=ones * 2e-3,
        times=times,
    )
    return samples.to(device)


def field_query_callable(
    field: nn.Module, num_queries: int, seed: int, device: str | torch.device, *, chunk_size: int = 4096
) -> Callable[[], None]:
    """A function that evaluates density and colour of a field at ``num_queries`` random points.

    Args:
        field: a nerfstudio field, or what stands for one, in evaluation mode.
        num_queries: points a call.
        seed: of the points.
        device: where the field is.
        chunk_size: points evaluated at once; compare fields only at the same size.
    """
    samples = random_queries(num_queries, seed=seed, device=device)
    chunks = [samples[start : start + chunk_size] for start in range(0, num_queries, chunk_size)]

    def query() -> None:
        with torch.inference_mode():
            for chunk in chunks:
                field(chunk)

    return query
