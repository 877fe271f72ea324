"""Tables of documents with the rows of a result file: what `scripts/{reliability,renderer_cost}.py` print."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from eugen_nerf.core.errors import DataError


@dataclass(frozen=True)
class Attempts:
    """A table with a row as in the file, and their sum below: of attacks, what became of them."""

    document: str
    name: str
    attempts: str
    """A result file, relative to the project's folder."""
    table: str
    """Name of one of its tables."""
    total: bool = True
    """Whether their sum stands below."""


def attempts_table(place: Attempts, folder: Path) -> str:
    """The table as Markdown: a column for every key that a row has.

    Raises:
        DataError: no result file, or no such table in it.
    """
    path = folder / place.attempts
    try:
        rows = json.loads(path.read_text(encoding="utf8"))[place.table]["rows"]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        counts = [key for key in keys if any(isinstance(row.get(key), int) for row in rows)]
        if place.total:
            rows = [*rows, {keys[0]: "all", **{key: sum(row.get(key, 0) for row in rows) for key in counts}}]
        lines = ["| " + " | ".join(_cell(row.get(key)) for key in keys) + " |" for row in rows]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a table {place.table!r} of attempts: {error!r}") from error
    return "\n".join(["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys), *lines]) + "\n"


def _cell(value: object) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
