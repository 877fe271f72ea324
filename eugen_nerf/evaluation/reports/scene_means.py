"""Reports of several scenes as one: means over the scenes, and every scene's PSNR."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from eugen_nerf.core.errors import RunError
from eugen_nerf.evaluation.reports.pages import render_page
from eugen_nerf.evaluation.reports.text_tables import TextTable, rich_table, text_table
from eugen_nerf.surfaces.files import write_texts

AVERAGED = (
    *("psnr", "psnr_lost", "ssim", "lpips"),
    *("image_speed_ratio", "query_speed_ratio", "macs_per_query"),
)


def means(reports: Sequence[tuple[str, str, Path]]) -> list[dict[str, Any]]:
    """Means over the scenes, a row for every method and variant.

    Args:
        reports: scene, method and the folder of the report.

    Returns:
        Rows with `method`, `variant`, `scenes` (PSNR by scene) and the keys of `AVERAGED`, None where a scene has none.
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
        values: dict[str, list[Any]] = {key: [row.get(key) for row in rows.values()] for key in AVERAGED}
        mean = {key: None if None in numbers else fmean(numbers) for key, numbers in values.items()}
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
    page = render_page(
        "scene_means.html",
        title=title,
        tables=tables,
        links=[(name, os.path.relpath(path / "report.html", folder)) for name, path in names],
    )
    text = json.dumps({"rows": rows}, indent=2) + "\n"
    write_texts({folder / "summary.json": text, folder / "summary.html": page}, overwrite=True)
    return folder / "summary.html"


def _mean_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    return text_table(
        "Means over the scenes",
        ("method", "variant", "scene_count", *AVERAGED),
        [{**row, "scene_count": len(row["scenes"])} for row in rows],
        "lost: PSNR of the scene's baseline less the row's own.",
    )


def _scene_table(rows: Sequence[dict[str, Any]]) -> TextTable:
    scenes = list(dict.fromkeys(scene for row in rows for scene in row["scenes"]))
    return text_table(
        "PSNR of every scene",
        ("method", "variant", *scenes),
        [{**row["scenes"], "method": row["method"], "variant": row["variant"]} for row in rows],
    )
