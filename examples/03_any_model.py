#!/usr/bin/env python
"""A PyTorch model of any kind learns something; then its hidden layers are made narrower in closed form.

python examples/03_any_model.py             # seconds

It needs torch alone.
"""

import argparse
import copy

import torch
from torch import nn

from eugen_nerf.core import convert_

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--width", type=int, default=128, help="hidden units of each layer")
parser.add_argument("--steps", type=int, default=1000, help="training steps")
parser.add_argument("--macs", type=float, default=0.5, help="share of the multiply-adds that may be left")
args = parser.parse_args()

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(3, args.width), nn.ReLU(), nn.Linear(args.width, args.width), nn.ReLU(), nn.Linear(args.width, 1)
)


def wanted(points: torch.Tensor) -> torch.Tensor:
    """What is learned: a ripple, at points [n, 3], as [n, 1]."""
    return torch.sin(4 * points.norm(dim=1, keepdim=True)) * points[:, :1]


optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for _ in range(args.steps):
    points = torch.rand(512, 3) * 2 - 1
    loss = (model(points) - wanted(points)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

narrow = copy.deepcopy(model)
batches = [torch.rand(512, 3) * 2 - 1 for _ in range(8)]  # inputs alone: nothing is trained, no labels are used
print(convert_(narrow, batches, macs=args.macs))

points = torch.rand(4096, 3) * 2 - 1
variance = wanted(points).var()
for name, network in (("before", model), ("after", narrow)):
    with torch.no_grad():
        error = (network(points) - wanted(points)).square().mean()
    print(f"{name}: {error / variance:.4f} of the variance is left")
