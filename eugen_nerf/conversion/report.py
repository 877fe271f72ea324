"""The table eugen-distill prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from eugen_nerf.conversion.distill import FieldReport


def print_reports(console: Console, reports: Sequence[FieldReport]) -> None:
    """One row a converted layer and one a field; errors are on rays not fitted to, over the outputs' variation."""
    table = Table(title="closed-form conversion")
    for column in ("field", "layer", "features", "check error", "ridge", "parameters", "multiply-adds", "seconds"):
        table.add_column(column, justify="left" if column in ("field", "layer") else "right")
    for report in reports:
        for layer in report.layers:
            table.add_row(
                report.name,
                layer.name,
                str(layer.num_features),
                f"{layer.relative_error:.4f}",
                f"{layer.ridge:.0e}",
                _before_after(layer.parameters),
                _before_after(layer.multiply_adds),
                f"{layer.seconds:.1f}",
            )
        table.add_row(
            report.name,
            "network",
            "",
            "",
            "",
            _before_after(report.parameters),
            f"{_before_after(report.multiply_adds)} (collapsed)",
            f"{report.seconds:.1f}",
            end_section=True,
        )
    console.print(table)


def _before_after(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} -> {pair[1]:,}"
