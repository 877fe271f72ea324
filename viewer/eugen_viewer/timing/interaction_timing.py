"""How a run feels, without a browser: images a second of a drag, and the time at rest until the finest image."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from viser._scene_api import _encode_image_binary

from eugen_viewer.run_comparison import RenderedFrame, RunComparison
from eugen_viewer.viewer_cameras import Viewpoint

Size = tuple[int, int]
DRAG_SECONDS = 2.0
"""Of the drag that is measured; one as long goes before it."""
TURN_SECONDS = 8.0
"""For the camera to go once about the scene's vertical axis."""
ASPECT = 1.6
"""Width of the window by its height."""


@dataclass(frozen=True)
class Interaction:
    """What was measured.

    Attributes:
        drag: sizes of the images that a drag of at least `DRAG_SECONDS` gave; one at least.
        drag_seconds: until the last of them was there.
        rest: sizes of the images after it, and the seconds from its end until each was there.
    """

    drag: list[Size]
    drag_seconds: float
    rest: list[tuple[Size, float]]

    @property
    def frames_per_second(self) -> float:
        """Of the drag."""
        return len(self.drag) / self.drag_seconds

    @property
    def drag_size(self) -> Size:
        """Height and width of the middle one of the drag's images."""
        return sorted(self.drag)[len(self.drag) // 2]


def measure_interaction(comparison: RunComparison, viewpoint: Viewpoint) -> Interaction:
    """Drags the camera about the scene, lets go, and waits for the finest image, as a tab's thread does it.

    Images are encoded, but sent nowhere; the state machine's wait of 0.2 s, which decides that a drag is over, is left
    out.

    Args:
        comparison: with the choice of what is shown.
        viewpoint: to start from.
    """
    viewpoint = replace(viewpoint, view=None, aspect=ASPECT)
    _drag(comparison, viewpoint)
    sizes, seconds, viewpoint = _drag(comparison, viewpoint)
    start, shown, images = time.perf_counter(), 0, list[tuple[Size, float]]()
    for state in ("low_static", "high"):
        while True:
            size = comparison.next_size(viewpoint, state, shown)
            _show(comparison, viewpoint, size, moving=False)
            images.append((size, time.perf_counter() - start))
            shown = size[0]
            if size == comparison.full_size(viewpoint):
                return Interaction(sizes, seconds, images)
            if state == "low_static":
                break
    raise AssertionError("the last image is the finest")


def _drag(comparison: RunComparison, viewpoint: Viewpoint) -> tuple[list[Size], float, Viewpoint]:
    """Sizes of the images, seconds in all, and where the drag ends."""
    start, sizes, at = time.perf_counter(), list[Size](), viewpoint
    while True:
        began = time.perf_counter()
        at = _turned(viewpoint, (began - start) / TURN_SECONDS)
        size = comparison.next_size(at, "low_move")
        frame = _show(comparison, at, size, moving=True)
        ended = time.perf_counter()
        comparison.record_moving(frame, ended - began)
        sizes.append(size)
        if ended - start > DRAG_SECONDS:
            return sizes, ended - start, at


def _show(comparison: RunComparison, viewpoint: Viewpoint, size: Size, *, moving: bool) -> RenderedFrame:
    """Renders and encodes an image."""
    frame = comparison.render_frame(viewpoint, size, visible_only=moving, fine=not moving)
    image = comparison.compose(frame, line=False)
    assert image is not None
    _encode_image_binary(image, "jpeg", 60 if moving else 95)
    if not moving:
        comparison.readout(frame).markdown()
    return frame


def _turned(viewpoint: Viewpoint, turns: float) -> Viewpoint:
    angle = 2 * np.pi * turns
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = np.cos(angle)
    turn[1, 0], turn[0, 1] = np.sin(angle), -np.sin(angle)
    return replace(viewpoint, pose=turn @ viewpoint.pose)
