"""One HTML page of a comparison that needs no other file and no network: pictures and plot are inside it."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from PIL import Image

from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.methods.metrics import Image8

DIFFERENCE_GAIN = 4
_INK = "#010203"  # drawn in this colour, then replaced by the page's text colour, light or dark

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 82rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody tr:hover { background: var(--soft); }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem; }
figure { margin: 0; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
figure img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line); }
.plot svg { width: 100%; max-width: 40rem; height: auto; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .1rem 1rem; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.note { border-left: 4px solid #c80; padding-left: .75rem; }
"""


def html_page(
    comparison: Comparison, headings: Sequence[str], rows: Sequence[Sequence[str]], *, max_views: int = 4
) -> str:
    """The page as text.

    Args:
        comparison: what to show.
        headings: of the table.
        rows: the table's texts.
        max_views: views shown, spread evenly over the scored ones.
    """
    protocol = comparison.protocol
    title = f"Comparison of {', '.join(comparison.renders)}"
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in comparison.notes)
    plot = psnr_time_svg(comparison.rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p>{protocol["number_of_views"]} {html.escape(protocol["split"])} views of {", ".join(protocol["resolution"])} pixels.
Scores are means over the views; times are medians over {protocol["timing"]["repeats"]} rounds in which the runs take
turns; speeds are relative to {html.escape(protocol["baseline"])} (median of the ratios within a round).</p>
{notes}
<div class="scroll"><table>
<thead><tr>{"".join(f"<th>{html.escape(text)}</th>" for text in headings)}</tr></thead>
<tbody>{"".join(_table_row(row) for row in rows)}</tbody>
</table></div>
<h2>Quality against time</h2>
<div class="plot">{plot}</div>
<h2>Views</h2>
<p>Difference images show {DIFFERENCE_GAIN} times the absolute difference from the ground truth, clipped at white.</p>
{"".join(_view(comparison, position) for position in _shown(len(comparison.views), max_views))}
<h2>Settings</h2>
{_settings(protocol)}
<h2>Environment</h2>
{_settings(comparison.environment)}
</body>
</html>
"""


def difference_image(render: Image8, truth: Image8) -> Image8:
    """`DIFFERENCE_GAIN` times the absolute difference, uint8 [H, W, 3], clipped at 255."""
    difference = np.abs(render.astype(np.int16) - truth.astype(np.int16)) * DIFFERENCE_GAIN
    return np.minimum(difference, 255).astype(np.uint8)


def png_data_uri(image: Image8) -> str:
    """An image as a ``data:`` address of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def psnr_time_svg(rows: Sequence[dict[str, Any]]) -> str:
    """PSNR against seconds an image, one point a run; the baselines, which take no time, as dashed lines."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "eugen", "font.family": "sans-serif", "font.size": 11}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        for number, row in enumerate(rows):
            marker = "os^Dv"[number // 10 % 5]
            if not math.isfinite(row["psnr"]):
                continue
            if row["seconds_per_image"] is None:
                axes.axhline(row["psnr"], linestyle="--", linewidth=1, color="#888888")
                axes.annotate(
                    row["variant"], (0.99, row["psnr"]), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                    fontsize=9, color=_INK,
                )  # fmt: skip
                continue
            axes.plot(
                row["seconds_per_image"], row["psnr"], marker, ms=9, color=f"C{number % 10}", label=row["variant"]
            )
        times = [row["seconds_per_image"] for row in rows if row["seconds_per_image"] is not None]
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 2, max(times) * 3)  # never so narrow that noise looks like a difference
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(y=0.15)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=_INK)  # names beside the points would overlap where runs are close
        axes.set_xlabel("seconds per image (log scale)", color=_INK)
        axes.set_ylabel("PSNR [dB]", color=_INK)
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
    return svg.replace(_INK, "currentColor")


def _shown(count: int, limit: int) -> list[int]:
    if count <= limit:
        return list(range(count))
    return [int(position) for position in np.linspace(0, count - 1, limit).round()]


def _table_row(texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in texts) + "</tr>\n"


def _view(comparison: Comparison, position: int) -> str:
    truth = comparison.truth[position]
    figures = [_figure(truth, "ground truth")]
    for row in comparison.rows:
        images = comparison.renders.get(row["variant"])
        if images is None:
            continue
        figures.append(_figure(images[position], f"{row['variant']}: {row['psnr_per_view'][position]:.2f} dB"))
        figures.append(_figure(difference_image(images[position], truth), f"{row['variant']}: difference"))
    return f'<h3>View {comparison.views[position]}</h3>\n<div class="views">{"".join(figures)}</div>\n'


def _figure(image: Image8, caption: str) -> str:
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="{png_data_uri(image)}"><figcaption>{text}</figcaption></figure>\n'


def _settings(values: dict[str, Any]) -> str:
    items = []
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        items.append(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>")
    return f"<dl>{''.join(items)}</dl>"
