"""Reports of several scenes as one, and what tables show of speeds and of published results."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.reports.headline import headline
from eugen_nerf.evaluation.reports.scene_means import means, write_summary
from eugen_nerf.evaluation.reports.tables import SIZES_REMARK, further_tables, page_tables, scores_table, sizes_table
from eugen_nerf.evaluation.statistics.published import read_published


def row(variant: str, psnr: float | None, ratio: float = 1.0, **more: Any) -> dict[str, Any]:
    known = {"ssim": 0.9, "lpips": None, "image_speed_ratio": ratio, "query_speed_ratio": ratio, "macs_per_query": 100}
    return {"variant": variant, "psnr": psnr, **known, **more}


def report(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"rows": rows, "protocol": {"baseline": "dense"}}))
    return folder


def test_means_over_scenes(tmp_path: Path) -> None:
    one = report(tmp_path / "one/m/report", row("dense", 30.0), row("eugen", 29.0, 2.0))
    two = report(tmp_path / "two/m/report", row("dense", 20.0), row("eugen", 19.5, 3.0), row("extra", None))
    other = report(tmp_path / "one/k/report", row("dense", 10.0), row("eugen", 11.0, 4.0))
    read = [("one", "m", one), ("two", "m", two), ("one", "k", other)]
    found = {(r["method"], r["variant"]): r for r in means(read)}
    assert found["m", "dense"]["psnr"] == 25.0
    assert found["m", "eugen"]["psnr_lost"] == 0.75
    assert found["m", "eugen"]["query_speed_ratio"] == 2.5
    assert found["m", "eugen"]["lpips"] is None
    assert found["m", "eugen"]["scenes"] == {"one": 29.0, "two": 19.5}
    assert found["k", "eugen"]["psnr_lost"] == -1.0
    assert found["m", "extra"]["psnr"] is None
    console = Console(file=StringIO(), width=200)
    page = write_summary("all <scenes>", read, tmp_path, console).read_text()
    assert "all &lt;scenes&gt;" in page
    assert [f'href="{name}/report/report.html"' in page for name in ("one/m", "two/m", "one/k")] == [True] * 3
    assert "24.25" in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "summary.json").read_text())["rows"] == means(read)


def test_a_report_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    report(tmp_path / "a", row("other", 3.0))
    for folder in ("a", "b"):
        with pytest.raises(RunError, match=rf"{folder}/report\.json cannot be read as a report"):
            means([("s", "m", tmp_path / folder)])


def comparison(rows: list[dict[str, Any]], **more: Any) -> Comparison:
    keys = ("seconds_per_image", "queries_per_second", "image_split", "iteration_seconds", "psnr_curve")
    rows = [{**dict.fromkeys(keys), **r} for r in rows]
    protocol = {"baseline": "dense", "number_of_views": 1, "split": "test", "resolution": ["2x2"]}
    return Comparison(rows, protocol, {"device": "cpu"}, [], [0], [], {}, **more)


@pytest.mark.parametrize(
    ("ratio", "quartiles", "shown"),
    [
        (1.0, [1.0, 1.0], "1.00x"),
        (1.02, [0.98, 1.06], "?"),
        (1.5, [1.4, 1.6], "1.50x"),
        (0.9, [0.8, 0.95], "?"),
        (0.9, [0.89, 0.95], "0.90x"),
    ],
)
def test_a_ratio_within_its_noise_is_not_shown(ratio: float, quartiles: list[float], shown: str) -> None:
    table = scores_table(comparison([row("a", 30.0, ratio, query_speed_ratio_quartiles=quartiles)]))
    assert table.rows[0][table.headings.index("query x")] == shown


SLOW, FAST, LOSSY = (
    row(n, p, r, seconds_per_image=1.0) for n, p, r in (("s", 29.7, 1.2), ("f", 29.9, 1.5), ("l", 28, 9))
)


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ([SLOW, FAST, LOSSY], "f: 1.5x as fast as dense, 0.1 dB lost"),
        ([SLOW, LOSSY], "s: 1.2x as fast as dense, 0.3 dB lost"),
        ([LOSSY], "l: 9.0x as fast as dense, 2.0 dB lost"),
        ([{**LOSSY, "psnr": 30.26}], "l: 9.0x as fast as dense, 0.3 dB gained"),
        ([{**LOSSY, "psnr": 30.01}], "l: 9.0x as fast as dense, less than 0.05 dB apart"),
        ([{**LOSSY, "psnr": float("inf")}], "l: 9.0x as fast as dense, PSNR not comparable"),
        ([{**FAST, "image_speed_ratio_quartiles": [1.0, 2.0]}], "f: as fast as dense within the noise, 0.1 dB lost"),
        ([], "dense: 30.0 dB, 1 s an image"),
        ([row("mean-image", 12.0, seconds_per_image=None)], "dense: 30.0 dB, 1 s an image"),
    ],
)
def test_the_headline_says_what_was_gained_and_lost(others: list[dict[str, Any]], sentence: str) -> None:
    assert headline([row("dense", 30.0, seconds_per_image=1.0), *others], "dense") == sentence


def test_columns_without_a_value_go() -> None:
    table = scores_table(comparison([row("a", 30.0)]))
    assert "LPIPS" not in table.headings
    table = scores_table(comparison([row("a", 30.0), {**row("b", 30.0), "lpips": 0.25}]))
    assert [texts[table.headings.index("LPIPS")] for texts in table.rows] == ["-", "0.250"]


def test_sizes_say_what_runs_and_what_is_stored() -> None:
    table = sizes_table(comparison([row("a", 30.0, inference_parameters=1_234, parameters=56_789)]))
    named = dict(zip(table.headings, table.rows[0], strict=True))
    assert (named["parameters"], named["stored"]) == ("1,234", "56,789")
    assert "--bundle" in SIZES_REMARK


def test_a_pages_tables_have_each_figure_once() -> None:
    found = comparison([row("a", 30.0, inference_parameters=12, parameters=34, checkpoint_bytes=5e6, fit_seconds=1.0)])
    first, more = page_tables(found)
    both = [*first.headings, *more.headings[1:]]
    assert set(both) == {*scores_table(found).headings, *sizes_table(found).headings}
    assert len(both) == len(set(both))
    assert first.headings[-2:] == ["parameters", "MACs/query"]
    assert more.rows == [["a", "34", "5.00", "1.0"]]


def test_published_results_stand_beside_ours(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"text": "31.31 dB", "source": "a paper", "beside": "dense", "differs": "400x400"}]))
    rows = read_published(path)
    table = further_tables(comparison([row("dense", 30.0)], published=rows))[0]
    assert table.rows == [["dense", "30.00 dB", "31.31 dB", "a paper", "400x400", "-"]]
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"p\.json cannot be read as JSON"):
        read_published(path)
    path.write_text('[{"text": "no source"}]')
    with pytest.raises(ConfigError, match=r"p\.json: published rows are mappings of texts"):
        read_published(path)
