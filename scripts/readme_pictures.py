#!/usr/bin/env python
"""Makes two pictures: eugen-view as an animation, for README, and conversions as a chart, for their page.

    python scripts/readme_pictures.py --runs DENSE/config.yml EUGEN/config.yml    # docs/images/view.webp, results.png
    python scripts/readme_pictures.py                                             # docs/images/results.png alone

`make demo` trains the runs. The animation needs the packages of `pip install -e ".[dev]"` and an installed Chromium;
the chart is drawn from the result files in docs/results/data.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from view_screenshots import GL, SIZE, drag, rest, served, turn

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 2_000_000
"""Bytes of the animation."""
TABLES = ("README.md", "docs/results/conversion.md")
"""The pages whose tables say which result files the chart shows."""
COMPARED = {"psnr_lost", "psnr_from_to", "query_speed_ratio"}
"""Columns of which a table has one where it sets rows against a dense twin; tables that choose rates have none."""
MUON = (
    "demo_cpu",
    "distill_scene_muon_cpu",
    "elastic_scene_cpu",
    "fox_zipnerf_seed_cpu",
    "lego_small_cpu",
    "lego_trained_cpu",
)
"""Result files whose networks Muon trained; Adam trained the others."""
KINDS = {
    "closed form": ("o", r"(drop|macs|rows)-[\d.]+(-readers|-deformation)?"),
    "closed form, calibrated": ("s", r"(macs|speedup)-[\d.]+-calibrated|distilled"),
    "low rank or pruned": ("x", r"(aware|svd|compensated|pruned|random)-\d+"),
    "one run of every width": ("v", r"elastic(-\d+)?( [\d.]+)?"),
    "EUGen from scratch": ("^", r"eugen(-deformation)?|harmonic"),
    "narrower from scratch": ("D", r"narrow(-time|-third)?"),
    "narrower, in a calibration's time": ("d", r"narrow(-third)?-short|short-\de-\d"),
}
"""Mark of each kind of row, and the names of its variants without their seeds."""
LEFT_OUT = r"dense|trained-on|mean-image|white"
"""Rows that replace nothing: teachers, and images that know nothing of the scene."""


@dataclass(frozen=True)
class Point:
    """One row of a result file against the dense twin of its seed."""

    kind: str
    muon: bool
    psnr: float
    """In dB; below 0 where the twin is better."""
    macs_ratio: float
    """Multiply-adds of the twin over the row's own."""
    speed_ratio: float | None
    """Of field queries; None where the file has no dense network to be timed beside."""


