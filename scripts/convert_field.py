#!/usr/bin/env python
"""A radiance field learns two spheres, then its layers are made narrower in closed form, with torch alone.

    python scripts/convert_field.py [--steps 1500] [--features 32 24 16] [--density-scale 100]

Prints the PSNR of rays through them, before and after: with units chosen by the layers that read them, by
the field's raw outputs (density and colour of samples), and by rendered colours (`rendered_call`), from the same rays.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core import ConfigError, convert_, rendered_call

NEAR, FAR, SAMPLES = 1.0, 5.0, 64


class Field(nn.Module):
    """Positions and directions `[n, 3]` to density `[n]` and colour `[n, 3]`."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.trunk = nn.Sequential(nn.Linear(39, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.density, self.hidden, self.colour = nn.Linear(width, 1), nn.Linear(width + 3, width), nn.Linear(width, 3)

    def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density of any size from 0, colour from 0 to 1."""
        angles = positions[:, None] * 2.0 ** torch.arange(6)[:, None]
        features = self.trunk(torch.cat([positions, angles.sin().flatten(1), angles.cos().flatten(1)], dim=1))
        density = self.scale * F.softplus(self.density(features)[:, 0])
        colour = self.colour(F.relu(self.hidden(torch.cat([features, directions], dim=1))))
        return density, colour.sigmoid()


class Spheres(nn.Module):
    """What is learned: two spheres with a pattern of stripes."""

    def forward(self, positions: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """Density and colour as `Field`'s."""
        first = 0.8 - (positions - torch.tensor([-0.3, 0.0, 0.0])).norm(dim=1)
        second = 0.5 - (positions - torch.tensor([0.7, 0.3, 0.3])).norm(dim=1)
        stripes = 0.5 + 0.5 * torch.sin(positions @ torch.tensor([[6.0, 0, 3], [0, 8, 0], [2, 0, 7]]))
        return 40 * torch.sigmoid(40 * torch.maximum(first, second)), stripes


def rays(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Origins on a sphere of radius 3, directions to points near its centre, `[count, 3]` each."""
    generator = torch.Generator().manual_seed(seed)
    origins = 3 * F.normalize(torch.randn(count, 3, generator=generator), dim=1)
    targets = 1.2 * (2 * torch.rand(count, 3, generator=generator) - 1)
    return origins, F.normalize(targets - origins, dim=1)


def raw_call(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    """Density and colour of the samples that `rendered_call` renders."""
    kept: list[Any] = []
    rendered_call(NEAR, FAR, SAMPLES, evaluate=lambda m, x, d: kept.append(m(x, d)) or kept[0])(model, batch)
    return kept[0]


def main() -> None:
    """Trains, converts, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--features", type=int, nargs="+", default=[32, 24, 16], help="m of every layer")
    parser.add_argument("--density-scale", type=float, default=100.0, help="what the field's densities are in units of")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    torch.manual_seed(words.seed)
    render, truth, model = rendered_call(NEAR, FAR, SAMPLES), Spheres(), Field(words.width, words.density_scale)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, words.steps)
    for _ in range(words.steps):
        positions = 3 * torch.rand(4096, 3) - 1.5
        directions = F.normalize(torch.randn(4096, 3), dim=1)
        (density, colour), (expected, shade) = (m(positions, directions) for m in (model, truth))
        opacity, filled = (1 - torch.exp(-0.1 * d) for d in (density, expected))
        wrong = (opacity - filled).square() + filled * (colour - shade).square().mean(dim=1)
        optimizer.zero_grad()
        wrong.mean().backward()
        optimizer.step()
        schedule.step()
    held_out, batches = rays(2048, 1), [rays(64, 2 + i) for i in range(20)]
    with torch.no_grad():
        image = render(truth, held_out)

        def psnr(student: nn.Module) -> float:
            return float(-10 * torch.log10((render(student, held_out) - image).square().mean()))

        print(f"{'units chosen by':20}{'m':>5}{'PSNR dB':>10}{'lost':>8}")
        print(f"{'teacher':20}{words.width:5}{psnr(model):10.2f}")
    ways: dict[str, dict[str, Any]] = {
        "readers": {"call": raw_call},
        "raw outputs": {"call": raw_call, "output_aware": True},
        "rendered colours": {"call": render, "output_aware": True},
    }
    for m in words.features:
        for name, settings in ways.items():
            student = copy.deepcopy(model)
            convert_(student, batches, num_features=m, **settings)
            with torch.no_grad():
                print(f"{name:20}{m:5}{psnr(student):10.2f}{psnr(model) - psnr(student):8.2f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"error: {error}")
