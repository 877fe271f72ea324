"""One HTML page of a comparison that needs no other file and no network: pictures, plot and script are inside it."""

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
from eugen_nerf.evaluation.images.crop import telling_window
from eugen_nerf.evaluation.images.difference import difference_image, scale_html
from eugen_nerf.evaluation.images.film import strip
from eugen_nerf.evaluation.reports.headline import headline
from eugen_nerf.evaluation.reports.interaction import DIALOG, PAIR, SCRIPT
from eugen_nerf.evaluation.reports.interaction import STYLE as INTERACTION_STYLE
from eugen_nerf.evaluation.reports.svg_plots import psnr_curves_svg, psnr_time_svg
from eugen_nerf.evaluation.reports.tables import RATIOS, SIZES_REMARK, TextTable, further_tables, page_tables
from eugen_nerf.evaluation.reports.training_curves import REMARK as CURVES_REMARK
from eugen_nerf.methods.runs.image_metrics import Image8

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
details { margin-top: 1.5rem; } summary { cursor: pointer; font-weight: 600; }
.scale { display: flex; align-items: center; gap: .5rem; font-size: .85rem; }
.scale span { width: 12rem; height: .8rem; border: 1px solid var(--line); }
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
    first, more = page_tables(comparison)
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in comparison.notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}{INTERACTION_STYLE}</style>
</head>
<body>
<h1>{html.escape(headline(comparison.rows, protocol["baseline"]))}</h1>
<p>{html.escape(_introduction(title, protocol))}</p>
{notes}
{table_html(first)}
{_folded(more)}
{"".join(_section(table) for table in further_tables(comparison))}
<h2>Quality against time</h2>
<div class="plot">{psnr_time_svg(comparison.rows)}</div>
{_curves(comparison)}
<h2>Views</h2>
<p>A click enlarges a picture; the slider below each view compares two of them. Difference images show the largest
difference of a pixel's channels from the ground truth. Enlarged is the place where the runs' squared errors differ
most.</p>
{scale_html()}
{"".join(_view(comparison, position) for position in _shown(len(comparison.views), max_views))}
{_over_time(comparison)}
<details><summary>Settings</summary>
{_settings(protocol)}
</details>
<details><summary>Environment</summary>
{_settings(comparison.environment)}
</details>
{DIALOG}<script>{SCRIPT}</script>
</body>
</html>
"""


def _introduction(title: str, protocol: dict[str, Any]) -> str:
    sizes, rounds = ", ".join(protocol["resolution"]), protocol["timing"]["repeats"]
    return (
        f"{title}. {protocol['number_of_views']} {protocol['split']} views of {sizes} pixels. Scores are means over "
        f"the views; times are medians over {rounds} rounds in which the runs take turns; speeds are relative to "
        f"{protocol['baseline']}, {RATIOS}. {SIZES_REMARK}"
    )


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


def _folded(table: TextTable) -> str:
    """A table behind its title; nothing where it has no column but the names."""
    title = table.title[:1].upper() + table.title[1:]
    shown = len(table.headings) > 1
    return f"<details><summary>{html.escape(title)}</summary>\n{table_html(table)}\n</details>" if shown else ""


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
    figures = [_figure(truth, "ground truth", whole="ground truth"), _figure(truth[window], "ground truth, enlarged")]
    for name, (image, psnr) in shown.items():
        figures.append(_figure(image, f"{name}: {psnr:.2f} dB", whole=name))
        figures.append(_figure(difference_image(image, truth), f"{name}: difference"))
        figures.append(_figure(image[window], f"{name}, enlarged"))
    return f'<h3>View {comparison.views[position]}</h3>\n<div class="views">{"".join(figures)}</div>\n{PAIR}'


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


def _figure(image: Image8, caption: str, *, whole: str = "") -> str:
    """A picture with a caption; where it is a whole view, the slider knows it by the name `whole`."""
    return f"<figure>{_picture(image, caption, whole)}<figcaption>{html.escape(caption)}</figcaption></figure>\n"


def _picture(image: Image8, text: str, whole: str = "") -> str:
    name = f' data-name="{html.escape(whole)}"' if whole else ""
    return f'<img alt="{html.escape(text)}"{name} src="{png_data_uri(image)}">'


def _settings(values: dict[str, Any]) -> str:
    items = []
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        items.append(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>")
    return f"<dl>{''.join(items)}</dl>"
