"""Attacks in full number: what the default tests try in part. Counts go to `docs/results/data/reliability.json`.

python scripts/reliability.py              # every table
python scripts/reliability.py TABLE        # one table; the others in the file stay
python scripts/reliability.py writes --most 9    # fewer tries in a row, where a table takes that

A table is a module of `tests/reliability`: `rows(folder)` yields its rows, each a mapping with `what`, `tries` and
further counts; `NEVER` names the counts that have to be 0. Ends with 1 where one is not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "tests/core", "tests/reliability", "viewer")]
os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", TQDM_DISABLE="1")  # as the tests have it

from eugen_nerf.core.atomic_paths import atomic_path  # noqa: E402

TABLES: dict[str, str] = {
    "inputs": "command_inputs",
    "mutations": "mutations",
    "supervisor": "supervisor_kills",
    "viewer": "viewer_messages",
    "viewer-load": "viewer_load",
    "writes": "write_tries",
}
"""Name of a table, and its module."""
OUTPUT = ROOT / "docs" / "results" / "data" / "reliability.json"


def measure(name: str, output: Path, most: int | None) -> list[str]:
    """Measures one table, kept in the file row by row; a line for every count in it that has to be 0 and is not."""
    module = importlib.import_module(TABLES[name])
    start, rows, wrong = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for row in module.rows(Path(folder), **({} if most is None else {"most": most})):
            rows.append(row)
            seconds = round(time.monotonic() - start)
            keep(output, name, {"python": platform.python_version(), "seconds": seconds, "rows": rows})
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            wrong += [f"{name}: {row['what']}: {key} {row[key]}" for key in module.NEVER if row.get(key)]
    return wrong


def keep(output: Path, name: str, table: dict[str, Any]) -> None:
    """Writes one table into the file; the others stay."""
    tables = json.loads(output.read_text(encoding="utf8")) if output.is_file() else {}
    with atomic_path(output, replace=True) as partial:
        content = dict(sorted({**tables, name: table}.items()))
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


def main() -> int:
    """Measures the tables that are named and keeps the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all by default")
    parser.add_argument("--most", type=int, metavar="N", help="tries of each kind in a row (default: all)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    if unknown := set(given.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    wrong: list[str] = []
    for name in given.tables or TABLES:
        wrong += measure(name, given.output, given.most)
    print("\n".join(wrong) or "no count that has to be 0 is not")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
