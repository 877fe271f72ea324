#!/usr/bin/env python
"""How runs feel in the viewer, without a browser: by the samplers of training and by the fast renderer.

python scripts/viewer_interaction.py --runs RUN/config.yml ... --names dense ... \
    --output docs/results/data/viewer_interaction_cpu.json

A drag of two seconds, and the rest after it until the finest image, in a window of 1.6 times its height.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from eugen_nerf.evaluation.costs.resources import environment
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.run_comparison import RunComparison
from eugen_viewer.shown_runs import ShownRun, open_run
from eugen_viewer.timing.interaction_timing import measure_interaction
from eugen_viewer.timing.self_timing import first_viewpoint


def measure(shown_run: ShownRun, way: str, max_size: int) -> dict[str, Any]:
    """A row."""
    comparison = RunComparison({shown_run.name: shown_run}, Renderer(FrameBudget(max_size=max_size)))
    interaction = measure_interaction(comparison, first_viewpoint(comparison))
    height, width = interaction.drag_size
    (first, first_at), (last, last_at) = interaction.rest[0], interaction.rest[-1]
    return {
        "run": shown_run.name,
        "way": way,
        "frames/s of a drag": f"{interaction.frames_per_second:.1f}",
        "of": f"{width} x {height}",
        "first image at rest, s": f"{first_at:.2f} ({first[1]} x {first[0]})",
        "finest, s": f"{last_at:.2f} ({last[1]} x {last[0]})",
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--max-size", type=int, default=512)
    parser.add_argument("--quality", type=float, default=0.05)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rows = []
    for path, name in zip(arguments.runs, arguments.names, strict=True):
        shown_run = open_run(path, name, device=arguments.device, data=None)
        rows.append(measure(shown_run, "samplers of training", arguments.max_size))
        print(shown_run.render_fast(arguments.quality))
        rows.append(measure(shown_run, "fast renderer", arguments.max_size))
    for row in rows:
        print(" | ".join(map(str, row.values())))
    machine = environment(arguments.device, ["float32"])
    load = None if not hasattr(os, "getloadavg") else os.getloadavg()[0]
    result = {"interaction": {"rows": rows}, "environment": machine, "load_average": load}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
