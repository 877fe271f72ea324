"""Showing and keeping the results of a study: tables of means over seeds, a plot, `report.json` and `report.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from eugen_nerf.evaluation.costs.resources import environment
from eugen_nerf.evaluation.reports.pages import render_page
from eugen_nerf.evaluation.reports.svg_plots import errors_svg
from eugen_nerf.evaluation.reports.text_tables import TextTable, rich_table
from eugen_nerf.evaluation.statistics.claims import groups_of, judged
from eugen_nerf.evaluation.statistics.seeds import mean_and_spread
from eugen_nerf.studies.study_run import Case, Column, Study
from eugen_nerf.surfaces.files import write_texts


def study_rows(cases: Sequence[Case], results: Sequence[Mapping[int, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """A row for every case: the case, its results by seed, and their means.

    Args:
        cases: in the order of the tables.
        results: of each case, by seed.
    """
    rows = []
    for case, by_seed in zip(cases, results, strict=True):
        keys = next(iter(by_seed.values())).keys()
        mean = {key: mean_and_spread([result[key] for result in by_seed.values()]) for key in keys}
        rows.append({**case, "seeds": {str(seed): dict(result) for seed, result in by_seed.items()}, "mean": mean})
    return rows


def study_tables(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """A table for every group of cases."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    headings = ["variant", *(column.heading for column in study.columns)]
    return [
        TextTable(
            group,
            headings,
            [
                [row["variant"], *(_cell(row["mean"][column.key], column) for column in study.columns)]
                for row in rows
                if row["group"] == group
            ],
        )
        for group in groups
    ]


def write_study(
    name: str,
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    console: Console,
    published: Sequence[Mapping[str, str]] = (),
) -> Path:
    """Prints the tables, writes `report.json` and `report.html` into a new folder; returns the page."""
    tables = study_tables(study, rows)
    for table in tables:
        console.print(rich_table(table))
    console.print(study.remark, markup=False, highlight=False)
    published_results = judged(published, groups_of(rows))
    for row in published_results:
        console.print(f"published: {row['text']}; {row.get('verdict', 'not checked')}", markup=False, highlight=False)
    record = {
        "name": name,
        "study": type(study).__name__,
        "settings": asdict(study),
        "rows": list(rows),
        "remark": study.remark,
        "published": published_results,
        "environment": environment("cpu", [str(torch.get_default_dtype()).removeprefix("torch.")]),
    }
    page = folder / "report.html"
    text = json.dumps(record, indent=2) + "\n"
    write_texts({folder / "report.json": text, page: _page(record, study, tables)})
    return page


def _cell(mean: Sequence[float], column: Column) -> str:
    value = column.form.format(mean[0])
    return value if mean[1] == 0 else f"{value} ± {column.form.format(mean[1])}"


def _page(record: Mapping[str, Any], study: Study, tables: Sequence[TextTable]) -> str:
    return render_page(
        "study.html",
        title=record["name"],
        remark=study.remark,
        groups=[(table, _plot(study, table.title, record["rows"])) for table in tables],
        published=record["published"],
        settings_of_study=record["settings"],
        environment=record["environment"],
    )


def _plot(study: Study, group: str, rows: Sequence[Mapping[str, Any]]) -> str:
    x, y = study.plot
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["group"] == group:
            kind = str(row.get("kind", row["variant"]))
            series.setdefault(kind, []).append((row["mean"][x][0], row["mean"][y][0]))
    return errors_svg(series, _words(x), _words(y))


def _words(key: str) -> str:
    return key.replace("_", " ")
