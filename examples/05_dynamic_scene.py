#!/usr/bin/env python
"""Generates a scene that moves, trains eugen-dnerf-small on it and renders a film along time.

python examples/05_dynamic_scene.py

Further arguments are handed to ns-train.
"""

import argparse
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", type=Path, default=Path("outputs/05_dynamic_scene"), help="folder for data, run, film")
parser.add_argument("--resolution", type=int, default=100, help="pixels along a side of the images")
parser.add_argument("--steps", type=int, default=3000, help="training steps")
parser.add_argument("--frames", type=int, default=40, help="frames of the film")
args, further = parser.parse_known_args()


def run(*words: object) -> None:
    """Prints a command and runs it."""
    print("$", *words, flush=True)
    if status := subprocess.call([str(word) for word in words]):
        sys.exit(status)  # the command has said why


scene = args.output / "scene"
if not scene.exists():
    run("eugen-data", "dynamic", "--output", scene, "--resolution", args.resolution)

# images are revealed in the order of their times: half of the steps are for all of them
options = ["--pipeline.datamanager.reveal-steps", args.steps // 2, "--max-num-iterations", args.steps]
options += ["--vis", "tensorboard", "--output-dir", args.output]
options += ["--experiment-name", "moving", "--timestamp", "example"]
run("ns-train", "eugen-dnerf-small", "--data", scene, *options, *further)

config = args.output / "moving" / "eugen-dnerf-small" / "example" / "config.yml"
run("eugen-render", "--load-config", config, "--output", args.output / "film.gif", "--frames", args.frames)
