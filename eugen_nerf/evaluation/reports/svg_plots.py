"""Plots of a comparison as SVG that a page can hold: no fonts, no links, colours that follow the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

_INK = "#010203"  # drawn in this colour, then replaced by the page's text colour, light or dark


def psnr_time_svg(rows: Sequence[dict[str, Any]]) -> str:
    """PSNR against seconds an image, one point a run; the baselines, which take no time, as dashed lines."""

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            if not math.isfinite(row["psnr"]):
                continue
            if row["seconds_per_image"] is None:
                axes.axhline(row["psnr"], linestyle="--", linewidth=1, color="#888888")
                axes.annotate(
                    row["variant"], (0.99, row["psnr"]), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                    fontsize=9, color=_INK,
                )  # fmt: skip
                continue
            marker, colour = _style(number)
            axes.plot(row["seconds_per_image"], row["psnr"], marker, ms=9, color=colour, label=row["variant"])
        timed = [row for row in rows if row["seconds_per_image"] is not None]
        times = [row["seconds_per_image"] for row in timed]
        points = [(row["seconds_per_image"], -row["psnr"]) for row in timed if math.isfinite(row["psnr"])]
        front = [(points[i][0], -points[i][1]) for i in undominated(points)]
        if len(front) > 1:
            axes.plot(*zip(*front, strict=True), "-", lw=1, color="#888888", label="undominated", zorder=0)
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 2, max(times) * 3)  # never so narrow that noise looks like a difference
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("seconds per image (log scale)", color=_INK)

    return _plot(draw, "time", "PSNR [dB]")


def undominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Numbers of the points `(cost, error)` that none other undercuts in one and matches in the other, by cost."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    front: list[int] = []
    for i in order:
        if not front or points[i][1] < points[front[-1]][1]:
            front.append(i)
    return front


def errors_svg(series: Mapping[str, Sequence[tuple[float, float]]], across: str, height: str) -> str:
    """Errors against costs, both axes logarithmic, a colour a series, and the front of all of them as a line."""
    points = [(x, y) for values in series.values() for x, y in values if x > 0 and y > 0]

    def draw(axes: Axes) -> None:
        for number, (name, values) in enumerate(series.items()):
            marker, colour = _style(number)
            drawn = sorted((x, y) for x, y in values if x > 0 and y > 0)
            if drawn:
                axes.plot(*zip(*drawn, strict=True), marker, ms=7, color=colour, label=name)
        front = [points[i] for i in undominated(points)]
        axes.plot(*zip(*front, strict=True), "-", lw=1, color="#888888", label="undominated", zorder=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(across, color=_INK)

    return _plot(draw, f"errors-{across}-{len(points)}", height) if points else ""


def psnr_curves_svg(rows: Sequence[dict[str, Any]]) -> str:
    """Held-out PSNR against training steps, a line a run; empty text where no run has a curve."""
    if not any(row["psnr_curve"] for row in rows):
        return ""

    def draw(axes: Axes) -> None:
        for number, row in enumerate(rows):
            if row["psnr_curve"]:
                marker, colour = _style(number)
                steps, values = zip(*row["psnr_curve"], strict=True)
                axes.plot(steps, values, f"{marker}-", ms=4, color=colour, label=row["variant"])
        axes.set_xlabel("training step", color=_INK)

    return _plot(draw, "curves", "PSNR [dB]")


def front_svg(record: dict[str, Any]) -> str:
    """Predicted dB lost against the share of multiply-adds kept, and what was measured, from a conversion's record."""
    whole = record["teacher_multiply_adds"]
    points = [(p["multiply_adds"] / whole, p["predicted_drop"]) for p in record["front"]]

    def draw(axes: Axes) -> None:
        shares, drops = zip(*points, strict=True)
        axes.plot(shares, drops, "-", color="C0", label="predicted")
        measured = record["measured"]
        axes.plot(measured["multiply_adds"] / whole, measured["drop"], "o", ms=9, color="C3", label="measured")
        axes.set_xlabel("multiply-adds of a query, share of the teacher's", color=_INK)
        axes.set_ylim(bottom=0.0, top=max(1.0, 2 * measured["drop"]))

    return _plot(draw, "front", "PSNR lost [dB]")


def standalone(svg: str) -> str:
    """A plot as a file of its own: with the namespaces that a page does without."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return str(svg).replace("<svg", f"<svg {spaces}", 1)  # `Markup` would escape the tag that is put in


def _style(number: int) -> tuple[str, str]:
    """Marker and colour of the n-th run, the same in every plot."""
    return "os^Dv"[number // 10 % 5], f"C{number % 10}"


def _plot(draw: Callable[[Axes], None], name: str, height: str) -> str:
    """The SVG of a plot; `name` keeps the ids inside two plots of one page apart, `height` is what the y axis shows."""
    salt = f"eugen-{name}"
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif", "font.size": 11}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        draw(axes)
        axes.margins(y=0.15)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=_INK)  # names beside the points would overlap where runs are close
        axes.set_ylabel(height, color=_INK)
        axes.tick_params(which="both", colors=_INK)
        axes.grid(alpha=0.3)
        for spine in axes.spines.values():
            spine.set_edgecolor(_INK)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # no prolog: it is a part of a page now
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    return Markup(svg.replace(_INK, "currentColor"))  # matplotlib has escaped the names in it
