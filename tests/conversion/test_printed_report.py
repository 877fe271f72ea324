"""What eugen-distill prints of a conversion can be read where there is no wide terminal."""

from __future__ import annotations

import io

from rich.console import Console

from eugen_nerf.conversion.report import print_reports
from eugen_nerf.conversion.write import FieldReport
from eugen_nerf.core.convert import LayerReport


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
    report = FieldReport("proposal_0", layers, (8_600_000, 2_500_000), (8_508_160, 2_420_992), 31.4)
    console = Console(width=80, file=io.StringIO())
    print_reports(console, [report])
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert text.count("1,048,576 -> 524,288") == 2
    for part in ("0.0123", "12.3", "512", "8,508,160 -> 2,420,992", "31.4", "8,600,000 -> 2,500,000 parameters"):
        assert part in text
