"""One part in this process: `python -m eugen_nerf.gpu_day SETTINGS NAME MODULE:FUNCTION END`.

END is in seconds since the epoch: the seconds that imports take are the part's own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.supervisor import measure_part


def main(settings: str, name: str, function: str, end: str) -> None:
    """Measures its rows."""
    for missing in measure_part(Day.read(Path(settings)), name, function, float(end) - time.time()):
        print(f"{name}: left out, for the time is over: {missing}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
