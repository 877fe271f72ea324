"""Tables as texts, for the console and for pages alike, and the one registry of what a row's values are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from eugen_nerf.evaluation.costs.time_breakdown import CATEGORIES


@dataclass(frozen=True)
class TextTable:
    """A table ready to be shown: rows of texts under headings, and what a reader has to know of it."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    remark: str = ""

    @property
    def heading(self) -> str:
        """The title as a heading of a page: its first letter is a capital."""
        return self.title[:1].upper() + self.title[1:]


class TableColumn(NamedTuple):
    """A column's heading, and the format of its values."""

    heading: str
    form: Callable[[Any], str]


COLUMNS: dict[str, TableColumn] = {
    key: TableColumn(heading, form.format)
    for key, heading, form in (
        ("variant", "variant", "{}"),
        ("method", "method", "{}"),
        ("seeds", "seeds", "{}"),
        ("scene_count", "scenes", "{}"),
        # images
        ("psnr", "PSNR", "{:.2f}"),
        ("psnr_lost", "lost", "{:.2f}"),
        ("ssim", "SSIM", "{:.3f}"),
        ("lpips", "LPIPS", "{:.3f}"),
        # signed distances
        ("volume_l1_cm", "volume", "{:.2f}"),
        ("surface_l1_cm", "surface", "{:.2f}"),
        ("ray_l1_cm", "rays", "{:.2f}"),
        ("gradient_cosine", "cosine", "{:.3f}"),
        ("surface_gradient_cosine", "at surface", "{:.3f}"),
        ("heldout_l1_cm", "held-out", "{:.2f}"),
        ("depth_l1_cm", "depth", "{:.2f}"),
        ("depth_median_cm", "median", "{:.2f}"),
        ("depth_hits", "hits", "{:.3f}"),
        ("accuracy_cm", "accuracy", "{:.2f}"),
        ("completion_cm", "completion", "{:.2f}"),
        ("chamfer_cm", "Chamfer", "{:.2f}"),
        # times
        ("seconds_per_image", "s/image", "{:.4g}"),
        ("image_speed_ratio", "image x", "{:.2f}x"),
        ("query_speed_ratio", "query x", "{:.2f}x"),
        ("value_ms", "value ms", "{:.2f}"),
        ("value_speed_ratio", "value x", "{:.2f}x"),
        ("gradient_ms", "gradient ms", "{:.2f}"),
        ("gradient_speed_ratio", "gradient x", "{:.2f}x"),
        ("iteration_seconds", "s/iteration", "{:.4g}"),
        ("iteration_speed_ratio", "iteration x", "{:.2f}x"),
        ("rays_per_iteration", "rays", "{:,}"),
        ("fit_seconds", "fit s", "{:.1f}"),
        *((name, name, "{:.3g}") for name in CATEGORIES),
        ("total", "total", "{:.3g}"),
        ("image_ceiling", "ceiling", "{:.2f}x"),
        # sizes
        ("inference_parameters", "parameters", "{:,}"),
        ("macs_per_query", "MACs/query", "{:,.0f}"),
        ("parameters", "stored", "{:,}"),
    )
}
"""Of every value that a table shows, by the key of the value in a row of `report.json`."""
COLUMNS |= {
    "queries_per_second": TableColumn("queries/s", lambda value: f"{value / 1e3:,.1f}k"),
    "checkpoint_bytes": TableColumn("file MB", lambda value: f"{value / 1e6:.2f}"),
    "peak_memory_bytes": TableColumn("peak MB", lambda value: f"{value / 1e6:.1f}"),
    "iteration_peak_memory_bytes": TableColumn("peak MB", lambda value: f"{value / 1e6:.1f}"),
}


def text_table(title: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], remark: str = "") -> TextTable:
    """A table of some values of rows; a column in which no row has a value is left out.

    Args:
        title: above it.
        keys: of the values, in `COLUMNS`; a key that is not there is its own heading, for numbers with two digits.
        rows: a text stands as it is, None is a dash, a pair is a mean and its standard deviation.
        remark: below it.
    """
    shown = [key for key in keys if any(row.get(key) is not None for row in rows)]
    columns = [COLUMNS.get(key, TableColumn(key, "{:.2f}".format)) for key in shown]
    texts = [[_cell(row.get(key), column.form) for key, column in zip(shown, columns, strict=True)] for row in rows]
    return TextTable(title, [column.heading for column in columns], texts, remark)


def rich_table(texts: TextTable) -> Table:
    """A table for the console."""
    narrow = (0, 1, 0, 0)  # terminals have 80 columns
    table = Table(title=texts.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=narrow)
    for number, heading in enumerate(texts.headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in texts.rows:
        table.add_row(*map(Text, row))  # a name is no markup
    return table


def _cell(value: Any, form: Callable[[Any], str]) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return " ± ".join(map(form, value))
    return form(value)
