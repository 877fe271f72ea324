#!/usr/bin/env python
"""Makes README's two pictures: eugen-view as an animation, and results as a chart.

    python scripts/readme_pictures.py --runs DENSE/config.yml EUGEN/config.yml    # docs/images/view.webp, results.png
    python scripts/readme_pictures.py                                             # docs/images/results.png alone

`make demo` trains the runs. The animation needs the packages of `pip install -e ".[dev]"` and an installed Chromium;
the chart is drawn from the result files in docs/results/data.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

from PIL import Image
from view_screenshots import GL, SIZE, drag, rest, served, turn

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "results" / "data"
LIMIT = 2_000_000
"""Bytes of the animation."""
CHART = {
    "NeRF 8 x 256, lego": ("distill_lego_cpu", "dense-s42", ("drop-0.1-s42", "drop-0.3-s42", "macs-20-calibrated-s42")),
    "NeRF 4 x 128 by Muon, lego": ("lego_small_cpu", "dense-s0", ("eugen-s0", "macs-50-calibrated-s0")),
    "Mip-NeRF 360, garden": ("garden_mipnerf360_cpu", "dense", ("eugen",)),
    "Mip-NeRF 360, garden, converted": ("distill_garden_mipnerf360_cpu", "dense", ("drop-0.3",)),
    "Zip-NeRF, garden": ("garden_zipnerf_cpu", "dense", ("eugen",)),
    "Zip-NeRF, garden, converted": ("distill_garden_zipnerf_cpu", "dense", ("drop-0.1",)),
    "D-NeRF, dynamic lego": ("dnerf_lego_tiny_cpu", "dense", ("eugen", "drop-0.2")),
}
"""Result file, dense twin and variants of each scene; those called eugen were trained from the start."""


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
    durations = [900] + [220] * (len(frames) - 2) + [900]
    for quality in (80, 65, 50, 35):
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=quality, method=6
        )
        if path.stat().st_size < LIMIT:
            return
    raise SystemExit(f"{path} has {path.stat().st_size:,} bytes, more than {LIMIT:,}: take fewer frames")


def chart(path: Path) -> None:
    """PSNR against the dense twin over the speed of field queries, from the result files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.6, 3.6), dpi=110, layout="constrained")
    colours: dict[str, str] = {}
    for title, (file, dense, variants) in CHART.items():
        rows = {row["variant"]: row for row in json.loads((DATA / f"{file}.json").read_text(encoding="utf8"))["rows"]}
        scene = title.removesuffix(", converted")
        colour = colours.setdefault(scene, f"C{len(colours)}")
        for key in variants:
            lost = rows[key]["psnr"] - rows[dense]["psnr"]
            marker = "^" if key.startswith("eugen") else "o"
            axes.scatter(rows[key]["query_speed_ratio"], lost, color=colour, marker=marker, s=46)
    for scene, colour in colours.items():
        axes.scatter([], [], color=colour, label=scene)
    axes.scatter([], [], color="0.4", marker="o", label="converted")
    axes.scatter([], [], color="0.4", marker="^", label="trained from the start")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlabel="field queries, times as fast as the dense twin's", ylabel="PSNR against the dense twin, dB")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path)


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
