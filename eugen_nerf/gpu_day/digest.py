"""A day's results in at most 100 lines: of a long output often the end alone is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eugen_nerf.benchmarks.query_speed import best_rows
from eugen_nerf.evaluation.documents.day_tables import day_cells, families_of
from eugen_nerf.gpu_day.day_parts import CHECKS

MOST_LINES, MOST_CHARACTERS = 100, 11_500
MOST_ERRORS = 12
TABLES = ("training", "long", "precision", "commands", "launches")
Result = Mapping[str, Any]


def digest(result: Result) -> list[str]:
    """Lines in order of worth; what does not fit is left out, which the last line says."""
    lines: list[str] = []
    room = MOST_CHARACTERS
    for line in _all_lines(result):
        room -= len(line) + 1
        if len(lines) >= MOST_LINES - 1 or room < 80:
            return [*lines, "and more: see gpu_day.json"]
        lines.append(line)
    return lines


def _all_lines(result: Result) -> Iterator[str]:
    parts = result["parts"]
    kind = "dry run on a CPU: no figure here says anything of a GPU" if result["dry_run"] else "a day with a GPU"
    yield f"{kind}: {result['seconds']:.0f} s of {result['minutes']:g} minutes"
    yield from _safely("networks", lambda: _device(parts))
    for name, part in parts.items():
        broken = sum("error" in row for row in part["rows"])
        yield f"  {name:10} {part['state']}; rows: {len(part['rows'])}{f', errors: {broken}' if broken else ''}"
    unfinished = any(not parts[name]["state"].startswith("done") for name in CHECKS if name in parts)
    fine = f"no check failed{', but not all were made' if unfinished else ''}"
    yield f"checks that FAILED: {', '.join(result['failed'])}" if result["failed"] else fine
    errors = [(name, row) for name, part in parts.items() for row in part["rows"] if "error" in row]
    for name, row in errors[:MOST_ERRORS]:
        yield f"  ERROR {name}: {row['row']}: {row['error'].splitlines()[-1]}"[:118]
    for name in TABLES:
        yield from _safely(name, lambda name=name: _table(result, name))  # type: ignore[misc]
    yield from _safely("queries", lambda: _queries(result))
    yield from _safely("images", lambda: _images(result))


def _safely(name: str, lines: Callable[[], Iterator[str]]) -> list[str]:
    """The lines, or that there are none: the results are in their file, and no figure of one part hides the others."""
    try:
        return list(lines())
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return [f"{name}: no table can be made of its rows: {error!r}"[:118]]


def _table(result: Result, name: str) -> Iterator[str]:
    if any("figures" in row for row in result["parts"].get(name, {"rows": ()})["rows"]):
        yield from ["", name, *_aligned(*day_cells(result, name))]


def _device(parts: Result) -> Iterator[str]:
    for row in parts.get("networks", {"rows": ()})["rows"]:
        figures = row.get("figures", {})
        if row["row"] == "device" and figures:
            names = ("device", "torch", "cuda", "triton", "python", "cores")
            yield ", ".join(f"{name} {figures[name]}" for name in names)
        if figures.get("peaks"):
            peaks = figures["peaks"]
            rates = ", ".join(f"{name} {value / 1e12:.1f} TFLOP/s" for name, value in peaks.items() if name != "copy")
            yield f"products: {rates}; copies: {peaks['copy'] / 1e12:.2f} TB/s"
        if row["row"] == "compiling" and figures:
            yield f"compiled: {figures['compiled']} of {figures['of']}, the slowest in {figures['slowest']:.0f} s"


def _queries(result: Result) -> Iterator[str]:
    if "queries" not in result["parts"]:
        return
    for family in families_of(result, "queries", "queries"):
        outer = (row.get("figures", {}).get("queries", ()) for row in result["parts"]["queries"]["rows"])
        rows = [row for group in outer for row in group if row["family"] == family]
        yield f"fastest way of each network, {family}: M queries a second, x best dense"
        for row in best_rows(rows).values():
            yield f"  {row['name']:42}{row['queries_per_second'] / 1e6:10.2f}{row['ratio']:8.2f}"


def _images(result: Result) -> Iterator[str]:
    rows = result["parts"].get("images", {"rows": ()})["rows"]
    for outer in rows:
        found = outer.get("figures", {}).get("images", ())
        for row in sorted(found, key=lambda row: row["seconds_per_image"])[:2]:
            ratio = f"{row['ratio']:8.2f}x" if "ratio" in row else ""
            yield f"  image, {row['family']}: {row['name']:34}{row['seconds_per_image']:9.3f} s{ratio}"


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells in columns."""
    lines = [headings, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    for line in lines:
        numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        yield " ".join([line[0].ljust(widths[0]), *numbers])
