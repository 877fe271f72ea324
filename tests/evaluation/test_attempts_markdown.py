"""The tables of what `scripts/reliability.py` counts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.documents.attempts_markdown import Attempts, attempts_table

PLACE = Attempts("docs/x.md", "kills", "counts.json", "kills")


def test_a_sum_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text('{"kills": {"rows": [{"what": "a", "x": "1.5"}]}}', encoding="utf8")
    assert attempts_table(replace(PLACE, total=False), tmp_path).splitlines()[2:] == ["| a | 1.5 |"]


def test_rows_and_their_sum(tmp_path: Path) -> None:
    rows = [{"what": "a", "tries": 1200, "lost": 0}, {"what": "b", "tries": 30, "lost": 2, "note": "slow"}]
    (tmp_path / "counts.json").write_text(json.dumps({"kills": {"rows": rows}}))
    assert attempts_table(PLACE, tmp_path).splitlines() == [
        "| what | tries | lost | note |",
        "|---|---|---|---|",
        "| a | 1,200 | 0 |  |",
        "| b | 30 | 2 | slow |",
        "| all | 1,230 | 2 |  |",
    ]


@pytest.mark.parametrize("content", [None, "{}", '{"kills": {"rows": []}}', '{"kills": {"rows": [3]}}', "["])
def test_what_is_no_such_table_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "counts.json").write_text(content)
    with pytest.raises(DataError, match=r"counts\.json cannot be read as a table 'kills' of attempts"):
        attempts_table(PLACE, tmp_path)
