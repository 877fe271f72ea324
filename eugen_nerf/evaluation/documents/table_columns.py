"""Columns of the pages' tables: which number of a report's row each shows, under which heading, in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eugen_nerf.evaluation.reports.tables import is_noise

_Format = Callable[[float], str]
COLUMNS: dict[str, tuple[str, _Format]] = {
    "psnr": ("PSNR", "{:.2f}".format),
    "psnr_lost": ("lost", lambda lost: f"{round(lost, 2) + 0.0:.2f}"),  # 0.00, and not -0.00
    "ssim": ("SSIM", "{:.3f}".format),
    "lpips": ("LPIPS", "{:.3f}".format),
    "volume_l1_cm": ("volume, cm", "{:.2f}".format),
    "surface_l1_cm": ("surface, cm", "{:.2f}".format),
    "depth_l1_cm": ("depth, cm", "{:.2f}".format),
    "depth_median_cm": ("median depth, cm", "{:.2f}".format),
    "heldout_l1_cm": ("held-out surface, cm", "{:.2f}".format),
    "chamfer_cm": ("Chamfer, cm", "{:.2f}".format),
    "gradient_cosine": ("cosine of the gradient", "{:.2f}".format),
    "value_speed_ratio": ("distance x", "{:.2f}".format),
    "gradient_speed_ratio": ("with gradient x", "{:.2f}".format),
    "query_speed_ratio": ("query x", "{:.2f}".format),
    "image_speed_ratio": ("image x", "{:.2f}".format),
    "iteration_speed_ratio": ("training step x", "{:.2f}".format),
    "iteration_peak_memory_bytes": ("its peak MB", lambda count: f"{count / 1e6:.1f}"),
    "mlp_seconds": ("MLP, s", "{:.3f}".format),
    "other_seconds": ("other, s", "{:.3f}".format),
    "image_ceiling": ("most that a free MLP could give", "{:.2f}x".format),
    "macs_per_query": ("MACs a query", "{:,.0f}".format),
    "inference_parameters": ("parameters", "{:,.0f}".format),  # of what runs
    "parameters": ("stored", "{:,.0f}".format),
    "fit_seconds": ("seconds", "{:.0f}".format),
}
FROM_TO = "psnr_from_to"
"""A column with the baseline's PSNR and the row's own."""
CURVE = "psnr_curve"
"""A column with held-out PSNR during training, one value after another."""


def with_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """A report's row, with the seconds of an image's MLP and of all else where its parts were timed."""
    parts = row.get("image_split")
    if not parts:
        return dict(row)
    return {**row, "mlp_seconds": parts["MLP"], "other_seconds": sum(parts.values()) - parts["MLP"]}


def column_heading(key: str) -> str:
    """The heading of a column; a key that is none of these is its own."""
    special = {FROM_TO: "PSNR", CURVE: "held-out PSNR in training"}
    named = COLUMNS[key][0] if key in COLUMNS else key
    return special.get(key, named)


def column_cell(row: Mapping[str, Any], key: str) -> str:
    """The text of a cell: `-` where there is no value, `?` where a speed cannot be told from 1."""
    value = row.get(key)
    if value is None:
        return "-"
    if key == FROM_TO:
        return f"{value[0]:.2f} -> {value[1]:.2f}"
    if key == CURVE:
        return ", ".join(f"{psnr:.1f}" for _, psnr in value) or "-"
    form = COLUMNS[key][1]
    if isinstance(value, list):
        mean, spread = map(form, value)
        return mean if float(value[1]) == 0 else f"{mean} ± {spread}"
    return "?" if is_noise(row, key) else form(value)
