#!/usr/bin/env python
"""Checks and measures everything that needs a GPU, in order of worth, within some minutes.

    python3 scripts/gpu_day.py --minutes 12 --output DIR
    python3 scripts/gpu_day.py --dry-run --output DIR

Results are in DIR/gpu_day.json as they come, and in a summary at the end. The same call again goes on where the first
one ended. It ends with status 1 where a check failed. docs/guides/gpu.md has the whole procedure.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core.errors import EugenError
from eugen_nerf.gpu_day.day import ROOT, Day
from eugen_nerf.gpu_day.digest import digest
from eugen_nerf.gpu_day.supervisor import Supervisor


def main() -> int:
    """Runs the day; 0 where every check that was made held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=12.0, help="for everything, in all calls together")
    parser.add_argument("--call", type=float, help="minutes of this call, where it has to end before; all by default")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, help="folder of rows, logs, kernels and runs; OUTPUT/work by default")
    parser.add_argument("--data", type=Path, default=ROOT / ".gpu" / "data", help="folder of the data sets")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes and generated data on a CPU")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    output = options.output.resolve()
    work = (options.work or output / "work").resolve()
    day = Day(
        output=output,
        work=work,
        data=work / "data" if options.dry_run else options.data.resolve(),
        device="cpu" if options.dry_run else "cuda",
        minutes=options.minutes,
        call=options.call,
        tiny=options.dry_run,
        compiled=not options.no_compile,
    )
    if options.dry_run and not day.data.exists():
        from eugen_nerf.gpu_day.tiny_sets import write_tiny_sets

        write_tiny_sets(day.data)
    supervisor = Supervisor(day)
    try:
        supervisor.run()
    finally:
        lines = digest(supervisor.result())
        (output / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
        print("\n".join(lines), flush=True)
    return int(bool(supervisor.result()["failed"]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EugenError as error:
        sys.exit(f"error: {error}")