def animation(runs: list[str], path: Path) -> None:
    """Drags the split over the two runs, then turns the camera; writes animated WebP under `LIMIT` bytes."""
    from playwright.sync_api import sync_playwright

    frames: list[Image.Image] = []

    def keep(page: Any, pause: float) -> None:
        time.sleep(pause)
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        frames.append(shot.resize((shot.width * 4 // 5, shot.height * 4 // 5), Image.Resampling.LANCZOS))

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=GL)
        with served(["--load-config", *runs, "--names", "dense", "eugen", "--max-size", "256"]) as address:
            page = browser.new_page(viewport=SIZE)
            page.goto(address)
            rest(page)
            page.get_by_role("button", name="Go to test view").click()
            rest(page)
            for across in (0, -12, -12, -12, 12, 12, 12, 12, 12, 12, -12, -12, -12):
                if across:
                    drag(page, "Split position", across)
                keep(page, 3.0)
            for _ in range(10):
                turn(page, 36, 0)
                rest(page)
                keep(page, 0.0)
        browser.close()
    save_animation(frames, path)


def save_animation(frames: list[Image.Image], path: Path) -> None:
    """Writes images as animated WebP under `LIMIT` bytes; the first and the last stay longer."""
    durations = [900] + [220] * (len(frames) - 2) + [900]
    for quality in (80, 65, 50, 35):
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=quality, method=6
        )
        if path.stat().st_size < LIMIT:
            return
    raise SystemExit(f"{path} has {path.stat().st_size:,} bytes, more than {LIMIT:,}: take fewer frames")


def points() -> list[Point]:
    """Every row of the result files behind the tables of `TABLES` that compare, but for those `LEFT_OUT`.

    Raises:
        SystemExit: a row whose kind is not known, so that none is left out unnoticed.
    """
    tables = yaml.safe_load((ROOT / "docs" / "results" / "tables.yml").read_text(encoding="utf8"))
    tables = [table for table in tables if table["document"] in TABLES and COMPARED & set(table.get("columns", ()))]
    cited = [row["report"] for table in tables for row in table["rows"]]
    together: dict[str, list[str]] = {}  # a file's dense twins may stand in another, which its table names beside it
    for reports in ([report] if isinstance(report, str) else report for report in cited):
        for report in reports:
            together[report] = max(together.get(report, []), reports, key=len)
    found = []
    for report, reports in together.items():
        contents = {name: json.loads((ROOT / name).read_text(encoding="utf8")) for name in reports}
        rows = {row["variant"]: row for content in contents.values() for row in content["rows"]}
        baselines = [content["protocol"]["baseline"] for content in contents.values()]
        (baseline, *_) = (name for name in baselines if name.startswith("dense"))
        timed = contents[report]["protocol"]["baseline"].startswith("dense")
        for row in contents[report]["rows"]:
            name, seed = re.fullmatch(r"(.*?)(-s\d+)?", row["variant"]).groups("")
            if re.fullmatch(LEFT_OUT, name):
                continue
            kind = next((kind for kind, (_, names) in KINDS.items() if re.fullmatch(names, name)), None)
            if kind is None:
                raise SystemExit(f"{report}: {name!r} is of no kind: add it to KINDS or LEFT_OUT in {__file__}")
            twin = rows.get(f"dense{seed}", rows[baseline])
            ratio = twin["macs_per_query"] / row["macs_per_query"]
            speed = row["query_speed_ratio"] if timed else None
            found.append(Point(kind, Path(report).stem in MUON, row["psnr"] - twin["psnr"], ratio, speed))
    return found


def chart(path: Path) -> None:
    """PSNR against the dense twin over multiply-adds and over the speed of field queries, from the result files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    shown = points()
    figure, panels = pyplot.subplots(1, 2, figsize=(8.2, 4.6), dpi=110, layout="constrained", sharey=True)
    for axes, key in zip(panels, ("macs_ratio", "speed_ratio"), strict=True):
        for kind, (mark, _) in KINDS.items():
            for muon in (False, True):
                of = [p for p in shown if (p.kind, p.muon) == (kind, muon) and getattr(p, key) is not None]
                x = [getattr(p, key) for p in of]
                axes.scatter(x, [p.psnr for p in of], marker=mark, s=26, **_colours(mark, muon))
        axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 4, 8])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([2, 1, 0, -1, -2, -4, -8, -16], labels=["+2", "+1", "0", "-1", "-2", "-4", "-8", "-16"])
    panels[0].set(xlabel="times fewer multiply-adds a query", ylabel="PSNR against the dense twin, dB")
    panels[1].set(xlabel="times as fast a query")
    for kind, (mark, _) in KINDS.items():
        panels[0].scatter([], [], marker=mark, s=26, label=kind, **_colours(mark, None))
    for name, muon in (("trained by Adam", False), ("trained by Muon", True)):
        panels[0].scatter([], [], marker="o", s=26, label=name, **_colours("o", muon))
    figure.legend(fontsize=8, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def _colours(mark: str, muon: bool | None) -> dict[str, Any]:
    """Of marks of networks that Muon trained, that Adam trained, or of either; short trainings have hollow ones."""
    colour = {None: "0.35", False: "tab:blue", True: "tab:red"}[muon]
    if mark == "x":  # has no face to fill
        return {"color": colour, "alpha": 0.75}
    return {"facecolors": "none" if mark == "d" else colour, "edgecolors": colour, "alpha": 0.75}


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs=2, help="config.yml of a dense run and of an EUGen run of one scene")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    chart(given.output / "results.png")
    if given.runs:
        animation(given.runs, given.output / "view.webp")


if __name__ == "__main__":
    main()
