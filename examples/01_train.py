#!/usr/bin/env python
"""Generates a scene, trains eugen-nerf-small and its dense twin on it, and compares the two.

python examples/01_train.py                 # two trainings of 3,000 steps: minutes each on two cores
python examples/01_train.py --steps 300     # a first look

Further arguments are handed to ns-train.
"""

import argparse
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", type=Path, default=Path("outputs/01_train"), help="folder for data, runs and report")
parser.add_argument("--resolution", type=int, default=64, help="pixels along a side of the images")
parser.add_argument("--steps", type=int, default=3000, help="training steps of each run")
args, further = parser.parse_known_args()


def run(*words: object) -> None:
    """Prints a command and runs it."""
    print("$", *words, flush=True)
    if status := subprocess.call([str(word) for word in words]):
        sys.exit(status)  # the command has said why


scene = args.output / "scene"
if not scene.exists():
    run("eugen-data", "scene", "--output", scene, "--resolution", args.resolution)

configs = []
for variant in ("dense", "eugen"):
    options = ["--pipeline.model.variant", variant, "--max-num-iterations", args.steps, "--vis", "tensorboard"]
    options += ["--output-dir", args.output, "--experiment-name", "scene", "--timestamp", variant]
    run("ns-train", "eugen-nerf-small", "--data", scene, *options, *further, "blender-data")
    configs.append(args.output / "scene" / "eugen-nerf-small" / variant / "config.yml")

report = args.output / "comparison"
run("eugen-eval", "--load-config", *configs, "--names", "dense", "eugen", "--output", report)
print(f"look at {report / 'report.html'}, or: eugen-view --load-config {configs[0]} {configs[1]}")
