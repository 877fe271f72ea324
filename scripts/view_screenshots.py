#!/usr/bin/env python
r"""Takes the screenshots of docs/guides/viewer.md: the real command in a real browser, clicked through by Playwright.

    python scripts/view_screenshots.py --runs DENSE/config.yml EUGEN/config.yml --surface ISDF/config.yml \
        --output docs/images

`make demo` trains the first two, `ns-train eugen-isdf-small --data data/room --max-num-iterations 4000` the last. Needs
the packages of `pip install -e ".[dev]"` and an installed Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SIZE = {"width": 1160, "height": 720}
PATIENCE = 240.0
"""Seconds for an image."""


@contextmanager
def served(words: list[str]) -> Iterator[str]:
    """Runs eugen-view with some arguments; its address."""
    command = [sys.executable, "-u", "-m", "eugen_nerf.cli.view", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[1] for line in process.stdout if line.startswith("open:"))
        finally:
            process.terminate()


def rest(page: Any) -> None:
    """Waits until the image is as fine as it gets, and nothing is being worked on."""
    time.sleep(2.0)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        text = page.inner_text("body")
        if not re.search("refining|rendering|preparing|connecting", text) and re.search("PSNR|vertices", text):
            time.sleep(1.0)
            return
        time.sleep(0.3)
    raise SystemExit("the image did not come to rest")


def quietest(page: Any, path: Path, tries: int = 6) -> None:
    """Renders a test view some times and takes a screenshot of the time that other programs disturbed least."""
    least = float("inf")
    for _ in range(tries):
        page.get_by_role("button", name="Go to test view").click()
        rest(page)
        row = page.locator("tr", has_text="ms per frame").inner_text()
        taken = sum(float(cell.replace(",", "")) for cell in row.split("\t")[1:])
        if taken < least:
            least = taken
            page.screenshot(path=path, type="jpeg", quality=88)


def drag(page: Any, label: str, across: int) -> None:
    """Moves the thumb of a slider by some pixels."""
    box = f'//*[normalize-space(text())="{label}"]/ancestor::*[.//*[@role="slider"]][1]//*[@role="slider"]'
    place = page.locator(f"xpath={box}").first.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + across, y, steps=4)
    page.mouse.up()


def turn(page: Any, across: int, down: int) -> None:
    """Orbits by a drag of the mouse."""
    page.mouse.move(380, 420)
    page.mouse.down()
    page.mouse.move(380 + across, 420 + down, steps=8)
    page.mouse.up()


def main() -> None:
    """Writes view-compare.jpg, view-compress.jpg and view-surface.jpg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, help="config.yml of a dense run and of others")
    parser.add_argument("--names", nargs="+", default=["dense", "eugen"])
    parser.add_argument("--surface", required=True, help="config.yml of a run with a signed distance")
    parser.add_argument("--output", type=Path, default=Path("outputs/screenshots"))
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    given.output.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=GL)
        with served(["--load-config", *given.runs, "--names", *given.names, "--max-size", "256"]) as address:
            page = browser.new_page(viewport=SIZE)
            page.goto(address)
            rest(page)
            quietest(page, given.output / "view-compare.jpg")
            turn(page, -60, 30)
            page.get_by_role("tab", name="Compress").click()
            drag(page, "Speed-up", 38)
            rest(page)
            page.screenshot(path=given.output / "view-compress.jpg", type="jpeg", quality=88)
            page.close()
        with served(["--load-config", given.surface, "--names", "room"]) as address:
            page = browser.new_page(viewport=SIZE)
            page.goto(address)
            rest(page)
            page.get_by_role("tab", name="Surface").click()
            page.get_by_role("button", name="Look from outside").click()
            page.get_by_label("Show slice").click()
            across = '//*[normalize-space(text())="Slice axis"]/ancestor::*[.//input][1]//input'
            page.locator(f"xpath={across}").first.click()
            page.get_by_role("option", name="y", exact=True).click()
            drag(page, "Slice position, m", -20)
            rest(page)
            page.screenshot(path=given.output / "view-surface.jpg", type="jpeg", quality=88)
        browser.close()


if __name__ == "__main__":
    main()
