"""The table of numbers beside the image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ReadoutRow:
    """Numbers of one run.

    Attributes:
        name: of the run.
        seconds: per frame at the displayed size; None if not rendered.
        queries: field queries of such a frame.
        parameters: needed for evaluation.
        multiply_adds: of a query.
        photograph: PSNR against the test view's photograph, dB.
        features: the share of its features, of a run of several widths.
    """

    name: str
    seconds: float | None = None
    queries: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    photograph: float | None = None
    features: float = 1.0


@dataclass(frozen=True)
class Readout:
    """All numbers of an image.

    Attributes:
        rows: one a run shown.
        size: height and width of the image, pixels.
        fine: whether it has the full resolution.
        mutual: PSNR of one run against the other, dB.
        view: index of the test view; None for a free camera.
    """

    rows: Sequence[ReadoutRow]
    size: tuple[int, int]
    fine: bool
    mutual: float | None = None
    view: int | None = None

    def markdown(self) -> str:
        """A table with one column per run."""
        names = [escape_markdown(row.name) for row in self.rows]
        lines = [
            f"| {self.size[1]} x {self.size[0]} pixels | " + " | ".join(names) + " |",
            "|:--|" + "--:|" * len(names),
        ]
        table = [
            ("ms per frame", [_milliseconds(row.seconds) for row in self.rows]),
            ("field queries per s", [_rate(row) for row in self.rows]),
            ("multiply-adds a query", [_count(row.multiply_adds) for row in self.rows]),
            ("parameters", [_count(row.parameters) for row in self.rows]),
            ("PSNR, photograph", [_decibels(row.photograph) for row in self.rows]),
        ]
        if len(names) > 1:
            table.append(("PSNR, other run", [_decibels(self.mutual)] * len(names)))
        for what, cells in table:
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
        where = "free camera" if self.view is None else f"test view {self.view}"
        state = "" if self.fine else ", refining"
        return "\n".join(lines) + f"\n\n{where}{state}"


def escape_markdown(text: str) -> str:
    """Escapes text so that Markdown shows it literally, in one line.

    The page parses Markdown as MDX: braces in a path or an error would be run as a program, and a single < would
    prevent any update of the panel.
    """
    return re.sub(r"([^\w\s/.,:;=()'\"+%-]|_)", r"\\\1", " ".join(text.split()))


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:,.1f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _rate(row: ReadoutRow) -> str:
    if not row.queries or not row.seconds:
        return "-"
    rate = row.queries / row.seconds
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:,.0f} k"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _decibels(value: float | None) -> str:
    if value is None:
        return "-"
    return "equal" if math.isinf(value) else f"{value:.2f} dB"
