#!/usr/bin/env python
"""A SIREN learns a photograph, then its hidden layers are made narrower in closed form, with torch alone.

    python scripts/convert_siren.py [--size 128] [--steps 1500] [--features 192 128 64]

Prints the PSNR of the image before and after, the multiply-adds of a pixel, and what the conversion took: with rows
of the teacher as projections, chosen by the layers that read them or by what the outputs make of them (one backward
pass), with orthogonal random ones (the paper's Eq. 31), and, with --train-steps,
with rows and then gradient descent on each layer alone. The network as a whole is never trained again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core import ConfigError, ConversionConfig, EUGenConfig, convert_

FREQUENCY = 30.0


class Siren(nn.Module):
    """Sines of linear layers, `[n, 2]` coordinates in [-1, 1] to `[n, 1]` brightness; initialised as its authors do."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        sizes = [2, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(width, 1)
        for i, layer in enumerate([*self.layers, self.last]):
            assert isinstance(layer, nn.Linear)
            bound = 0.5 if i == 0 else math.sqrt(6 / layer.in_features) / FREQUENCY
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Brightness of pixels."""
        for layer in self.layers:
            x = torch.sin(FREQUENCY * layer(x))
        return self.last(x)


def photograph(size: int) -> tuple[Tensor, Tensor]:
    """Coordinates `[size^2, 2]` and brightness `[size^2, 1]` in [0, 1] of scikit-image's photographer."""
    from skimage.data import camera
    from skimage.transform import resize

    image = torch.from_numpy(resize(camera(), (size, size), anti_aliasing=True)).float()
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.cartesian_prod(axis, axis), image.reshape(-1, 1)


def fit(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    """Adam on random pixels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(x), (min(4096, len(x)),))
        optimizer.zero_grad()
        (model(x[chosen]) - y[chosen]).square().mean().backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def psnr(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """In dB, values clipped to [0, 1]."""
    return float(-10 * torch.log10((model(x).clamp(0, 1) - y).square().mean()))


def main() -> None:
    """Trains, converts, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=3, help="layers of sines")
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--features", type=int, nargs="+", default=[192, 128, 64], help="m of the converted layers")
    parser.add_argument("--layers", default=r"layers\.[1-9]", help="regular expression on names of layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-steps", type=int, default=0, help="of gradient descent on each layer alone")
    words = parser.parse_args()
    torch.manual_seed(words.seed)
    x, y = photograph(words.size)
    model = Siren(words.width, words.depth)
    start = time.perf_counter()
    fit(model, x, y, words.steps)
    cost = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    print(f"{words.size} x {words.size} pixels, {words.steps} steps in {time.perf_counter() - start:.0f} s")
    print(f"{'recipe':18}{'m':>5}{'PSNR dB':>10}{'multiply-adds':>15}{'seconds':>9}")
    print(f"{'teacher':18}{words.width:5}{psnr(model, x, y):10.2f}{cost:15,}")
    orthogonal = EUGenConfig(norm=False, projection="orthogonal")
    recipes = {
        "rows": ConversionConfig(),
        "rows for outputs": ConversionConfig(),
        "random orthogonal": ConversionConfig("random", orthogonal),
    }
    if words.train_steps:
        recipes["rows, then steps"] = ConversionConfig(train_steps=words.train_steps)
    shuffled = x[torch.randperm(len(x))]
    for m in words.features:
        for name, config in recipes.items():
            student = copy.deepcopy(model)
            report = convert_(
                student,
                list(shuffled.split(2048)),
                config,
                layers=(words.layers,),
                num_features=m,
                output_aware="outputs" in name,
            )
            cost = report.multiply_adds[1]
            print(f"{name:18}{m:5}{psnr(student, x, y):10.2f}{cost:15,}{report.seconds:9.1f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"error: {error}")
