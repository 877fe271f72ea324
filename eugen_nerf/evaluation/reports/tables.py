"""The tables of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.costs.time_breakdown import CATEGORIES
from eugen_nerf.evaluation.costs.time_breakdown import REMARK as SPLIT_REMARK
from eugen_nerf.evaluation.reports.text_tables import TextTable, text_table
from eugen_nerf.evaluation.statistics.published import HEADINGS
from eugen_nerf.evaluation.statistics.seeds import losses, over_seeds

SCORES = (
    *("variant", "psnr", "ssim", "lpips"),
    *("seconds_per_image", "image_speed_ratio", "queries_per_second", "query_speed_ratio"),
)
INFERENCE_SIZES = ("inference_parameters", "macs_per_query")
STORED_SIZES = ("parameters", "checkpoint_bytes", "peak_memory_bytes", "fit_seconds")
TRAINING = ("iteration_seconds", "iteration_speed_ratio", "iteration_peak_memory_bytes", "rays_per_iteration")
TIME_BREAKDOWN = (*CATEGORIES, "total", "image_ceiling")
AVERAGED = (
    *("psnr_lost", "psnr", "ssim", "lpips"),
    *("image_speed_ratio", "query_speed_ratio", "macs_per_query", "fit_seconds"),
)
"""Means of these over seeds are shown."""

RATIOS = "median of the ratios in a round; ? where the middle half of them is wider than its distance from 1"
"""What tables say of speeds."""
SIZES_REMARK = (
    "parameters: of the queried network as it runs, collapsed; stored: as a checkpoint keeps them to train on, and "
    "its file holds the optimizer's state too. The compact form is a bundle: eugen-distill --bundle FOLDER."
)
"""What tables say of sizes."""


def scores_table(comparison: Comparison) -> TextTable:
    """Quality and speed of every variant, baselines included."""
    protocol = comparison.protocol
    sizes = ", ".join(protocol["resolution"])
    title = f"{protocol['number_of_views']} {protocol['split']} views of {sizes}, {comparison.environment['device']}"
    return _table(title, SCORES, comparison.rows)


def sizes_table(comparison: Comparison) -> TextTable:
    """Numbers, operations, memory and time to fit, of every variant."""
    return _table("sizes", ("variant", *INFERENCE_SIZES, *STORED_SIZES), comparison.rows)


def page_tables(comparison: Comparison) -> tuple[TextTable, TextTable]:
    """Scores and what runs, too wide for a terminal and not for a page; and the other sizes, memory and time to fit."""
    first = _table("", (*SCORES, *INFERENCE_SIZES), comparison.rows)
    return first, _table("stored sizes, memory, time to fit", ("variant", *STORED_SIZES), comparison.rows)


def further_tables(comparison: Comparison) -> list[TextTable]:
    """Means over seeds, where the time of an image goes, and what training costs where it was measured.

    The latter two of runs only, without baselines.
    """
    return [
        *_published_tables(comparison),
        *_seeds_tables(comparison),
        *inference_tables(comparison.rows),
        *_cost_tables(comparison),
    ]


def inference_tables(rows: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Plans and approximations of runs, where there are any."""
    tables = []
    plans = [
        [row["variant"], name, plan["statement"]] for row in rows for name, plan in (row.get("plans") or {}).items()
    ]
    if plans:
        remark = "Deviations are of raw outputs, before activations, at samples along rays of the first view."
        tables.append(TextTable("inference plans", ["variant", "network", "plan"], plans, remark))
    approximations = [(row["variant"], row["shortcuts"]) for row in rows if row.get("shortcuts")]
    if approximations:
        texts = [
            [name, _number(s["psnr_between"]), f"{s['psnr_change']:+.3f}", _number(s["occupied_share"], "{:.1%}")]
            for name, s in approximations
        ]
        headings = ["variant", "PSNR to the image without", "change of PSNR", "occupied cells"]
        remark = "Of the first view, with rays ended early and empty space skipped, against neither; dB."
        tables.append(TextTable("approximations", headings, texts, remark))
    return tables


def _number(value: float | None, form: str = "{:.1f}") -> str:
    return "-" if value is None else form.format(value)


def _published_tables(comparison: Comparison) -> list[TextTable]:
    if not comparison.published:
        return []
    ours = {row["variant"]: f"{row['psnr']:.2f} dB" for row in comparison.rows}
    texts = [
        [(name := row.get("beside", "-")), ours.get(name, "-"), *(row.get(key, "-") for key in HEADINGS)]
        for row in comparison.published
    ]
    return [TextTable("published results", ["ours", "PSNR", *HEADINGS.values()], texts)]


def _seeds_tables(comparison: Comparison) -> list[TextTable]:
    baseline = comparison.protocol["baseline"]
    lost = losses(comparison.rows, baseline, "psnr")
    rows = [{**row, "psnr_lost": loss} for row, loss in zip(comparison.rows, lost, strict=True)]
    means = over_seeds(rows, AVERAGED)
    if not means:
        return []
    remark = f"lost: PSNR of the same seed's {baseline.rpartition('-s')[0]} less a run's own, dB."
    return [_table("mean ± standard deviation over seeds", ("variant", "seeds", *AVERAGED), means, remark)]


def _cost_tables(comparison: Comparison) -> list[TextTable]:
    runs = [row for row in comparison.rows if row.get("image_split") is not None]
    splits = [{**row, **row["image_split"], "total": sum(row["image_split"].values())} for row in runs]
    tables = [_table("where the time of an image goes, seconds", ("variant", *TIME_BREAKDOWN), splits, SPLIT_REMARK)]
    if any(row["iteration_seconds"] is not None for row in runs):
        tables.append(_table("training", ("variant", *TRAINING), runs, _training_remark(comparison)))
    return tables


def _training_remark(comparison: Comparison) -> str:
    count, baseline = comparison.protocol["timing"]["train_iterations"], comparison.protocol["baseline"]
    return (
        f"Medians over {count} training iterations that the runs make in turns from their checkpoints on, batches "
        f"drawn beforehand; iteration x: speed relative to {baseline}. peak MB: of one iteration, gradients included; "
        "weights and the optimizers' state are not in it."
    )


def _table(title: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], remark: str = "") -> TextTable:
    """As `text_table` has it, with ? for speeds within the noise."""
    marked = [{**row, **{key: "?" for key in keys if row.get(key) is not None and is_noise(row, key)}} for row in rows]
    return text_table(title, keys, marked, remark)


def is_noise(row: Mapping[str, Any], key: str) -> bool:
    """Whether a speed is 1 within the noise: the middle half of its rounds is wider than its distance from 1."""
    quartiles = row.get(f"{key}_quartiles")
    return quartiles is not None and quartiles[1] - quartiles[0] > abs(row[key] - 1)
