"""Published results beside ours: plain texts with their source and what makes them hard to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.statistics.claims import read_claims

KEYS = ("text", "source", "beside", "differs", "claim")
HEADINGS = {"text": "published", "source": "source", "differs": "what differs", "verdict": "our run"}
"""What tables say of a row; the verdict is `claims.judged`'s."""


def check_published(rows: Any, where: str) -> list[dict[str, str]]:
    """The rows, if they are what they should be.

    Args:
        rows: a list of mappings with the texts `text` and `source`, perhaps `beside` (the name of a run of ours),
            `differs`, and `claim` (see `evaluation/statistics/claims.py`).
        where: what an error says they come from.

    Raises:
        ConfigError: anything else.
    """
    fits = isinstance(rows, Sequence) and all(
        isinstance(row, Mapping)
        and {"text", "source"} <= set(row) <= set(KEYS)
        and all(isinstance(value, str) for value in row.values())
        for row in rows
    )
    if not fits:
        raise ConfigError(
            f"{where}: published rows are mappings of texts: text, source, perhaps beside, differs and claim"
        )
    for row in rows:
        if "claim" in row:
            read_claims(row["claim"], where)
    return [dict(row) for row in rows]


def read_published(path: Path) -> list[dict[str, str]]:
    """Published rows of a JSON file.

    Raises:
        ConfigError: no such file, no JSON, or other content.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from error
    return check_published(rows, str(path))
