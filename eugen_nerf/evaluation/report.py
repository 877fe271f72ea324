"""Showing and keeping a comparison: a table on the console, ``report.json`` and a self-contained ``report.html``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.html import html_page

JSON_NAME = "report.json"
HTML_NAME = "report.html"

# (key, heading, format) of the columns shown; the JSON file holds more.
COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("variant", "variant", str),
    ("psnr", "PSNR", lambda value: f"{value:.2f}"),
    ("ssim", "SSIM", lambda value: f"{value:.3f}"),
    ("lpips", "LPIPS", lambda value: f"{value:.3f}"),
    ("seconds_per_image", "s/image", lambda value: f"{value:.4g}"),
    ("image_speed_ratio", "image x", lambda value: f"{value:.2f}x"),
    ("queries_per_second", "queries/s", lambda value: f"{value / 1e3:,.1f}k"),
    ("query_speed_ratio", "query x", lambda value: f"{value:.2f}x"),
    ("parameters", "parameters", lambda value: f"{value:,}"),
    ("inference_parameters", "collapsed", lambda value: f"{value:,}"),
    ("macs_per_query", "MACs/query", lambda value: f"{value:,}"),
    ("checkpoint_bytes", "file MB", lambda value: f"{value / 1e6:.2f}"),
    ("peak_memory_bytes", "peak MB", lambda value: f"{value / 1e6:.1f}"),
    ("fit_seconds", "fit s", lambda value: f"{value:.1f}"),
)
_SIZES_FROM = 8  # columns before are scores and times


def cells(row: Mapping[str, Any]) -> list[str]:
    """The row's texts for `COLUMNS`; a missing value is a dash."""
    return ["-" if row.get(key) is None else form(row[key]) for key, _, form in COLUMNS]


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Print the table and the notes."""
    console = console or Console()
    views, sizes = comparison.protocol["number_of_views"], ", ".join(comparison.protocol["resolution"])
    title = f"{views} {comparison.protocol['split']} views of {sizes}, {comparison.environment['device']}"
    texts = [cells(row) for row in comparison.rows]
    # Two tables: one with every column does not fit a terminal of 80 characters.
    for part_title, columns in ((title, range(_SIZES_FROM)), ("sizes", [0, *range(_SIZES_FROM, len(COLUMNS))])):
        table = Table(title=part_title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(COLUMNS[column][1], justify="right" if column else "left", overflow="fold")
        for row in texts:
            table.add_row(*(Text(row[column]) for column in columns))  # a name is no markup
        console.print(table)
    baseline = comparison.protocol["baseline"]
    console.print(f"image x, query x: speed relative to {baseline}, median of the ratios in a round", markup=False)
    console.print(
        "collapsed: numbers kept in evaluation; file: a trained run's checkpoint holds its optimizer's state too"
    )
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def to_json(comparison: Comparison) -> str:
    """The content of ``report.json``: ``rows``, ``protocol``, ``environment``, ``notes``.

    JSON has no infinity: a value that is not finite becomes null, and the row's ``non_finite`` names it
    (``{"psnr": "inf"}`` for a render equal to its ground truth).
    """
    rows = []
    for row in comparison.rows:
        odd = {key: str(value) for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        rows.append({**_finite(row), **({"non_finite": odd} if odd else {})})
    content = {
        "rows": rows,
        "protocol": _finite(comparison.protocol),
        "environment": _finite(comparison.environment),
        "notes": comparison.notes,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse early, before hours of measuring, a folder that holds an older result or cannot be made.

    Raises:
        RunError: there is a result and ``overwrite`` is False, or the folder cannot be written.
    """
    older = [folder / name for name in (JSON_NAME, HTML_NAME) if (folder / name).exists()]
    if older and not overwrite:
        raise RunError(f"{older[0]} exists: choose another --output, or pass --overwrite to replace it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise RunError(f"the folder {folder} cannot be written: choose another --output")


def write_report(comparison: Comparison, folder: Path, *, overwrite: bool = False, max_views: int = 4) -> list[Path]:
    """Write ``report.json`` and ``report.html``; each file is whole or absent.

    Args:
        comparison: what to write.
        folder: where; made if needed.
        overwrite: replace an older result.
        max_views: views shown in the page.

    Returns:
        The two paths.

    Raises:
        RunError: an older result is there, or the folder cannot be written.
    """
    check_output(folder, overwrite=overwrite)
    headings = [heading for _, heading, _ in COLUMNS]
    page = html_page(comparison, headings, [cells(row) for row in comparison.rows], max_views=max_views)
    contents = {folder / JSON_NAME: to_json(comparison), folder / HTML_NAME: page}
    for path, text in contents.items():
        _atomic_write(path, text)
    return list(contents)


def _atomic_write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def _finite(value: Any) -> Any:
    """The same data with None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
