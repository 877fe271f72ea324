#!/usr/bin/env python
"""Draws docs/images/front.png: PSNR over the measured time of a query, for networks trained from scratch by Muon.

    python scripts/front_picture.py

One panel a scene and method, from the result files in docs/results/data. Times are against EUGen's of the same round of
the same comparison, so that files of different processors and days stand in one panel.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.evaluation.statistics.seeds import name_and_seed

ROOT = Path(__file__).resolve().parent.parent
PANELS = {
    "demo's scene, 4 x 128": ("scene_muon_cpu",),
    "lego, 4 x 128": ("lego_small_cpu", "lego_small_seeds_cpu"),
    "lego, 8 x 256": ("lego_trained_cpu", "lego_trained_seed_cpu"),
    "dynamic lego, 4 x 128 twice": ("dnerf_lego_tiny_muon_cpu", "dnerf_lego_tiny_seed_cpu"),
    "fox, Mip-NeRF 360": ("fox_mipnerf360_muon_cpu", "fox_mipnerf360_seed_cpu", "fox_mipnerf360_seed_2_cpu"),
    "garden, Mip-NeRF 360": ("garden_mipnerf360_muon_cpu",),
    "fox, Zip-NeRF": ("fox_zipnerf_muon_cpu", "fox_zipnerf_seed_cpu", "fox_zipnerf_seed_2_cpu"),
    "garden, Zip-NeRF": ("garden_zipnerf_muon_cpu",),
}
"""Titles, and the result files of a panel."""
KINDS = {
    "dense": ("dense", "s", "0.35"),
    "eugen": ("EUGen, degree 1", "^", "tab:red"),
    "harmonic": ("EUGen, degree 2, harmonic", "v", "tab:orange"),
    "narrow": ("narrower, of EUGen's multiply-adds", "D", "tab:blue"),
    "narrow-time": ("narrower, meant to have EUGen's time", "d", "tab:cyan"),
}
"""Variants without their seeds: what they are, mark and colour."""
REFERENCE = "eugen"


@dataclass(frozen=True)
class Mark:
    """One kind of network in one panel."""

    kind: str
    psnr: tuple[float, ...]
    """Of each seed, in dB."""
    times: tuple[float, ...]
    """Of a query, EUGen's is 1: of each round of each comparison."""


def marks(files: Iterable[str]) -> list[Mark]:
    """What a panel shows, in the order of `KINDS`.

    Raises:
        SystemExit: a seed without EUGen, which the others are timed against.
    """
    psnr: dict[str, list[float]] = {kind: [] for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for name in files:
        path = ROOT / "docs" / "results" / "data" / f"{name}.json"
        rows = json.loads(path.read_text(encoding="utf8"))["rows"]
        named = [(*name_and_seed(row), row) for row in rows]
        references = {seed: row for kind, seed, row in named if kind == REFERENCE}
        for kind, seed, row in named:
            if kind not in KINDS:
                continue
            if seed not in references:
                raise SystemExit(f"{path}: {row['variant']!r} has no run {REFERENCE!r} of its seed to be timed against")
            psnr[kind].append(row["psnr"])
            rounds = zip(row["query_seconds"], references[seed]["query_seconds"], strict=True)
            times[kind] += [own / reference for own, reference in rounds]
    return [Mark(kind, tuple(psnr[kind]), tuple(times[kind])) for kind in KINDS if psnr[kind]]


def draw(path: Path) -> None:
    """Means, with the standard deviation over seeds upwards and over rounds sideways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axes = pyplot.subplots(2, 4, figsize=(10.4, 5.0), dpi=110, layout="constrained")
    for panel, (title, files) in zip(axes.flat, PANELS.items(), strict=True):
        shown = marks(files)
        for mark in shown:
            _, shape, colour = KINDS[mark.kind]
            panel.errorbar(
                statistics.median(mark.times),
                statistics.fmean(mark.psnr),
                xerr=_spread(mark.times) if mark.kind != REFERENCE else None,
                yerr=_spread(mark.psnr),
                **_style(shape, colour),
            )
        seeds = len(next(mark for mark in shown if mark.kind == REFERENCE).psnr)
        panel.set_title(f"{title}\n{seeds} seed{'s' * (seeds > 1)}", fontsize=8)
        panel.set_xscale("log")
        panel.set_xlim(0.75, 4.2)
        panel.set_xticks([1, 2, 4])
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(y=0.15)
        panel.tick_params(labelsize=7)
        panel.grid(color="0.9", linewidth=0.6)
        panel.set_axisbelow(True)
    figure.supxlabel("time of a query, EUGen of degree 1 has 1", fontsize=9)
    figure.supylabel("PSNR of test views, dB", fontsize=9)
    for label, shape, colour in KINDS.values():
        axes.flat[0].errorbar([], [], label=label, **_style(shape, colour))
    figure.legend(fontsize=8, loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(path)


def _spread(values: tuple[float, ...]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _style(shape: str, colour: str) -> dict[str, Any]:
    return {"fmt": shape, "color": colour, "markersize": 5, "elinewidth": 1, "capsize": 2}


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "front.png")
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
