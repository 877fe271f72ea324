"""One HTML page of a comparison that needs no other file and no network: pictures and plot are inside it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.curves import REMARK as CURVES_REMARK
from eugen_nerf.evaluation.film import strip
from eugen_nerf.evaluation.plots import psnr_curves_svg, psnr_time_svg
from eugen_nerf.evaluation.tables import RATIOS, TextTable, full_table, further_tables
from eugen_nerf.evaluation.zoom import telling_window
from eugen_nerf.methods.metrics import Image8

DIFFERENCE_GAIN = 4

STYLE = """
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
.strip img { max-width: 60rem; }
.plot svg { width: 100%; max-width: 40rem; height: auto; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .1rem 1rem; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.note { border-left: 4px solid #c80; padding-left: .75rem; }
"""


def html_page(comparison: Comparison, *, max_views: int = 4) -> str:
    """The page as text.

    Args:
        comparison: what to show.
        max_views: views shown, spread evenly over the scored ones.
    """
    protocol = comparison.protocol
    title = f"Comparison of {', '.join(comparison.renders)}"
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in comparison.notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p>{protocol["number_of_views"]} {html.escape(protocol["split"])} views of {", ".join(protocol["resolution"])} pixels.
Scores are means over the views; times are medians over {protocol["timing"]["repeats"]} rounds in which the runs take
turns; speeds are relative to {html.escape(protocol["baseline"])}, {html.escape(RATIOS)}.</p>
{notes}
{table_html(full_table(comparison))}
{"".join(_section(table) for table in further_tables(comparison))}
<h2>Quality against time</h2>
<div class="plot">{psnr_time_svg(comparison.rows)}</div>
{_curves(comparison)}
<h2>Views</h2>
<p>Difference images show {DIFFERENCE_GAIN} times the absolute difference from the ground truth, clipped at white.
Enlarged is the place where the runs' squared errors differ most.</p>
{"".join(_view(comparison, position) for position in _shown(len(comparison.views), max_views))}
{_over_time(comparison)}
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


def _shown(count: int, limit: int) -> list[int]:
    if count <= limit:
        return list(range(count))
    return [int(position) for position in np.linspace(0, count - 1, limit).round()]


def _section(table: TextTable) -> str:
    title = table.title[:1].upper() + table.title[1:]
    return f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(table.remark)}</p>\n{table_html(table)}\n"


def table_html(table: TextTable) -> str:
    """A table that scrolls sideways where the page is narrow."""
    headings = "".join(f"<th>{html.escape(text)}</th>" for text in table.headings)
    rows = "".join(_table_row(row) for row in table.rows)
    return f'<div class="scroll"><table>\n<thead><tr>{headings}</tr></thead>\n<tbody>{rows}</tbody>\n</table></div>'


def _curves(comparison: Comparison) -> str:
    svg = psnr_curves_svg(comparison.rows)
    if not svg:
        return ""
    remark = html.escape(CURVES_REMARK)
    return f'<h2>Held-out PSNR while training</h2>\n<p>{remark}</p>\n<div class="plot">{svg}</div>'


def _table_row(texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in texts) + "</tr>\n"


def _view(comparison: Comparison, position: int) -> str:
    truth = comparison.truth[position]
    shown = {
        row["variant"]: (comparison.renders[row["variant"]][position], row["psnr_per_view"][position])
        for row in comparison.rows
        if row["variant"] in comparison.renders
    }
    window = telling_window(truth, [image for image, _ in shown.values()])
    figures = [_figure(truth, "ground truth"), _figure(truth[window], "ground truth, enlarged")]
    for name, (image, psnr) in shown.items():
        figures.append(_figure(image, f"{name}: {psnr:.2f} dB"))
        figures.append(_figure(difference_image(image, truth), f"{name}: difference"))
        figures.append(_figure(image[window], f"{name}, enlarged"))
    return f'<h3>View {comparison.views[position]}</h3>\n<div class="views">{"".join(figures)}</div>\n'


def _over_time(comparison: Comparison) -> str:
    if not comparison.frames:
        return ""
    times = ", ".join(f"{time:.2g}" for time in comparison.times)
    rows = "".join(
        f'<figure class="strip">{_picture(strip(images), f"{name} over time")}<figcaption>{html.escape(name)}'
        "</figcaption></figure>\n"
        for name, images in comparison.frames.items()
    )
    view = comparison.views[0]
    return f"<h2>Frames over time</h2>\n<p>The camera of view {view} at times {times}.</p>\n{rows}"


def _figure(image: Image8, caption: str) -> str:
    return f"<figure>{_picture(image, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>\n"


def _picture(image: Image8, text: str) -> str:
    return f'<img alt="{html.escape(text)}" src="{png_data_uri(image)}">'


def _settings(values: dict[str, Any]) -> str:
    items = []
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        items.append(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>")
    return f"<dl>{''.join(items)}</dl>"
