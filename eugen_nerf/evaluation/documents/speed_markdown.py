"""Tables of documents made of a result of `eugen-bench speed`, and what a day with a GPU shares with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.benchmarks.query_speed import best_rows
from eugen_nerf.core.errors import DataError

Rows = Sequence[Mapping[str, Any]]
Cells = tuple[list[str], list[list[str]]]
"""Headings, and the cells of each row."""


@dataclass(frozen=True)
class Speeds:
    """A table of speeds: every way of running the dense network, and the fastest way of every other."""

    document: str
    name: str
    speeds: str
    """A result file, relative to the project's folder."""
    of: str
    """A family of networks, or `pictures` or `training` of a family, as `training NeRF 8x256`."""
    against: str = ""
    """A row; ratios to it are shown beside those to the best dense one."""


def speeds_table(place: Speeds, folder: Path) -> str:
    """The table as Markdown.

    Raises:
        DataError: no result file, or nothing of that family in it.
    """
    path = folder / place.speeds
    try:
        result = json.loads(path.read_text(encoding="utf8"))
        if place.of.startswith("pictures "):
            family = place.of.removeprefix("pictures ")
            rows = result.get("images") or result["pictures"]
            return markdown_lines(*image_cells([row for row in rows if row["family"] == family]))
        if place.of.startswith("training "):
            family = place.of.removeprefix("training ")
            return markdown_lines(*training_cells([row for row in result["training"] if row["family"] == family]))
        return markdown_lines(
            *query_cells([row for row in result["queries"] if row["family"] == place.of], place.against)
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise DataError(f"{path} cannot be read as speeds of {place.of!r}: {error!r}") from error


def query_cells(rows: Rows, against: str = "") -> Cells:
    """Headings and cells: every way of running the dense network, and the fastest way of every other."""
    rows = [row for row in rows if not (row["note"] or "").startswith("not ")]  # what fell back is another row again
    best = [row for row in best_rows(rows).values() if not row["name"].startswith("dense, ")]
    shown = [row for row in rows if row["name"].startswith("dense, ")] + best
    other = next(row["queries_per_second"] for row in rows if row["name"] == against) if against else 0.0
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "network, how it is run": lambda row: f"**{row['name']}**" if row["best_dense"] else row["name"],
        "MACs": lambda row: f"{row['multiply_adds']:,}",
        "queries a second": lambda row: _rate(row["queries_per_second"]),
        "x best dense": lambda row: f"{row['ratio']:.2f} ({_span(row['ratio_quartiles'])})",
    }
    if against:
        columns[f"x {against}"] = lambda row: f"{row['queries_per_second'] / other:.2f}"
    columns["of the peak"] = lambda row: f"{row['share_of_peak']:.0%}"
    columns["deviation"] = lambda row: "-" if row["deviation"] is None else f"{row['deviation']:.1e}"
    return list(columns), [[cell(row) for cell in columns.values()] for row in shown]


def image_cells(rows: Rows) -> Cells:
    """Headings and cells of images: seconds, ratio to the best dense one, seconds of the parts."""
    parts = list(rows[0]["split"])
    cells = [
        [
            f"**{row['name']}**" if row["best_dense"] else row["name"],
            f"{row['seconds_per_image']:.3g}",
            f"{row['ratio']:.2f}",
            *(f"{row['split'][part]:.3g}" for part in parts),
        ]
        for row in rows
    ]
    return ["network, how it is run", "seconds", "x best dense", *parts], cells


def training_cells(rows: Rows) -> Cells:
    """Headings and cells of the networks' training steps."""
    cells = [
        [
            row["name"],
            f"{row['milliseconds']:.1f}",
            f"{row['ratio']:.2f} ({_span(row['ratio_quartiles'])})",
        ]
        for row in rows
    ]
    return ["network", "ms a step", "x dense"], cells


def _span(quartiles: Sequence[float]) -> str:
    return f"{quartiles[0]:.2f} to {quartiles[1]:.2f}"


def _rate(rate: float) -> str:
    return f"{rate / 1e6:,.1f} M" if rate >= 1e6 else f"{rate / 1e3:,.0f} k"


def markdown_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("no rows")
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
