"""Showing and keeping a comparison of signed distances: tables, `report.json`, `slices.png` and `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eugen_nerf.evaluation.output_paths import HTML_NAME, JSON_NAME, SLICES_NAME, check_sdf_report
from eugen_nerf.evaluation.reports.pages import png_bytes_uri, render_page
from eugen_nerf.evaluation.reports.text_tables import TextTable, rich_table, text_table
from eugen_nerf.evaluation.sdf.sdf_comparison import SdfComparison, to_json
from eugen_nerf.evaluation.statistics.published import HEADINGS as PUBLISHED
from eugen_nerf.evaluation.statistics.seeds import over_seeds
from eugen_nerf.surfaces.files import new_files
from eugen_nerf.surfaces.slices import draw_slices

EXACT = ("volume_l1_cm", "surface_l1_cm", "ray_l1_cm", "gradient_cosine", "surface_gradient_cosine")
MEASURED = (
    *("heldout_l1_cm", "depth_l1_cm", "depth_median_cm", "depth_hits"),
    *("accuracy_cm", "completion_cm", "chamfer_cm"),
)
TIMES = (
    *("value_ms", "value_speed_ratio", "gradient_ms", "gradient_speed_ratio"),
    *("iteration_seconds", "iteration_speed_ratio"),
)
SIZES = ("inference_parameters", "macs_per_query", "parameters", "fit_seconds")
REMARK = (
    "Errors in cm. volume, surface, rays: mean |distance - exact distance| over free space that was observed, at the "
    "surface, along held-out rays. cosine: of the gradient with the exact one, in the volume and at the surface. "
    "held-out: mean |distance| at surface points of held-out views. depth: of the first crossing along held-out rays "
    "that have one (hits: their share). accuracy, completion, Chamfer: from the mesh to the reference surface, back, "
    "and their mean. value, gradient: the distance alone, and with its gradient; x: speed relative to the baseline, "
    "median of the ratios in a round. parameters: of the network as it runs, collapsed; stored: as a checkpoint keeps "
    "them to be trained on; eugen-distill --bundle writes the compact form."
)


def print_tables(comparison: SdfComparison, console: Console) -> None:
    """Prints errors, bands, costs, means over seeds, and the notes."""
    for table in _tables(comparison):
        console.print(rich_table(table))
    console.print(REMARK, markup=False, highlight=False)
    console.print(f"reference: {comparison.protocol['reference']}", markup=False, highlight=False)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def write_report(comparison: SdfComparison, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Writes `slices.png` (where there are slices), `report.html` and `report.json`: whole, and of one comparison.

    Raises:
        RunError: an older report is there, or the folder cannot be written.
    """
    check_sdf_report(folder, overwrite=overwrite)
    slices = [folder / SLICES_NAME]
    drawn = slices if comparison.slices else []
    paths = [folder / JSON_NAME, folder / HTML_NAME, *drawn]
    with new_files(paths, overwrite=overwrite, obsolete=[] if drawn else slices) as (report, page, *images):
        for image in images:
            draw_slices(comparison.slices, image)
        report.write_text(to_json(comparison), encoding="utf8")
        page.write_text(html_page(comparison, images[0].read_bytes() if images else b""), encoding="utf8")
    return [*drawn, *reversed(paths[:2])]


def html_page(comparison: SdfComparison, slices: bytes = b"") -> str:
    """One page that needs no other file: tables, slices (PNG), settings."""
    return render_page(
        "signed_distance.html",
        title=f"Signed distances of {', '.join(row['variant'] for row in comparison.rows)}",
        remark=REMARK,
        notes=comparison.notes,
        tables=_tables(comparison),
        slices=png_bytes_uri(slices) if slices else "",
        protocol=comparison.protocol,
        environment=comparison.environment,
    )


def _tables(comparison: SdfComparison) -> list[TextTable]:
    rows, protocol = comparison.rows, comparison.protocol
    tables = []
    if any(row["volume_l1_bands_cm"] for row in rows):
        tables.append(_table("errors against the exact distance, cm", EXACT, rows))
        names = list(next(row["volume_l1_bands_cm"] for row in rows if row["volume_l1_bands_cm"]))
        flat = [{"variant": row["variant"], **row["volume_l1_bands_cm"]} for row in rows]
        tables.append(_table("volume, cm, by distance to the surface", names, flat))
    tables.append(_table("held-out depth and mesh, cm", MEASURED, rows))
    timed = f"{protocol['timed_rays']} rays x {protocol['timed_samples']} points, {comparison.environment['device']}"
    tables.append(_table(f"one forward pass on {timed}, against {protocol['baseline']}", TIMES, rows))
    tables.append(_table("sizes", SIZES, rows))
    for what, keys in (("exact distance, cm", EXACT), ("held-out, cm", MEASURED), ("times", TIMES)):
        seeds = over_seeds(rows, keys)
        if seeds and any(row.get(key) is not None for row in rows for key in keys):
            tables.append(_table(f"{what}: mean ± standard deviation over seeds", ("seeds", *keys), seeds))
    if comparison.published:
        texts = [[row.get(key, "-") for key in PUBLISHED] for row in comparison.published]
        tables.append(TextTable("published results", list(PUBLISHED.values()), texts))
    return tables


def _table(title: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> TextTable:
    return text_table(title, ("variant", *keys), rows)
