#!/usr/bin/env python
"""Fills the tables of the pages from result files (docs/results/tables.yml); --check only says what is stale."""

import argparse
import sys
from pathlib import Path

from eugen_nerf.cli.support.common import run_cli
from eugen_nerf.core.errors import DataError
from eugen_nerf.evaluation.documents.markdown_tables import filled, read_places, table

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Fills or checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a table is stale")
    check = parser.parse_args().check
    for place in read_places(ROOT / "docs" / "results" / "tables.yml"):
        document = ROOT / place.document
        old = document.read_text(encoding="utf8")
        new = filled(old, place.name, table(place, ROOT))
        if new == old:
            continue
        if check:
            raise DataError(f"table {place.name!r} of {place.document} is stale: run scripts/tables.py")
        document.write_text(new, encoding="utf8")
        print(f"filled table {place.name!r} of {place.document}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
