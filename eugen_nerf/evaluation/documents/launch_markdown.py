"""Tables of documents made of what `scripts/launch_counts.py` counts on a pretended GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from eugen_nerf.core.errors import DataError


@dataclass(frozen=True)
class LaunchCounts:
    """A table of launches and waits of a training step, a line a preset."""

    document: str
    name: str
    launches: str
    """A result file, relative to the project's folder."""


def launch_table(place: LaunchCounts, folder: Path) -> str:
    """The table as Markdown.

    Raises:
        DataError: no result file, or one without both variants of every preset.
    """
    path = folder / place.launches
    try:
        rows = {(row["preset"], row["variant"]): row for row in json.loads(path.read_text(encoding="utf8"))["rows"]}
        lines = [
            f"| `{preset}` | {rows[preset, 'dense']['launches']:,} | {row['launches']:,} | {row['waits']} |"
            for (preset, variant), row in rows.items()
            if variant == "eugen"
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as counts of launches: {error!r}") from error
    headings = ["| preset | launches, dense | launches, EUGen | waits |", "|---|---|---|---|"]
    return "\n".join([*headings, *lines]) + "\n"
