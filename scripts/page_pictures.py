#!/usr/bin/env python
"""Makes the pictures of a web page of two fields: a screenshot and an animation, in a Chromium without a GPU.

    python scripts/page_pictures.py docs/demo.html --output docs/images    # page.jpg, page.webp

Software renders every picture, as finely as a page lets a slow renderer, so it takes minutes. Needs the packages of
`pip install -e ".[dev]"` and an installed Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from readme_pictures import save_animation

WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
SMALL, LARGE = {"width": 600, "height": 380}, {"width": 1000, "height": 600}
"""The animation's page, which has no room for the panel, and the screenshot's."""
PATIENCE = 600_000
"""Milliseconds for a picture."""
STILL = """() => {
  const canvas = document.querySelector("#picture canvas");
  const now = `${document.body.dataset.picture} ${canvas.width} ${document.getElementById("corner").textContent}`;
  if (window.before !== now) [window.before, window.since] = [now, performance.now()];
  return now.startsWith("still") && performance.now() - window.since > 8000;
}"""
"""Whether no finer picture came for longer than the page lets one take at rest."""


def rest(page: Any) -> None:
    """Waits for the finest picture, after what was done has had time to show."""
    page.wait_for_timeout(400)
    page.wait_for_function(STILL, timeout=PATIENCE)


def drag(page: Any, start: tuple[float, float], across: float) -> None:
    """Moves the pressed mouse sideways by some pixels."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + across, start[1], steps=4)
    page.mouse.up()


def frames(page: Any) -> list[Image.Image]:
    """The split is dragged to and fro, then the camera turns."""
    kept = []

    def keep() -> None:
        rest(page)
        kept.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))

    keep()
    for across in (-60, -60, 60, 60, 60, 60, -60, -60):
        box = page.locator("#split").bounding_box()
        drag(page, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), across)
        keep()
    for _ in range(10):
        drag(page, (150, 120), 24)
        keep()
    return kept


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="as eugen-web wrote it, of two fields")
    parser.add_argument("--output", type=Path, required=True, help="folder of page.jpg and page.webp")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=WEBGPU)
        for size in (LARGE, SMALL):
            page = browser.new_page(viewport=size)
            page.goto(given.page.resolve().as_uri())
            page.locator("#picture canvas").wait_for(timeout=PATIENCE)
            if size is LARGE:
                rest(page)
                page.screenshot(path=given.output / "page.jpg", type="jpeg", quality=88)
            else:
                save_animation(frames(page), given.output / "page.webp")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
