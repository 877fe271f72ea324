"""Times that can be compared: all candidates take turns in one process, and ratios are taken within a round.

A machine slows down and speeds up while it runs (heat, neighbours). Running all repeats of one candidate before the
next would credit that drift to one of them; it hardly changes a ratio of two times from the same round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

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
    return {name: statistics.median(values) for name, values in seconds.items()}


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
    reference = torch.tensor(seconds[baseline], dtype=torch.float64)
    result = {}
    for name, values in seconds.items():
        rounds = reference / torch.tensor(values, dtype=torch.float64)
        lower, median, upper = (float(torch.quantile(rounds, share)) for share in (0.25, 0.5, 0.75))
        result[name] = Ratio(median, lower, upper)
    return result
