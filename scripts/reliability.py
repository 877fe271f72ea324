"""Attacks in full number: what the default tests try in part. Counts go to `docs/results/data/reliability.json`.

python scripts/reliability.py              # every table
python scripts/reliability.py TABLE        # one table; the others in the file stay
python scripts/reliability.py writes --most 9 --only eugen-sdf    # fewer tries in a row, and some rows alone

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


def measure(name: str, output: Path, options: dict[str, Any]) -> list[str]:
    """Measures one table, kept in the file row by row; a line for every count in it that has to be 0 and is not."""
    module = importlib.import_module(TABLES[name])
    start, wrong = time.monotonic(), []
    rows = {row["what"]: row for row in read(output).get(name, {}).get("rows", [])} if "only" in options else {}
    with tempfile.TemporaryDirectory() as folder:
        for row in module.rows(Path(folder), **options):
            rows[row["what"]] = row
            seconds = round(time.monotonic() - start)
            keep(output, name, {"python": platform.python_version(), "seconds": seconds, "rows": [*rows.values()]})
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            wrong += [f"{name}: {row['what']}: {key} {row[key]}" for key in module.NEVER if row.get(key)]
    return wrong


def read(output: Path) -> dict[str, Any]:
    """The tables that a file holds."""
    return json.loads(output.read_text(encoding="utf8")) if output.is_file() else {}


def keep(output: Path, name: str, table: dict[str, Any]) -> None:
    """Writes one table into the file; the others stay."""
    with atomic_path(output, replace=True) as partial:
        content = dict(sorted({**read(output), name: table}.items()))
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


def main() -> int:
    """Measures the tables that are named and keeps the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all by default")
    for option, kind, text in (("--most", int, "tries of each kind in a row"), ("--only", str, "rows with this word")):
        parser.add_argument(option, type=kind, help=f"{text}, where a table takes that (default: all)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    if unknown := set(given.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    wrong: list[str] = []
    for name in given.tables or TABLES:
        options = {key: value for key in ("most", "only") if (value := getattr(given, key)) is not None}
        wrong += measure(name, given.output, options)
    print("\n".join(wrong) or "no count that has to be 0 is not")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
