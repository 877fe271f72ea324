"""Tables of documents hold what result files say, and nothing that was typed."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.evaluation.documents.markdown_tables import (
    Cases,
    Pivot,
    Place,
    TableRow,
    Verdicts,
    filled,
    read_places,
    table,
)

ROOT = Path(__file__).resolve().parents[2]


def report(folder: Path, rows: list[dict[str, Any]], baseline: str, name: str = "r.json") -> str:
    (folder / name).write_text(json.dumps({"rows": rows, "protocol": {"baseline": baseline}}))
    return name


def test_rows_of_a_report(tmp_path: Path) -> None:
    rows = [
        {"variant": "dense", "psnr": 30.0, "query_speed_ratio": 1.0, "query_speed_ratio_quartiles": [1.0, 1.0]},
        {"variant": "fast", "psnr": 29.456, "query_speed_ratio": 2.5, "query_speed_ratio_quartiles": [2.4, 2.6],
         "macs_per_query": 1234567, "fit_seconds": None},
        {"variant": "same", "psnr": None, "query_speed_ratio": 1.01, "query_speed_ratio_quartiles": [0.9, 1.1]},
    ]  # fmt: skip
    name = report(tmp_path, rows, "dense")
    columns = ["psnr_from_to", "psnr_lost", "query_speed_ratio", "macs_per_query", "fit_seconds", "note"]
    made = [
        TableRow("a *fast* one", name, "fast", cells={"note": "text"}),
        TableRow("the same", name, "same", cells={"note": ""}),
    ]
    lines = table(Place("README.md", "t", columns, made, heading="field"), tmp_path).splitlines()
    assert lines[0] == "| field | PSNR | lost | query x | MACs a query | seconds | note |"
    assert lines[1] == "|---|---|---|---|---|---|---|"
    assert lines[2] == "| a *fast* one | 30.00 -> 29.46 | 0.54 | 2.50 | 1,234,567 | - | text |"
    with pytest.raises(DataError, match="has no variant 'slow'; there are dense, fast, same"):
        table(Place("README.md", "t", ["psnr"], [TableRow("x", name, "slow")]), tmp_path)
    place = Place("README.md", "t", ["query_speed_ratio"], [TableRow("x", name, "same")])
    assert table(place, tmp_path).splitlines()[2] == "| x | ? |", "noise is no figure"


def test_parts_of_an_image_and_a_curve(tmp_path: Path) -> None:
    parts = {"MLP": 0.25, "encoding": 0.5, "other": 0.125}
    rows = [
        {"variant": "dense", "image_split": parts, "psnr_curve": [[700, 25.04], [1400, 26.96]]},
        {"variant": "none"},
    ]
    name = report(tmp_path, rows, "dense")
    columns = ["mlp_seconds", "other_seconds", "psnr_curve"]
    made = [TableRow("a", name, "dense"), TableRow("b", name, "none")]
    lines = table(Place("README.md", "t", columns, made), tmp_path).splitlines()
    assert lines[0] == "| variant | MLP, s | other, s | held-out PSNR in training |"
    assert lines[2:] == ["| a | 0.250 | 0.625 | 25.0, 27.0 |", "| b | - | - | - |"]


def test_means_over_seeds(tmp_path: Path) -> None:
    rows = [
        {"variant": "dense-s0", "psnr": 30.0},
        {"variant": "dense-s1", "psnr": 31.0},
        {"variant": "fast-s0", "psnr": 29.0},
        {"variant": "fast-s1", "psnr": 30.5},
    ]
    name = report(tmp_path, rows, "dense-s0")
    place = Place("README.md", "t", ["psnr", "psnr_lost"], [TableRow("fast", name, "fast")])
    assert table(place, tmp_path).splitlines()[2] == "| fast | 29.75 ± 1.06 | 0.75 ± 0.35 |"


def test_reports_of_several_seeds_are_one_table(tmp_path: Path) -> None:
    names = [
        report(
            tmp_path,
            [
                {"variant": f"dense-s{seed}", "psnr": 30.0 + seed},
                {"variant": f"fast-s{seed}", "psnr": 29.0 + 0.5 * seed},
            ],
            f"dense-s{seed}",
            f"{seed}.json",
        )
        for seed in (0, 1)
    ]
    place = Place("README.md", "t", ["psnr", "psnr_lost"], [TableRow("fast", names, "fast")])
    # losses 1.0 and 1.5, each against the dense run of its own seed
    assert table(place, tmp_path).splitlines()[2] == "| fast | 29.25 ± 0.35 | 1.25 ± 0.35 |"


def test_a_suite_of_one_seed_and_its_further_seeds_are_read_as_one(tmp_path: Path) -> None:
    """A suite of one seed names its runs without it; alone, its row stays that of one run."""
    first = report(tmp_path, [{"variant": "dense", "psnr": 30.0}, {"variant": "fast", "psnr": 29.0}], "dense", "0.json")
    rows = [{"variant": "dense-s1", "psnr": 31.0}, {"variant": "fast-s1", "psnr": 29.5}]
    further = report(tmp_path, rows, "dense-s1", "1.json")
    made = [TableRow("all", [first, further], "fast"), TableRow("one", first, "fast")]
    lines = table(Place("README.md", "t", ["psnr"], made), tmp_path).splitlines()
    assert lines[2:] == ["| all | 29.25 ± 0.35 |", "| one | 29.00 |"]


def test_cases_of_a_study_stand_side_by_side(tmp_path: Path) -> None:
    cases = [("relu", "a", 8, 1.23456), ("relu", "a", 16, 200.4), ("relu", "b", 16, 0.5)]
    rows = [{"group": g, "kind": k, "m": m, "mean": {"mse": [value, 0.1]}} for g, k, m, value in cases]
    (tmp_path / "study.json").write_text(json.dumps({"rows": rows}))
    place = Pivot("docs/x.md", "t", "study.json", "mse", ["group", "kind"], "m")
    assert table(place, tmp_path).splitlines() == [
        "| group | kind | m = 8 | m = 16 |",
        "|---|---|---|---|",
        "| relu | a | 1.23 | 200 |",
        "| relu | b | - | 0.5 |",
    ]
    place = Pivot("docs/x.md", "t", "study.json", "mse", ["kind", "m"], "group")
    assert table(place, tmp_path).splitlines()[0] == "| kind | m | relu |"
    with pytest.raises(DataError, match="study with 'psnr'"):
        table(Pivot("docs/x.md", "t", "study.json", "psnr", ["group"], "m"), tmp_path)


def test_cases_of_a_study_stand_below_each_other(tmp_path: Path) -> None:
    cases = [
        ("a", [85.832, 12.377], [132609.0, 0.0], [0.0128841, 0.0003162]),
        ("b", [0.5, 0.0], [9.0, 0.0], [0.0, 0.1]),
    ]
    rows = [{"variant": v, "mean": {"psnr": p, "parameters": n, "mse": e}} for v, p, n, e in cases]
    (tmp_path / "study.json").write_text(json.dumps({"rows": rows}))
    values = {"psnr": "PSNR", "parameters": "numbers", "mse": "MSE"}
    assert table(Cases("docs/x.md", "t", "study.json", values, ["variant"]), tmp_path).splitlines() == [
        "| variant | PSNR | numbers | MSE |",
        "|---|---|---|---|",
        "| a | 85.8 ± 12.4 | 132,609 | 0.0129 ± 0.0003 |",
        "| b | 0.5 | 9 | 0.000 ± 0.100 |",
    ]
    with pytest.raises(DataError, match="study with ssim"):
        table(Cases("docs/x.md", "t", "study.json", {"ssim": "SSIM"}, ["variant"]), tmp_path)


def test_published_claims_stand_beside_what_our_runs_say(tmp_path: Path) -> None:
    report(tmp_path, [{"variant": "dense", "psnr": 30.0}, {"variant": "ours", "psnr": 29.95}], "dense")
    known = [
        {"text": "no loss", "source": "p", "claim": "psnr: ours > dense; psnr: ours > dense - 0.1"},
        {"text": "not checked", "source": "p"},
    ]
    (tmp_path / "s.yml").write_text(json.dumps({"published": known}))
    lines = table(Verdicts("docs/x.md", "t", {"r.json": "s.yml"}), tmp_path).splitlines()
    assert lines[2:] == [
        "| no loss | p | - | `s` | psnr of ours > dense: NOT confirmed (29.95 and 30, one seed); "
        "psnr of ours > dense - 0.1: confirmed (29.95 and 30, one seed) |"
    ]
    with pytest.raises(DataError, match=r"none\.yml cannot be read"):
        table(Verdicts("docs/x.md", "t", {"r.json": "none.yml"}), tmp_path)


def test_a_place_is_filled_and_nothing_else_changes() -> None:
    text = "a\n<!-- table x -->\nold | 1\n<!-- end of table -->\nb\n<!-- table y -->\n<!-- end of table -->\n"
    new = filled(text, "x", "new \\1\n")
    assert new == text.replace("old | 1\n", "new \\1\n")
    assert filled(new, "x", "new \\1\n") == new
    with pytest.raises(DataError, match="no place for table 'z'"):
        filled(text, "z", "")


def test_lists_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.yml"
    for content in ("- {document: a}", "x: 1", "- [", "- {document: a, name: b, columns: [], rows: [{label: c}]}"):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"t\.yml is no list of tables"):
            read_places(path)
    with pytest.raises(DataError, match="cannot be read as a report"):
        table(Place("README.md", "t", ["psnr"], [TableRow("x", "none.json", "a")]), tmp_path)


def test_the_documents_hold_what_their_result_files_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts/tables.py"), run_name="__main__")
    assert not ended.value.code, capsys.readouterr().err
