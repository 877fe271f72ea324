"""What a page draws over the image, at the window's resolution: the line of a split, which is dragged, and numbers.

viser's page compiles Markdown as MDX, a program, and that is the one way to place elements over its canvas. The line
is an element of one pixel, crisp however coarse the image below it is. It follows the slider "Split position" by
itself, and dragging it moves the slider.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import viser

from eugen_viewer.panels.readout import Readout

CLASS = "eugen-overlay"
"""Of all elements over the image."""
_LINE = """<div className="CLASS" title="drag to move the split" ref={(line) => {
if (!line) return;
const slider = () => document.getElementById(SLIDER);
const canvas = () => [...document.querySelectorAll("canvas")].at(-1).getBoundingClientRect();
const follow = () => {
if (!line.isConnected) return;
const thumb = slider()?.querySelector('[role="slider"]');
if (thumb) {
const box = canvas();
const x = box.left + box.width * (FIRST + (LAST - FIRST) * Number(thumb.getAttribute("aria-valuenow")));
line.style.left = `${Math.round(x) - 7}px`;
line.style.top = `${box.top}px`;
line.style.height = `${box.height}px`;
}
requestAnimationFrame(follow);
};
follow();
line.onpointerdown = (down) => { down.preventDefault(); line.setPointerCapture(down.pointerId); };
line.onpointermove = (move) => {
if (!line.hasPointerCapture(move.pointerId)) return;
const box = canvas();
const share = ((move.clientX - box.left) / box.width - FIRST) / (LAST - FIRST);
const input = slider().parentElement.querySelector('input:not([type="hidden"])');
const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
set.call(input, Math.min(1, Math.max(0, share)).toFixed(3));
input.dispatchEvent(new Event("input", { bubbles: true }));
};
}} style={{ position: "fixed", width: "15px", cursor: "ew-resize", touchAction: "none" }}><div style={{
position: "absolute", left: "7px", width: "1px", height: "100%", background: "white" }}></div></div>"""
_NUMBERS = """<div className="CLASS" style={{ position: "fixed", left: "10px", top: "8px", pointerEvents: "none",
color: "white", fontSize: "13px", lineHeight: "1.4", whiteSpace: "pre", textShadow: "0 0 3px black, 0 0 3px black" }}>{
TEXT}</div>"""


class PictureOverlay:
    """Line and numbers over the image of one tab.

    Args:
        client: viser's handle of the tab.
    """

    def __init__(self, client: viser.ClientHandle) -> None:
        self.line = client.gui.add_markdown("", order=-8.0, visible=False)
        self.corner = client.gui.add_markdown("", order=-7.0)

    def draw_line(self, slider: str, share: float) -> None:
        """Shows the line of a split; see `split_line`.

        Args:
            slider: identifier of the control of the split.
            share: of the canvas's width that the image takes, in its middle.
        """
        content = split_line(slider, (1 - share) / 2, (1 + share) / 2)
        if self.line.content != content:  # what is dragged would be replaced
            self.line.content = content
        if not self.line.visible:
            self.line.visible = True

    def hide_line(self) -> None:
        """Where there is no split."""
        if self.line.visible:
            self.line.visible = False

    def write(self, readout: Readout, frames_per_second: float | None) -> None:
        """Shows numbers; see `corner_numbers`."""
        self.corner.content = corner_numbers(readout, frames_per_second)

    def clear(self) -> None:
        """Shows nothing."""
        self.hide_line()
        self.corner.content = ""


def split_line(slider: str, first: float, last: float) -> str:
    """Markdown of the line of a split.

    Args:
        slider: identifier of the control whose value, in [0, 1], is the split.
        first: where the image begins across the canvas, in [0, 1].
        last: where it ends.
    """
    line = _LINE.replace("CLASS", CLASS).replace("SLIDER", json.dumps(slider))
    return _one_line(line.replace("FIRST", f"{first:.5f}").replace("LAST", f"{last:.5f}"))


def corner_numbers(readout: Readout, frames_per_second: float | None) -> str:
    """Markdown of the numbers in the image's corner.

    Args:
        readout: of the image.
        frames_per_second: while something moves; None at rest.
    """
    text = json.dumps("\n".join(number_lines(readout, frames_per_second)))  # a string of JavaScript is no markup
    return _one_line(_NUMBERS.replace("CLASS", CLASS)).replace("TEXT", text)


def number_lines(readout: Readout, frames_per_second: float | None) -> Sequence[str]:
    """Size and speed of the image; below, for each run, what an image of it takes."""
    height, width = readout.size
    first = f"{width} x {height}"
    lines = [first if frames_per_second is None else f"{first}, {frames_per_second:.0f} frames/s"]
    for row in readout.rows:
        parts = []
        if row.queries is not None:
            parts.append(f"{row.queries / (height * width):.1f} queries a ray")
        if row.multiply_adds is not None:
            parts.append(f"{row.multiply_adds:,} multiply-adds a query")
        if row.features < 1:
            parts.append(f"{row.features:.0%} of the features")
        lines.append(f"{row.name}: {', '.join(parts)}" if parts else row.name)
    return lines


def _one_line(text: str) -> str:
    """Without line breaks, which would end a paragraph of Markdown."""
    return " ".join(text.split("\n"))
