"""Showing and keeping a comparison of signed distances: tables, `report.json`, `slices.png` and `report.html`."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eugen_nerf.evaluation.output_paths import HTML_NAME, JSON_NAME, SLICES_NAME, check_sdf_report
from eugen_nerf.evaluation.sdf.sdf_comparison import SdfComparison, to_json
from eugen_nerf.evaluation.statistics.published import HEADINGS as PUBLISHED
from eugen_nerf.evaluation.statistics.seeds import over_seeds
from eugen_nerf.surfaces.files import new_file
from eugen_nerf.surfaces.slices import draw_slices

Column = tuple[str, str, str]
"""Key of a row's value, heading, format."""

EXACT: tuple[Column, ...] = (
    ("volume_l1_cm", "volume", "{:.2f}"),
    ("surface_l1_cm", "surface", "{:.2f}"),
    ("ray_l1_cm", "rays", "{:.2f}"),
    ("gradient_cosine", "cosine", "{:.3f}"),
    ("surface_gradient_cosine", "at surface", "{:.3f}"),
)
MEASURED: tuple[Column, ...] = (
    ("heldout_l1_cm", "held-out", "{:.2f}"),
    ("depth_l1_cm", "depth", "{:.2f}"),
    ("depth_median_cm", "median", "{:.2f}"),
    ("depth_hits", "hits", "{:.3f}"),
    ("accuracy_cm", "accuracy", "{:.2f}"),
    ("completion_cm", "completion", "{:.2f}"),
    ("chamfer_cm", "Chamfer", "{:.2f}"),
)
TIMES: tuple[Column, ...] = (
    ("value_ms", "value ms", "{:.2f}"),
    ("value_speed_ratio", "value x", "{:.2f}x"),
    ("gradient_ms", "gradient ms", "{:.2f}"),
    ("gradient_speed_ratio", "gradient x", "{:.2f}x"),
    ("iteration_seconds", "s/iteration", "{:.4g}"),
    ("iteration_speed_ratio", "iteration x", "{:.2f}x"),
)
SIZES: tuple[Column, ...] = (
    ("inference_parameters", "parameters", "{:,}"),
    ("macs_per_query", "MACs/query", "{:,}"),
    ("parameters", "stored", "{:,}"),
    ("fit_seconds", "fit s", "{:.1f}"),
)
REMARK = (
    "Errors in cm. volume, surface, rays: mean |distance - exact distance| over free space that was seen, at the "
    "surface, along held-out rays. cosine: of the gradient with the exact one, in the volume and at the surface. "
    "held-out: mean |distance| at surface points of held-out views. depth: of the first crossing along held-out rays "
    "that have one (hits: their share). accuracy, completion, Chamfer: from the mesh to the reference surface, back, "
    "and their mean. value, gradient: the distance alone, and with its gradient; x: speed relative to the baseline, "
    "median of the ratios in a round. parameters: of the network as it runs, collapsed; stored: as a checkpoint keeps "
    "them to be trained on; eugen-distill --bundle writes the compact form."
)


