"""What eugen-distill prints of a conversion can be read where there is no wide terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from eugen_nerf.conversion.conversion_table import print_reports
from eugen_nerf.conversion.run_writer import FieldReport
from eugen_nerf.core import LayerReport


def test_no_number_is_cut_at_80_columns() -> None:
    layers = [
        LayerReport(
            name=f"trunk_{i}",
            num_features=512,
            relative_error=0.0123,
            ridge=1e-6,
            parameters=(1_049_600, 524_800),
            multiply_adds=(1_048_576, 524_288),
            seconds=12.3,
        )
        for i in range(2)
    ]
    shares = {"trunk_0": (1_048_576, 524_288), "trunk_1": (1_048_576, 524_288), "density": (2_048, 1_024)}
    shares |= {f"head_{i}": (3_000, 3_000) for i in range(2)}
    total = (sum(before for before, _ in shares.values()), sum(after for _, after in shares.values()))
    report = FieldReport("proposal_0", layers, (8_600_000, 2_500_000), total, 31.4, (8_500_000, 1_250_000), shares)
    console = Console(width=80, file=io.StringIO())
    print_reports(console, [report])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert text.count("1,048,576 -> 524,288") == 2
    for part in ("0.0123", "12.3", "512", "2,048 -> 1,024", "31.4", "2 unchanged", "6,000 -> 6,000"):
        assert part in text
    assert "8,500,000 -> 1,250,000 parameters in what runs" in text
    assert "stored to be trained on: 8,600,000 -> 2,500,000" in text
    assert "--bundle FOLDER writes the compact form" in text
    rows, (whole,) = _pairs(text, "│"), _pairs(text, "all, collapsed")
    for side in (0, 1):
        assert sum(pair[side] for pair in rows) == 2 * whole[side] == 2 * total[side]
    console = Console(width=80, file=io.StringIO())
    print_reports(console, [report], bundled=True)
    assert isinstance(console.file, io.StringIO)
    assert "--bundle" not in console.file.getvalue()


def _pairs(text: str, mark: str) -> list[tuple[int, int]]:
    """Numbers before and after an arrow, of the lines that hold a mark."""
    lines = [line for line in text.splitlines() if mark in line]
    found = [re.search(r"([\d,]+) -> ([\d,]+)", line) for line in lines]
    return [(int(m[1].replace(",", "")), int(m[2].replace(",", ""))) for m in found if m]
