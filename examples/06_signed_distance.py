#!/usr/bin/env python
"""Generates a room with depth images, learns its signed distance, writes a mesh and uses the distance as a function.

python examples/06_signed_distance.py

Further arguments are handed to ns-train.
"""

import argparse
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", type=Path, default=Path("outputs/06_signed_distance"), help="folder for data and run")
parser.add_argument("--resolution", type=int, nargs=2, default=(160, 120), help="width and height of the depth images")
parser.add_argument("--frames", type=int, default=120, help="depth images along the path")
parser.add_argument("--steps", type=int, default=450, help="training steps")
parser.add_argument("--voxel", type=float, default=0.03, help="edge of the mesh's cells in metres")
args, further = parser.parse_known_args()


def run(*words: object) -> None:
    """Prints a command and runs it."""
    print("$", *words, flush=True)
    if status := subprocess.call([str(word) for word in words]):
        sys.exit(status)  # the command has said why


room = args.output / "room"
if not room.exists():
    run("eugen-data", "room", "--output", room, "--resolution", *args.resolution, "--num-frames", args.frames)

options = ["--max-num-iterations", args.steps, "--vis", "tensorboard"]
options += ["--output-dir", args.output, "--experiment-name", "room", "--timestamp", "example"]
run("ns-train", "eugen-isdf-small", "--data", room, *options, *further)

config = args.output / "room" / "eugen-isdf-small" / "example" / "config.yml"
run("eugen-sdf", "mesh", "--load-config", config, "--output", args.output / "room.ply", "--voxel", args.voxel)

from eugen_nerf.surfaces.distance_field import SignedDistance  # noqa: E402  after the commands: it imports torch

sdf = SignedDistance.load(config)
middle = sdf.bounds.mean(axis=0, keepdims=True)
print(f"at {middle[0].round(2).tolist()} m the nearest surface is {sdf.distance(middle)[0]:.2f} m away")
print(f"away from it points {sdf.gradient(middle)[0].round(2).tolist()}")
