"""The table eugen-distill prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from eugen_nerf.conversion.budget.budget_search import BudgetResult
from eugen_nerf.conversion.run_writer import FieldReport
from eugen_nerf.core.fitting.allocation import Combination
from eugen_nerf.core.fitting.convert_graph import cost_rows


def print_reports(console: Console, reports: Sequence[FieldReport], *, bundled: bool = False) -> None:
    """A table for each field, one row a layer; errors are on rays not fitted to, over the outputs' variation.

    Multiply-adds are those of the collapsed network, which is what runs; rows add up to the last one. It fits 80
    columns, which is what a console that is no terminal has; `distill.json` has ridges too.

    Args:
        console: where to.
        reports: by field.
        bundled: whether the compact form is written as well.
    """
    for report in reports:
        table = Table(title=f"closed-form conversion: {report.name}")
        for column in ("layer", "features", "check error", "multiply-adds", "seconds"):
            table.add_column(column, justify="left" if column == "layer" else "right")
        for row in cost_rows(report.layers, report.shares):
            fit = ["", "", ""]
            if row.report is not None:
                layer = row.report
                fit = [str(layer.num_features), f"{layer.relative_error:.4f}", f"{layer.seconds:.1f}"]
            table.add_row(row.name, *fit[:2], _before_after(row.multiply_adds), fit[2])
        table.add_section()
        table.add_row("all, collapsed", "", "", _before_after(report.multiply_adds), f"{report.seconds:.1f}")
        console.print(table)
        lines = [f"{report.name}: {_before_after(report.running)} parameters in what runs, the collapsed network"]
        if report.parameters != report.running:
            lines.append(f"stored to be trained on: {_before_after(report.parameters)}")
        console.print("\n".join(lines), highlight=False)
    if reports and not bundled and any(report.parameters != report.running for report in reports):
        console.print("a checkpoint keeps what is stored; --bundle FOLDER writes the compact form, what runs alone")


def print_budget(console: Console, result: BudgetResult) -> None:
    """The front in a few lines, the widths that were chosen, and what was predicted against what was measured."""
    table = Table(title="what each budget would cost, predicted")
    for column in ("multiply-adds", "share", "dB lost", "features by layer"):
        table.add_column(column, justify="left" if column == "features by layer" else "right")
    whole, front = result.preview.teacher_macs, result.preview.front
    shown: dict[int, Combination] = {}
    for share in (0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0):
        affordable = [point for point in front if point.multiply_adds <= share * whole]
        shown |= {point.multiply_adds: point for point in affordable[-1:]}
    for point in shown.values():
        _add_point(table, point, result)
    console.print(table)
    measured = result.measured
    ratio = measured.speedup
    line = (
        f"chosen: {measured.multiply_adds:,} of {whole:,} multiply-adds ({measured.multiply_adds / whole:.0%}), field "
        f"queries {ratio.median:.2f}x as fast ({ratio.lower_quartile:.2f} to {ratio.upper_quartile:.2f})"
    )
    if measured.drop is not None:
        line += f", {measured.drop:.2f} dB lost on rays not fitted to"
    if measured.predicted_drop is not None:
        line += f" ({measured.predicted_drop:.2f} predicted)"
    console.print(line)


def _add_point(table: Table, point: Combination, result: BudgetResult) -> None:
    drop = result.predicted(point)
    widths = "; ".join(
        f"{group} {' '.join(str(m) for m in part.num_features.values())}" for group, part in point.parts.items()
    )
    share = point.multiply_adds / result.preview.teacher_macs
    table.add_row(f"{point.multiply_adds:,}", f"{share:.0%}", "-" if drop is None else f"{drop:.3f}", widths)


def _before_after(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} -> {pair[1]:,}"
