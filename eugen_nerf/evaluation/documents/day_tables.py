"""Tables of a day with a GPU: cells for its page and for its summary, from `gpu_day.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.documents.speed_markdown import (
    Cells,
    image_cells,
    markdown_lines,
    query_cells,
    training_cells,
)

NOT_RUN = "not run on a GPU\n"
"""What stands in place of a table until there is a result."""
Result = Mapping[str, Any]
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class DayTable:
    """A table of a day with a GPU."""

    document: str
    name: str
    day: str
    """A `gpu_day.json`, relative to the project's folder; it may be absent."""
    of: str
    """A part, or what a part measures of a family, as `queries NeRF 8x256`."""


def day_table(place: DayTable, folder: Path) -> str:
    """The table as Markdown; `NOT_RUN` where there is no result, or only a dry run's.

    Raises:
        DataError: a result that cannot be read, or nothing of that kind in it.
    """
    path = folder / place.day
    if not path.is_file():
        return NOT_RUN
    try:
        result = json.loads(path.read_text(encoding="utf8"))
        return NOT_RUN if result["dry_run"] else markdown_lines(*day_cells(result, place.of))
    except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise DataError(f"{path} cannot be read as {place.of!r} of a day with a GPU: {error!r}") from error


def day_cells(result: Result, of: str) -> Cells:
    """Headings and cells of one table; columns without any value are left out."""
    kind, _, family = of.partition(" ")
    if kind == "queries" and family:
        return query_cells(_nested(result, "queries", "queries", family))
    if kind == "pictures":
        return image_cells(_nested(result, "queries", "pictures", family))
    if kind == "steps":
        return training_cells(_nested(result, "queries", "training", family))
    if kind == "images" and family:
        return image_cells(_nested(result, "images", "images", family))
    columns = COLUMNS[kind]
    rows = [row for row in result["parts"][kind]["rows"] if "figures" in row]
    cells = [[column(row["figures"]) for column in columns.values()] for row in rows]
    kept = [i for i in range(len(columns)) if any(row[i] is not None for row in cells)]
    headings = ["", *(list(columns)[i] for i in kept)]
    return headings, [
        [row["row"], *("-" if found[i] is None else str(found[i]) for i in kept)]
        for row, found in zip(rows, cells, strict=True)
    ]


def _nested(result: Result, part: str, key: str, family: str) -> list[Mapping[str, Any]]:
    """Rows of a family that one row of a part holds."""
    return [
        row
        for outer in result["parts"][part]["rows"]
        for row in outer.get("figures", {}).get(key, ())
        if row["family"] == family
    ]


def families_of(result: Result, part: str, key: str) -> Iterator[str]:
    """Families that a part has rows of, once each."""
    rows = (row for outer in result["parts"][part]["rows"] for row in outer.get("figures", {}).get(key, ()))
    yield from dict.fromkeys(row["family"] for row in rows)


def _number(key: str, form: str, *path: str, scale: float = 1.0) -> Callable[[Figures], str | None]:
    def cell(figures: Figures) -> str | None:
        found: Any = figures
        for name in (*path, key):
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else form.format(scale * found)

    return cell


def _beside(key: str, other: str) -> Callable[[Figures], str | None]:
    """Counted by the profiler, and in brackets on the pretended device."""

    def cell(figures: Figures) -> str | None:
        measured, counted = figures.get(key), figures.get(other)
        if measured is None and counted is None:
            return None
        text = "-" if measured is None else f"{measured:,.0f}"
        return text if counted is None else f"{text} ({counted:,.0f})"

    return cell


_TRAINING: dict[str, Callable[[Figures], str | None]] = {
    "data": lambda figures: figures.get("data"),
    "products": lambda figures: figures.get("arithmetic"),
    "steps": _number("steps", "{:,.0f}"),
    "ms a step": _number("ms", "{:.1f}"),
    "data ms": _number("data", "{:.1f}", "split_ms"),
    "forward": _number("forward", "{:.1f}", "split_ms"),
    "backward": _number("backward", "{:.1f}", "split_ms"),
    "optimizer": _number("optimizer", "{:.1f}", "split_ms"),
    "device busy": _number("device_ms", "{:.1f}"),
    "roofline": _number("predicted_ms", "{:.1f}"),
    "launches": _beside("launches", "pretended_launches"),
    "waits": _beside("synchronisations", "pretended_synchronisations"),
    "GB": _number("peak_memory_bytes", "{:.2f}", scale=1e-9),
    "PSNR": _number("psnr", "{:.2f}", "metrics"),
    "SSIM": _number("ssim", "{:.3f}", "metrics"),
    "LPIPS": _number("lpips", "{:.3f}", "metrics"),
    "depth cm": _number("depth_l1_cm", "{:.1f}", "metrics"),
    "s an image": _number("image_seconds", "{:.2f}"),
}
COLUMNS: dict[str, dict[str, Callable[[Figures], str | None]]] = {
    "training": _TRAINING,
    "precision": {
        name: cell for name, cell in _TRAINING.items() if name not in ("data", "data ms", "optimizer", "products")
    },
    "long": _TRAINING,
    "commands": {
        "seconds": _number("seconds", "{:.1f}"),
        "PSNR": _number("psnr", "{:.2f}", "results"),
        "SSIM": _number("ssim", "{:.3f}", "results"),
        "LPIPS": _number("lpips", "{:.3f}", "results"),
    },
    "launches": {
        "chosen (rows, warps, window)": lambda figures: figures["chosen"],
        "fastest": lambda figures: figures["launches"][0]["launch"],
        "M queries a second": lambda figures: f"{figures['launches'][0]['queries_per_second'] / 1e6:.1f}",
        "of the peak": lambda figures: f"{figures['launches'][0]['share_of_peak']:.0%}",
    },
    "networks": {
        "checks": lambda figures: {True: "ok", False: "FAILED"}.get(figures.get("ok")),  # type: ignore[arg-type]
        "collapse": _number("collapse", "{:.0e}"),
        "plans": lambda figures: str(len(figures["plans"])) if "plans" in figures else None,
        "device": lambda figures: figures.get("device"),
    },
    "methods": {
        "checks": lambda figures: "ok" if figures["ok"] else "FAILED",
        "image": lambda figures: "x".join(map(str, figures["image"])),
    },
}
"""Cells of the rows of each part, by heading."""
