#!/usr/bin/env python
"""Throws a data set's cameras away, finds them anew from its images as `eugen-data photos` does, and compares.

python scripts/check_photos.py ../shared/data/fox
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from eugen_nerf.cli.support.progress import stages
from eugen_nerf.data.photographs.camera_agreement import compare_cameras
from eugen_nerf.data.photographs.pose_estimation import STEPS, make_data_set, photograph_files


def main(data: Path) -> None:
    """Prints the rotations and translations that are left after aligning, and both lenses."""
    meta = json.loads((data / "transforms.json").read_text(encoding="utf8"))
    given = {Path(frame["file_path"]).name: np.array(frame["transform_matrix"]) for frame in meta["frames"]}
    files = photograph_files(data / Path(meta["frames"][0]["file_path"]).parent)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, stages(Console(), STEPS) as report:
        capture = make_data_set(files, Path(folder) / "found", 1600, report)
    print(f"placed {len(capture.names)} of {len(files)} in {time.perf_counter() - start:.0f} s")
    left = compare_cameras(capture.poses, np.stack([given[name] for name in capture.names]))
    print(f"rotations differ by {left.degrees.mean():.2f} degrees on average, {left.degrees.max():.2f} at most")
    shares = 100 * left.distances
    print(f"centres differ by {shares.mean():.2f} % of the cameras' extent on average, {shares.max():.2f} % at most")
    for name, found in capture.lenses[0].items():
        print(f"{name}: {found:.4f} found, {meta[name]:.4f} given")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
