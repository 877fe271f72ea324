"""A real browser in front of a viewer: what the tests in it share."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eugen_viewer.app import Viewer
from eugen_viewer.panels.picture_overlay import CLASS
from eugen_viewer.server.address import choose_port
from eugen_viewer.session import Session
from eugen_viewer.shown_runs import ShownRun

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "outputs" / "viewer-tests"
"""Where screenshots are saved; ignored by git."""
SOFTWARE_GL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


class Tab:
    """A page with a viewer in it."""

    def __init__(self, page: Any, viewer: Viewer) -> None:
        self.page, self.viewer = page, viewer
        known = set(viewer.sessions)
        page.goto(f"http://127.0.0.1:{viewer.server.get_port()}")
        self.client = until(lambda: next(iter(set(viewer.sessions) - known), None), "the page connects")

    @property
    def session(self) -> Session:
        return self.viewer.sessions[self.client]

    @property
    def numbers(self) -> str:
        return self.session.numbers.content

    def fine(self, seconds: float = 40.0) -> None:
        """Waits for an image that is as fine as it gets and of what is chosen now."""
        comparison = self.viewer.comparison

        def ready() -> bool:
            frame = self.session.frame
            return (
                frame is not None
                and frame.fine
                and self.session.next_action is None
                and self.session.state == "high"
                and set(frame.images) >= set(comparison.choice.needed())
                and abs(frame.viewpoint.time - comparison.time) < 1e-6
                and "refining" not in self.numbers
            )

        until(ready, "a fine image", seconds)
        time.sleep(0.3)  # for the browser to draw it
        until(lambda: self._width() == self._width(0.2), "the panel has stopped moving")

    def _width(self, later: float = 0.0) -> float:
        time.sleep(later)
        return self.page.locator("canvas").last.bounding_box()["width"]

    def open(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def slider(self, label: str) -> Any:
        """The thumb of a slider."""
        box = f'//*[normalize-space(text())="{label}"]/ancestor::*[.//*[@role="slider"]][1]'
        return self.page.locator(f'xpath={box}//*[@role="slider"]').first

    def drag(self, label: str, across: int) -> None:
        """Moves a slider with the mouse, in small steps."""
        thumb = self.slider(label)
        thumb.scroll_into_view_if_needed()
        box = thumb.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for step in range(1, 6):
            self.page.mouse.move(x + across * step / 5, y)
            time.sleep(0.05)
        self.page.mouse.up()

    def press(self, label: str, key: str, times: int = 1) -> None:
        """Moves a slider by keys."""
        self.slider(label).focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def choose(self, label: str, option: str) -> None:
        """An option of a dropdown."""
        box = f'//*[normalize-space(text())="{label}"]/ancestor::*[.//input][1]'
        self.page.locator(f"xpath={box}//input").first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def canvas(self) -> np.ndarray:
        """What the browser shows of the scene, uint8 `[height, width, 3]`, without what lies over it."""
        png = self.page.locator("canvas").last.screenshot(style=f".{CLASS} {{ visibility: hidden }}")
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def save(self, name: str) -> None:
        """Leaves a screenshot."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


def until(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    """Waits for something to be so; what it is then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found is not None and found is not False:
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:g} s, not yet: {what}")


@contextmanager
def viewing(runs: list[ShownRun], output: Path, max_size: int = 64) -> Iterator[Viewer]:
    """A viewer on a port of its own."""
    viewer = Viewer(runs, host="127.0.0.1", port=choose_port("127.0.0.1", None)[0], output=output, max_size=max_size)
    try:
        yield viewer
    finally:
        viewer.close()


def change(before: np.ndarray, after: np.ndarray) -> int:
    """The largest difference between two canvases of nearly the same size."""
    height, width = (min(a, b) for a, b in zip(before.shape[:2], after.shape[:2], strict=True))
    return int(np.abs(before[:height, :width].astype(int) - after[:height, :width]).max())


def shown_pixels(canvas: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The canvas at the middles of an image's pixels, which it stretches over all of itself: `[height, width, 3]`."""
    height, width = image.shape[:2]
    rows = ((np.arange(height) + 0.5) / height * canvas.shape[0]).astype(int)
    columns = ((np.arange(width) + 0.5) / width * canvas.shape[1]).astype(int)
    return canvas[rows][:, columns]
