"""The table of goals for images."""

import json
from pathlib import Path

import pytest

from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.documents.goals_markdown import ImageGoals, goals_table


def row(run: str, way: str, seconds: str, x: str, photographs: str, first: str) -> dict[str, str]:
    return {
        **{"run": run, "way": way, "seconds": seconds, "x": x, "products at the peak, s": "0.100"},
        **{"PSNR to photographs": photographs, "PSNR to the first": first, "queries a ray that meets something": "9.0"},
    }


ROWS = [
    {**row("a", "exact", "4.00", "1.0", "30.50", ""), "products at the peak, s": ""},
    row("a", "fast", "0.40", "10.0 (9.0 to 11.0)", "30.46", "41.0"),
    row("room", "exact", "2.00", "1.0", "", ""),
]


def place(run: str, way: str) -> ImageGoals:
    return ImageGoals("docs/x.md", "goals", [{"work": "w", "goal": "8x", "report": "r.json", "run": run, "way": way}])


def test_a_row_says_what_was_reached_of_what(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"pictures": {"rows": ROWS}}))
    last = goals_table(place("a", "fast"), tmp_path).splitlines()[-1]
    assert last == "| w | 8x | 10.0 (9.0 to 11.0) | 0.40 | 25 % | 9.0 | 0.04 | 41.0 |"
    assert "| 5 % | 9.0 | - |" in goals_table(place("room", "exact"), tmp_path)


@pytest.mark.parametrize(("run", "way"), [("b", "fast"), ("a", "slow"), ("a", "exact")])
def test_what_was_not_measured_is_named(tmp_path: Path, run: str, way: str) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"pictures": {"rows": ROWS}}))
    with pytest.raises(DataError, match=rf"r\.json has no times of '{run}' rendered by '{way}'"):
        goals_table(place(run, way), tmp_path)
