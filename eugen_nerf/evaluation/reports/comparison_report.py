"""Showing and keeping a comparison: a table on the console, ``report.json`` and a self-contained ``report.html``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.output_paths import HTML_NAME, JSON_NAME, check_output
from eugen_nerf.evaluation.reports.comparison_page import html_page
from eugen_nerf.evaluation.reports.headline import headline
from eugen_nerf.evaluation.reports.scored_images import TRUTH, image_folders, remove_images, write_images
from eugen_nerf.evaluation.reports.tables import (
    RATIOS,
    SIZES_REMARK,
    further_tables,
    scores_table,
    sizes_table,
)
from eugen_nerf.evaluation.reports.text_tables import rich_table
from eugen_nerf.evaluation.reports.training_curves import curve_line
from eugen_nerf.surfaces.files import write_texts


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Print the headline, the tables, the curves' lines and the notes."""
    console = console or Console()
    console.print(headline(comparison.rows, comparison.protocol["baseline"]), markup=False, style="bold")
    # Two tables: one with every column does not fit a terminal of 80 characters.
    for table in (scores_table(comparison), sizes_table(comparison)):
        console.print(rich_table(table))
    baseline = comparison.protocol["baseline"]
    console.print(f"image x, query x: speed relative to {baseline}, {RATIOS}", markup=False)
    console.print(SIZES_REMARK, markup=False, highlight=False)
    for table in further_tables(comparison):
        console.print()
        console.print(rich_table(table))
        console.print(table.remark, markup=False, highlight=False)
    for row in comparison.rows:
        if row["psnr_curve"]:
            console.print(curve_line(row["variant"], row["psnr_curve"]), markup=False, highlight=False, soft_wrap=True)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def to_json(comparison: Comparison) -> str:
    """The content of ``report.json``: ``rows``, ``protocol``, ``environment``, ``notes``, ``published``.

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
        "published": comparison.published,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_report(
    comparison: Comparison, folder: Path, *, overwrite: bool = False, max_views: int = 4, images: bool = True
) -> list[Path]:
    """Write ``report.json``, ``report.html`` and the scored images; all of one comparison.

    The images get a folder of a new name, which ``report.json`` names: until it is replaced, the older report has its
    own images, which are removed afterwards.

    Args:
        comparison: what to write.
        folder: where; made if needed.
        overwrite: replace an older result.
        max_views: views shown in the page.
        images: keep every scored image and its photograph as PNG, so that `scored_images.verify` can check the scores.

    Returns:
        The paths written.

    Raises:
        RunError: an older result is there, or the folder cannot be written.
    """
    check_output(folder, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror}") from error
    written = [write_images(comparison, folder)] if images else []
    for path in written:
        folders = image_folders(list(comparison.renders), path.name)
        rows = [{**row, "pictures": folders.get(row["variant"])} for row in comparison.rows]
        protocol = {**comparison.protocol, "ground_truth_pictures": f"{path.name}/{TRUTH}"}
        comparison = replace(comparison, rows=rows, protocol=protocol)
    page = html_page(comparison, max_views=max_views)
    contents = {folder / JSON_NAME: to_json(comparison), folder / HTML_NAME: page}
    write_texts(contents, overwrite=overwrite)
    remove_images(folder, keep=written)
    return [*contents, *written]


def _finite(value: Any) -> Any:
    """The same data with None for every float that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
