"""Hooks of `mkdocs.yml`: the reference of `eugen_nerf.core` lists its public names, in the groups of `api.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

API = Path(__file__).resolve().parent.parent / "eugen_nerf" / "core" / "api.py"
MARK = "<!-- public names of eugen_nerf.core -->"


def groups(source: str) -> dict[str, list[str]]:
    """Names of `__all__` by the comment above them; those before the first comment stand under `Public names`."""
    listed = re.search(r"^__all__ = \[.*?^\]", source, re.DOTALL | re.MULTILINE)
    assert listed, f"{API} has no list __all__"
    found: dict[str, list[str]] = {}
    title = "Public names"
    for line in listed[0].splitlines()[1:-1]:
        if line.strip().startswith("#"):
            title = line.strip().lstrip("# ")
        else:
            found.setdefault(title, []).extend(ast.literal_eval(f"[{line}]"))
    return found


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the mark by a section for each group, and by what mkdocstrings makes of each name."""
    if MARK not in markdown:
        return markdown
    lines = []
    for title, names in groups(API.read_text(encoding="utf8")).items():
        lines += [f"## {title}", "", *(f"::: eugen_nerf.core.api.{name}\n" for name in names)]
    return markdown.replace(MARK, "\n".join(lines))
