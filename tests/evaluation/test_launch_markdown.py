"""The table of launches that are counted without a GPU."""

import json
from pathlib import Path

import pytest

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.documents.launch_markdown import LaunchCounts, launch_table

PLACE = LaunchCounts("docs/x.md", "launches", "counts.json")


def write(folder: Path, *variants: str) -> None:
    rows = [{"preset": "a", "variant": v, "launches": 1000 * len(v), "waits": 7} for v in variants]
    (folder / "counts.json").write_text(json.dumps({"rows": rows}))


def test_a_preset_has_a_line(tmp_path: Path) -> None:
    write(tmp_path, "eugen", "dense")
    rows = json.loads((tmp_path / "counts.json").read_text())["rows"]
    rows[1]["launches"] = 12
    (tmp_path / "counts.json").write_text(json.dumps({"rows": rows}))
    assert launch_table(PLACE, tmp_path).splitlines()[2:] == ["| `a` | 12 | 5,000 | 7 |"]


@pytest.mark.parametrize("variants", [None, ("eugen",)])
def test_what_is_missing_is_named(tmp_path: Path, variants: tuple[str, ...] | None) -> None:
    if variants:
        write(tmp_path, *variants)
    with pytest.raises(DataError, match=r"counts\.json cannot be read as counts of launches"):
        launch_table(PLACE, tmp_path)
