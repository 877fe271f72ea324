"""Launches and waits of the host in a training step of every preset, counted on a pretended GPU: no GPU is needed.

`python scripts/launch_counts.py` writes `docs/results/data/launches_pretended.json` and prints a table. The presets are
as deep as they are registered, and narrow: what is launched depends on the number of layers and levels, not on widths
or rays. Like the tests, whose helpers it takes, it runs from a checkout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/device")]

if TYPE_CHECKING:
    from pretend import Counts

VARIANTS = ("eugen", "dense")
SHOWN_PLACES = 3


def row_of(preset: str, variant: str, counts: Counts) -> dict[str, Any]:
    """What the file holds of a step."""
    places: Counter[str] = Counter()
    for (_, place), number in counts.waits.items():
        places[place] += number
    return {
        "preset": preset,
        "variant": variant,
        "launches": counts.launches.total(),
        "waits": counts.waits.total(),
        "float64_operations": counts.doubles.total(),
        "waits_by_place": dict(places.most_common(SHOWN_PLACES)),
    }


def count_all(output: Path) -> list[dict[str, Any]]:
    """A row for every preset and variant; runs are written into a folder."""
    from preset_runs import presets, train_preset, write_data

    data, rows = write_data(output / "data"), []
    for preset in presets():
        for variant in VARIANTS:
            with redirect_stdout(sys.stderr):
                rows.append(row_of(preset, variant, train_preset(preset, variant, data, output / "runs")[1]))
    return rows


def main() -> None:
    """Counts, writes and prints."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results/data/launches_pretended.json")
    path = parser.parse_args().output
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        rows = count_all(Path(folder))
    path.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    print(f"{'preset':26}{'variant':9}{'launches':>9}{'waits':>7}")
    for row in rows:
        print(f"{row['preset']:26}{row['variant']:9}{row['launches']:>9}{row['waits']:>7}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
