"""Times of contenders in turns, and the table of them: rates, ratios to the best dense network, shares of the peaks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from eugen_nerf.benchmarks.hardware import copy_bandwidth, matmul_peak
from eugen_nerf.benchmarks.network_speed import Family, Field, contenders_of, encoded_inputs
from eugen_nerf.core.timing import medians, speed_ratios, time_interleaved

WORK = {"cpu": 2e10, "cuda": 4e12}
"""Multiply-adds of the dense network in one timed call: enough that a call is no noise."""
MOST_QUERIES = 1 << 22
"""In one call: a gigabyte of inputs, well beyond any cache."""
PEAK_DTYPES = (torch.float32, torch.bfloat16)
Peaks = dict[str, float]


def measure_peaks(device: torch.device) -> Peaks:
    """FLOP/s of matrix products by dtype, and bytes/s of a copy (`copy`)."""
    peaks = {str(dtype).removeprefix("torch."): matmul_peak(device, dtype) for dtype in PEAK_DTYPES}
    return {**peaks, "copy": copy_bandwidth(device)}


def queries_for(macs: int, device: torch.device, scale: float = 1.0) -> int:
    """A power of two of queries, at most `MOST_QUERIES`, so that a call of the dense network makes about `scale` times
    `WORK` multiply-adds."""
    count = scale * WORK.get(device.type, WORK["cpu"]) / macs
    return min(MOST_QUERIES, 1 << max(8, int(count).bit_length() - 1))


def measure_family(
    family: Family,
    device: torch.device,
    peaks: Mapping[str, float],
    *,
    scale: float = 1.0,
    warmup: int = 1,
    repeats: int = 7,
    compiled: bool = True,
    left_out: Collection[tuple[str, str, str]] = (),
) -> list[dict[str, Any]]:
    """One row a contender, as plain data.

    Args:
        family: which.
        device: where.
        peaks: from `measure_peaks`.
        scale: of the number of queries.
        warmup: untimed rounds.
        repeats: timed rounds.
        compiled: whether torch.compile takes part.
        left_out: plans that do not, as (network, backend, dtype).
    """
    from eugen_nerf.core import build_nerf

    dense = build_nerf(family.shape)
    queries = queries_for(dense.multiply_adds(), device, scale)
    inputs = encoded_inputs(dense.input_widths, queries, device)
    field = contenders_of(family, inputs, compiled=compiled, left_out=left_out)
    rows = rows_of(field, peaks, device, warmup=warmup, repeats=repeats)
    rows[-1]["note"] = "; ".join([*field.notes, *([rows[-1]["note"]] if rows[-1]["note"] else [])]) or None
    return rows


def rows_of(
    field: Field, peaks: Mapping[str, float], device: torch.device, *, warmup: int, repeats: int
) -> list[dict[str, Any]]:
    """Times the contenders in turns and makes their rows; the best dense one is that of the shortest median time."""
    work = {c.name: c.work for c in field.contenders}
    seconds = time_interleaved(work, warmup=warmup, repeats=repeats, device=device)  # type: ignore[arg-type]
    middle = medians(seconds)
    best = min((c.name for c in field.contenders if c.dense), key=lambda name: middle[name])
    ratios = speed_ratios(seconds, best)
    rows = []
    for c in field.contenders:
        rate, gradient = field.queries / middle[c.name], field.family.gradient
        fastest = field.queries / min(seconds[c.name])  # the peaks are fastest ones too
        dtype = str(c.dtype).removeprefix("torch.")
        flops, traffic = c.flops(gradient), c.traffic(field.queries, gradient)
        ratio = asdict(ratios[c.name])
        rows.append(
            {
                "family": field.family.name,
                "name": c.name,
                "best_dense": c.name == best,
                "queries": field.queries,
                "queries_per_second": rate,
                "ratio": ratio["median"],
                "ratio_quartiles": [ratio["lower_quartile"], ratio["upper_quartile"]],
                "multiply_adds": c.network.multiply_adds(),
                "flops": flops,
                "bytes": traffic,
                "share_of_peak": fastest * flops / peaks.get(dtype, peaks["bfloat16"]),
                "share_of_copy": fastest * traffic / peaks["copy"],
                "dtype": dtype,
                "chunk": c.chunk,
                "deviation": c.deviation,
                "note": c.note,
                "seconds": seconds[c.name],
            }
        )
    return rows


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of one family as lines of text."""
    lines = [
        f"{rows[0]['family']}, {rows[0]['queries']:,} queries a call; ratio to the best dense row (*)",
        f"{'network':40}{'MACs':>11}{'kq/s':>10}{'ratio':>8}{'quartiles':>13}{'peak':>7}{'copy':>7}{'deviation':>11}",
    ]
    for row in rows:
        low, high = row["ratio_quartiles"]
        stated = "-" if row["deviation"] is None else f"{row['deviation']:.1e}"
        lines.append(
            f"{row['name'] + (' *' if row['best_dense'] else ''):40}{row['multiply_adds']:11,}"
            f"{row['queries_per_second'] / 1e3:10,.1f}{row['ratio']:7.2f}x{f'{low:.2f}-{high:.2f}':>13}"
            f"{row['share_of_peak']:7.0%}{row['share_of_copy']:7.0%}{stated:>11}"
        )
        if row["note"]:
            lines.append(f"  {row['note']}")
    return lines


def best_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The fastest row of each network, by the network's name."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        network = row["name"].rsplit(", ", 1)[0]
        if network not in best or row["queries_per_second"] > best[network]["queries_per_second"]:
            best[network] = row
    return best
