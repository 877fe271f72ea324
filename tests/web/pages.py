"""Pages for tests: fields that a fake engine paints, and a browser to open them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from installed_browser import MILLISECONDS, chromium

from eugen_nerf.web.page import PageField, own_sources, web_page
from eugen_nerf.web.page_files import write_page

WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
"""Switches by which a Chromium without a GPU renders by WebGPU, in software."""

STILL = """() => {
  const draws = window.fake?.draws ?? [];
  if (window.counted !== draws.length) [window.counted, window.countedAt] = [draws.length, performance.now()];
  return draws.length > 0 && performance.now() - window.countedAt > 260;
}"""
"""Whether nothing has been drawn for a while."""


def pretended_sources() -> Mapping[str, str]:
    """The page's own modules with an engine that paints gradients."""
    engine = Path(__file__).with_name("fake_engine.js").read_text(encoding="utf8")
    kept = {path: text for path, text in own_sources().items() if path.startswith(("page/", "engine/engine_error"))}
    return {**kept, "engine/engine.js": engine}


def pretended_field(name: str, colour: str = "#c00", **info: Any) -> PageField:
    """A field of the fake engine, with three test views on a circle."""
    views = [
        {
            "name": f"r_{i}.png", "width": 64, "height": 64, "fx": 80, "fy": 80, "cx": 32, "cy": 32,
            "time": None if info.get("times") is None else i / 2,
            "pose": [1, 0, 0, i / 4, 0, 0, -1, -3, 0, 1, 0, 0], "psnr": 30.0 + i,
        }
        for i in range(3)
    ]  # fmt: skip
    own = {
        "kind": "radiance", "near": 2, "far": 6, "box": [-1, -1, -1, 1, 1, 1], "background": [1, 1, 1], "times": None,
        "views": views, "macs": 11456, "bytes": 64, "shares": [], "bits": 16,
        "quality": {"exact_psnr": 31.0, "psnr": 30.98}, "shadings": ["colour", "depth"],
    }  # fmt: skip
    return PageField(name, {"info": own | info, "colour": colour}, bytes(range(64)))


def pair(**info: Any) -> list[PageField]:
    return [pretended_field("dense", "#c33", **info), pretended_field("converted", "#36c", **info)]


def written(fields: list[PageField], path: Path, title: str = "A scene", **options: Any) -> Path:
    """The page's path."""
    page = web_page(fields, title, sources=pretended_sources(), **options)
    write_page(page, path)
    return path / "index.html" if page.beside else path


@contextmanager
def a_browser(*switches: str) -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(switches))
        yield browser
        browser.close()


class Opened:
    """A page in a tab, with all that it requested and complained about."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.page = browser.new_page(viewport=options.pop("viewport", {"width": 900, "height": 600}), **options)
        self.page.set_default_timeout(MILLISECONDS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.goto(address)

    @property
    def last(self) -> dict[str, Any]:
        """What the engine was given last."""
        return self.page.evaluate("window.fake.draws.at(-1)")

    def still(self) -> None:
        """Waits until the picture is as fine as it gets."""
        self.page.evaluate("() => { window.counted = -1; }")
        self.page.wait_for_function(STILL)

    def drag(self, across: float, down: float = 0.0, button: str = "left", steps: int = 6) -> None:
        """A drag from near the picture's upper left."""
        mouse = self.page.mouse
        mouse.move(150, 200)
        mouse.down(button=button)
        for step in range(1, steps + 1):
            mouse.move(150 + across * step / steps, 200 + down * step / steps)
        mouse.up(button=button)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def radio(self, name: str) -> Any:
        return self.page.get_by_role("radio", name=name, exact=True)

    @property
    def place(self) -> np.ndarray:
        """Where the camera of the last picture is."""
        return np.array(self.last["camera"]["pose"]).reshape(3, 4)[:, 3]
