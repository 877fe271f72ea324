#!/usr/bin/env python
"""Converts a trained run in closed form to a budget, and prints what the conversion chose and measured.

python examples/02_convert.py outputs/01_train/scene/eugen-nerf-small/dense/config.yml --macs 0.5

Further arguments are handed to eugen-distill.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("config", type=Path, help="config.yml of the trained run: dense, or stock vanilla-nerf or dnerf")
parser.add_argument("--macs", type=float, default=0.5, help="largest share of the teacher's multiply-adds")
parser.add_argument("--output", type=Path, default=Path("outputs/02_convert"), help="folder of the converted run")
args, further = parser.parse_known_args()

words = ["eugen-distill", "--load-config", args.config, "--macs", args.macs]
words += ["--output-dir", args.output, "--experiment-name", "converted", "--timestamp", "example", *further]
print("$", *words, flush=True)
if status := subprocess.call([str(word) for word in words]):
    sys.exit(status)  # the command has said why

(record_file,) = args.output.glob("converted/*/example/distill.json")
record = json.loads(record_file.read_text())
print(f"{record_file.parent}: {', '.join(record)}")
print(f"it loads in every ns-* command: ns-eval --load-config {record_file.parent / 'config.yml'}")
