"""One part in this process: `python -m eugen_nerf.gpu_day SETTINGS NAME MODULE:FUNCTION SECONDS`."""

from __future__ import annotations

import sys
from pathlib import Path

from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.supervisor import measure_part


def main(settings: str, name: str, function: str, seconds: str) -> None:
    """Measures its rows."""
    for missing in measure_part(Day.read(Path(settings)), name, function, float(seconds)):
        print(f"{name}: left out, for the time is over: {missing}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
