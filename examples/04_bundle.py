#!/usr/bin/env python
"""Renders a bundle, as `eugen-distill --bundle DIR` writes it: torch and safetensors are enough, and no data is read.

python examples/04_bundle.py DIR            # its first test view, colours beside depth
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eugen_nerf.core import load_bundle

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bundle", type=Path, help="folder with bundle.json and weights.safetensors")
parser.add_argument("--output", type=Path, default=Path("outputs/04_bundle.png"), help="image to write")
parser.add_argument("--view", type=int, default=0, help="number of the test view")
parser.add_argument("--size", type=int, default=256, help="rows of the image")
args = parser.parse_args()

field = load_bundle(args.bundle)
print(f"{args.bundle}: {field.multiply_adds():,} multiply-adds a point, {len(field.cameras)} test views")

# a PinholeCamera: pose [3, 4], fx, fy, cx, cy, width, height and time; any other is rendered as well
camera = field.cameras[args.view].resized(args.size)
image = field.render(camera)
if field.scene.quality is not None:
    print(f"the renderer {field.scene.quality}")

# what a ray meets at half of its opacity, from near (white) to far (black)
met = image.accumulation > 0.5
nearest, farthest = image.depth[met].aminmax() if met.any() else (torch.zeros(()), torch.ones(()))
depth = torch.where(met, 1 - 0.9 * (image.depth - nearest) / (farthest - nearest).clamp_min(1e-6), 0.0)

picture = torch.cat([image.colour, depth.expand(-1, -1, 3)], dim=1).cpu()
args.output.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray((255 * picture.numpy()).round().astype(np.uint8)).save(args.output)
print(f"wrote {args.output}")
