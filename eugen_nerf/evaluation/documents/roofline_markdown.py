"""Tables of documents made of a result of `eugen-bench roofline`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.core.errors import DataError

_SHOWN = {"float32": "float32", "tf32": "TF32", "bfloat16": "bfloat16"}


@dataclass(frozen=True)
class Predictions:
    """A table of what steps should take, a line a step, with milliseconds by precision."""

    document: str
    name: str
    predictions: str
    """A result file, relative to the project's folder."""
    mode: str
    """train or eval."""


def predictions_table(place: Predictions, folder: Path) -> str:
    """The table as Markdown; what a step moves, makes, keeps and waits for is that of its TF32 row.

    Raises:
        DataError: no result file, or no such rows in it.
    """
    path = folder / place.predictions
    steps: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    try:
        for row in json.loads(path.read_text(encoding="utf8"))["rows"]:
            if row["mode"] == place.mode:
                steps.setdefault((row["method"], row["variant"]), {})[row["precision"]] = row
        lines = [_line(rows) for rows in steps.values()]
        if not lines:
            raise KeyError(place.mode)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path} cannot be read as predictions of {place.mode!r}: {error!r}") from error
    headings = ["method", "network", "rays", *(f"{name}, ms" for name in _SHOWN.values())]
    headings += ["launches", "GB moved", "TFLOP", "GB kept", "takes most", "held back by"]
    return "\n".join(["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings), *lines]) + "\n"


def _line(rows: Mapping[str, Mapping[str, Any]]) -> str:
    row = rows["tf32"]
    most = row["parts"][0]
    limits = [(name, seconds / row["seconds"]) for name, seconds in row["limits"].items()]
    cells = [
        f"`{row['method']}`",
        row["variant"],
        f"{row['rays']:,}",
        *(f"{1e3 * rows[name]['seconds']:.1f}" if name in rows else "-" for name in _SHOWN),
        f"{row['launches']:,}",
        f"{row['bytes'] / 1e9:.1f}",
        f"{row['flops'] / 1e12:.2f}",
        f"{row['kept_bytes'] / 1e9:.1f}" if row["kept_bytes"] else "-",
        f"{most['part']}, {most['pass']} ({most['seconds'] / row['seconds']:.0%})",
        ", ".join(f"{name} {share:.0%}" for name, share in limits if share >= 0.1),
    ]
    return "| " + " | ".join(cells) + " |"
