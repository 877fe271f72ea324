#!/usr/bin/env python
"""Finds the cameras of a folder of photographs and trains eugen-zipnerf-small on them.

pip install -c constraints.txt -e ".[photos]"
python examples/07_photographs.py FOLDER    # 20 photographs or more of one place

Further arguments are handed to ns-train.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("photographs", type=Path, help="folder of photographs")
parser.add_argument("--output", type=Path, default=Path("outputs/07_photographs"), help="folder for data and run")
parser.add_argument("--max-size", type=int, default=400, help="pixels along the longer side, for a CPU")
parser.add_argument("--steps", type=int, default=2000, help="training steps")
args, further = parser.parse_known_args()

if importlib.util.find_spec("pycolmap") is None:
    sys.exit('pycolmap is not installed: pip install -c constraints.txt -e ".[photos]"')


def run(*words: object) -> None:
    """Prints a command and runs it."""
    print("$", *words, flush=True)
    if status := subprocess.call([str(word) for word in words]):
        sys.exit(status)  # the command has said why


data = args.output / "data"
if not data.exists():
    run("eugen-data", "photos", args.photographs, "--output", data, "--max-size", args.max_size)

options = ["--max-num-iterations", args.steps, "--vis", "tensorboard"]
options += ["--output-dir", args.output, "--experiment-name", "photographs", "--timestamp", "example"]
run("ns-train", "eugen-zipnerf-small", "--data", data, *options, *further)

config = args.output / "photographs" / "eugen-zipnerf-small" / "example" / "config.yml"
print(f"look at it: eugen-view --load-config {config}")