def print_tables(comparison: SdfComparison, console: Console) -> None:
    """Prints errors, bands, costs, means over seeds, and the notes."""
    for title, columns, rows in _tables(comparison):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, heading in enumerate(columns):
            table.add_column(heading, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print(REMARK, markup=False, highlight=False)
    console.print(f"reference: {comparison.protocol['reference']}", markup=False, highlight=False)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def write_report(comparison: SdfComparison, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Writes `slices.png` (where there are slices), `report.html` and `report.json`; each file is whole or absent.

    Raises:
        RunError: an older report is there, or the folder cannot be written.
    """
    check_sdf_report(folder, overwrite=overwrite)
    written = []
    picture = b""
    if comparison.slices:
        path = folder / SLICES_NAME
        with new_file(path, overwrite=overwrite) as partial:
            draw_slices(comparison.slices, partial)
            picture = partial.read_bytes()
        written.append(path)
    for name, text in ((HTML_NAME, html_page(comparison, picture)), (JSON_NAME, to_json(comparison))):
        with new_file(folder / name, overwrite=overwrite) as partial:
            partial.write_text(text, encoding="utf8")
        written.append(folder / name)
    return written


def html_page(comparison: SdfComparison, slices: bytes = b"") -> str:
    """One page that needs no other file: tables, slices (PNG), settings."""
    title = f"Signed distances of {', '.join(row['variant'] for row in comparison.rows)}"
    tables = "".join(_html_table(*table) for table in _tables(comparison))
    picture = base64.b64encode(slices).decode()
    image = f'<h2>Slices</h2><img alt="slices" src="data:image/png;base64,{picture}">' if slices else ""
    settings = {"protocol": comparison.protocol, "environment": comparison.environment, "notes": comparison.notes}
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 82rem; margin: 0 auto; padding: 1rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .5rem; border-bottom: 1px solid #8885; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }} img {{ max-width: 100%; }} pre {{ overflow-x: auto; }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{html.escape(REMARK)} Reference: {html.escape(comparison.protocol["reference"])}.</p>
{tables}
{image}
<details><summary>Settings</summary><pre>{html.escape(json.dumps(settings, indent=2))}</pre></details>
</body></html>
"""


def _tables(comparison: SdfComparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, headings, rows of texts); columns without any value are left out."""
    rows, protocol = comparison.rows, comparison.protocol
    tables = []
    if any(row["volume_l1_bands_cm"] for row in rows):
        tables.append(_table("errors against the exact distance, cm", EXACT, rows))
        names = list(next(row["volume_l1_bands_cm"] for row in rows if row["volume_l1_bands_cm"]))
        columns = [(name, name, "{:.2f}") for name in names]
        flat = [{"variant": row["variant"], **row["volume_l1_bands_cm"]} for row in rows]
        tables.append(_table("volume, cm, by distance to the surface", columns, flat))
    tables.append(_table("held-out depth and mesh, cm", MEASURED, rows))
    timed = f"{protocol['timed_rays']} rays x {protocol['timed_samples']} points, {comparison.environment['device']}"
    tables.append(_table(f"one forward pass on {timed}, against {protocol['baseline']}", TIMES, rows))
    tables.append(_table("sizes", SIZES, rows))
    for what, group in (("exact distance, cm", EXACT), ("held-out, cm", MEASURED), ("times", TIMES)):
        seeds = over_seeds(rows, [key for key, _, _ in group])
        if seeds and any(row.get(key) is not None for row in rows for key, _, _ in group):
            title = f"{what}: mean ± standard deviation over seeds"
            tables.append(_table(title, [("seeds", "seeds", "{}"), *group], seeds))
    if comparison.published:
        texts = [[row.get(key, "-") for key in PUBLISHED] for row in comparison.published]
        tables.append(("published results", list(PUBLISHED.values()), texts))
    return tables


def _table(
    title: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str], list[list[str]]]:
    shown = [column for column in columns if any(row.get(column[0]) is not None for row in rows)]
    texts = [[str(row["variant"]), *(_text(row.get(key), form.format) for key, _, form in shown)] for row in rows]
    return title, ["variant", *(heading for _, heading, _ in shown)], texts


def _text(value: Any, form: Callable[[Any], str]) -> str:
    """A value, a dash for none, "mean ± deviation" for a pair."""
    if value is None:
        return "-"
    return f"{form(value[0])} ± {form(value[1])}" if isinstance(value, list) else form(value)


def _html_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "".join(f"<tr>{_cells('td', row)}</tr>\n" for row in rows)
    head = f"<tr>{_cells('th', headings)}</tr>\n"
    return f'<h2>{html.escape(title)}</h2>\n<div class="wide"><table>\n{head}{body}</table></div>\n'


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
