#!/usr/bin/env python
"""Renders a bundle, as `eugen-distill --bundle DIR` writes it: torch and safetensors are enough, and no data is read.

python examples/04_bundle.py DIR            # one of a still scene in a box round the origin
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eugen_nerf.core import load_bundle

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bundle", type=Path, help="folder with bundle.json and weights.safetensors")
parser.add_argument("--output", type=Path, default=Path("outputs/04_bundle.png"), help="image to write")
parser.add_argument("--size", type=int, default=128, help="pixels along a side")
parser.add_argument("--samples", type=int, default=96, help="samples along a ray")
parser.add_argument("--distance", type=float, default=4.0, help="from the camera to the origin, in scene units")
args = parser.parse_args()

field = load_bundle(args.bundle)
print(f"{args.bundle}: {field.multiply_adds():,} multiply-adds a point")

# a camera that looks at the origin from above, z up: rays through the pixels of a plane one unit before it
angle, height = 0.8, 0.5
eye = torch.tensor([math.cos(angle) * math.cos(height), math.sin(angle) * math.cos(height), math.sin(height)])
right = torch.tensor([-math.sin(angle), math.cos(angle), 0.0])
up = torch.linalg.cross(eye, right)
steps = (torch.arange(args.size) + 0.5) / args.size - 0.5
directions = (-eye + steps[None, :, None] * 0.7 * right - steps[:, None, None] * 0.7 * up).reshape(-1, 3)
directions = directions / directions.norm(dim=1, keepdim=True)
depths = torch.linspace(args.distance - 2, args.distance + 2, args.samples)

colours = []
for rays in directions.split(1024):
    positions = args.distance * eye + rays[:, None] * depths[:, None]  # [rays, samples, 3]
    with torch.no_grad():
        density, colour = field(positions, rays[:, None].expand_as(positions))
    opacity = 1 - torch.exp(-density.squeeze(-1) * (depths[1] - depths[0]))
    before = torch.cumprod(torch.cat([torch.ones_like(opacity[:, :1]), 1 - opacity[:, :-1]], dim=1), dim=1)
    weights = opacity * before
    colours.append((weights[..., None] * colour).sum(dim=1) + 1 - weights.sum(dim=1, keepdim=True))  # before white

image = torch.cat(colours).clamp(0, 1).reshape(args.size, args.size, 3)
args.output.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray((255 * image.numpy()).round().astype(np.uint8)).save(args.output)
print(f"wrote {args.output}")
