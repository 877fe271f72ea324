"""Reports of several scenes as one: means over the scenes, and every scene's PSNR."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.reports.comparison_report import rich_table
from eugen_nerf.evaluation.reports.html import STYLE, table_html
from eugen_nerf.evaluation.reports.tables import TextTable
from eugen_nerf.surfaces.files import new_file

COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("psnr", "PSNR", "{:.2f}".format),
    ("psnr_lost", "lost", "{:.2f}".format),
    ("ssim", "SSIM", "{:.3f}".format),
    ("lpips", "LPIPS", "{:.3f}".format),
    ("image_speed_ratio", "image x", "{:.2f}x".format),
    ("query_speed_ratio", "query x", "{:.2f}x".format),
    ("macs_per_query", "MACs/query", "{:,.0f}".format),
)


def means(reports: Sequence[tuple[str, str, Path]]) -> list[dict[str, Any]]:
    """Means over the scenes, a row for every method and variant.

    Args:
        reports: scene, method and the folder of the report.

    Returns:
        Rows with `method`, `variant`, `scenes` (PSNR by scene) and the keys of `COLUMNS`, None where a scene has none.
        `psnr_lost` is against the baseline of the same scene.

    Raises:
        RunError: a report that cannot be read.
    """
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for scene, method, folder in reports:
        path = folder / "report.json"
        try:
            content = json.loads(path.read_text(encoding="utf8"))
            baseline = next(r["psnr"] for r in content["rows"] if r["variant"] == content["protocol"]["baseline"])
        except (OSError, ValueError, KeyError, StopIteration) as error:
            raise RunError(f"{path} cannot be read as a report: {type(error).__name__}") from error
        for row in content["rows"]:
            lost = None if None in (baseline, row["psnr"]) else baseline - row["psnr"]
            groups.setdefault((method, row["variant"]), {})[scene] = {**row, "psnr_lost": lost}
    result = []
    for (method, variant), rows in groups.items():
        values: dict[str, list[Any]] = {key: [row.get(key) for row in rows.values()] for key, _, _ in COLUMNS}
        mean = {key: None if None in found else fmean(found) for key, found in values.items()}
        scenes = {scene: row["psnr"] for scene, row in rows.items()}
        result.append({"method": method, "variant": variant, "scenes": scenes, **mean})
    return result


def write_summary(title: str, reports: Sequence[tuple[str, str, Path]], folder: Path, console: Console) -> Path:
    """Prints the means, writes `summary.json` and `summary.html`, which links to the reports.

    Args:
        title: of the page.
        reports: see `means`.
        folder: where; summaries of the last time are replaced, the reports they were made of are kept elsewhere.
        console: for the table.

    Returns:
        The page.
    """
    rows = means(reports)
    tables = [_mean_table(rows), _scene_table(rows)]
    console.print(rich_table(tables[0]))
    names = [(", ".join(filter(None, (scene, method))), path) for scene, method, path in reports]
    links = "".join(
        f'<li><a href="{html.escape(os.path.relpath(path / "report.html", folder))}">{html.escape(name)}</a></li>'
        for name, path in names
    )
    sections = "".join(f"<h2>{html.escape(t.title)}</h2><p>{html.escape(t.remark)}</p>{table_html(t)}" for t in tables)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><h1>{html.escape(title)}</h1>{sections}<h2>Reports</h2><ul>{links}</ul></body></html>
"""
    for name, text in (("summary.json", json.dumps({"rows": rows}, indent=2) + "\n"), ("summary.html", page)):
        with new_file(folder / name, overwrite=True) as partial:
            partial.write_text(text, encoding="utf8")
    return folder / "summary.html"


def _mean_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    headings = ["method", "variant", "scenes", *(heading for _, heading, _ in COLUMNS)]
    texts = [
        [
            row["method"],
            row["variant"],
            str(len(row["scenes"])),
            *("-" if row[key] is None else form(row[key]) for key, _, form in COLUMNS),
        ]
        for row in rows
    ]
    return TextTable("Means over the scenes", headings, texts, "lost: PSNR of the scene's baseline less the row's own.")


def _scene_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    scenes = list(dict.fromkeys(scene for row in rows for scene in row["scenes"]))
    texts = [
        [
            row["method"],
            row["variant"],
            *("-" if (psnr := row["scenes"].get(scene)) is None else f"{psnr:.2f}" for scene in scenes),
        ]
        for row in rows
    ]
    return TextTable("PSNR of every scene", ["method", "variant", *scenes], texts)
