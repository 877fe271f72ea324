#!/usr/bin/env python
"""A small vision transformer of timm learns handwritten digits, then its MLP blocks are converted in closed form.

    python scripts/convert_vit.py [--epochs 20] [--features 64 16 4]

Task: scikit-learn's 8 x 8 digits, a fifth of them for the test. Prints the test accuracy before and after, the
multiply-adds of an image through all linear layers, and the time of a forward pass against the teacher's, taken in
turns: with rows of the teacher as projections, chosen by the layers that read them or by what the outputs make of
them; with as many multiply-adds allocated to the blocks by a preview (from 16 units up); and with orthogonal random
projections (the paper's Eq. 31). Training images are all that the conversion is given, without labels, and nothing is
trained afterwards.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eugen_nerf.core import ConfigError, ConversionConfig, EUGenConfig, convert_


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images `[n, 1, 8, 8]` and labels `[n]`, then those of the test; shuffled."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))
    images = (torch.from_numpy(data.images).float()[order, None] - 8) / 8
    labels = torch.from_numpy(data.target).long()[order]
    cut = len(order) * 4 // 5
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def transformer(width: int, depth: int) -> nn.Module:
    """timm's vision transformer on patches of 2 x 2."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=width, depth=depth, num_heads=4, mlp_ratio=4
    )


def fit(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW with one warm cycle, batches of 32."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(images) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent."""
    return 100 * float((model(images).argmax(dim=1) == labels).float().mean())


def tokens_through(model: nn.Module, image: Tensor) -> int:
    """Multiply-adds of one image `[1, 1, 8, 8]` through the linear layers."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Linear)
        total += inputs[0].numel() // inputs[0].shape[-1] * module.weight.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return total


@torch.no_grad()
def time_ratio(teacher: nn.Module, student: nn.Module, images: Tensor, repeats: int) -> float:
    """Median over pairs of forward passes of the teacher's time over the student's."""
    ratios = []
    for repeat in range(repeats + 3):
        times = []
        for model in (teacher, student):
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
        if repeat >= 3:  # the first passes warm up
            ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def main() -> None:
    """Trains, converts, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--features", type=int, nargs="+", default=[64, 16, 4], help="m of each MLP block")
    parser.add_argument("--repeats", type=int, default=21, help="of the timing")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    torch.manual_seed(words.seed)
    images, labels, test_images, test_labels = digits(words.seed)
    model = transformer(words.width, words.depth)
    start = time.perf_counter()
    fit(model, images, labels, words.epochs)
    print(f"{len(images)} images, {words.epochs} epochs in {time.perf_counter() - start:.0f} s")
    print(f"{'recipe':20}{'m':>5}{'test accuracy %':>17}{'multiply-adds':>15}{'speed':>7}{'seconds':>9}")
    cost = tokens_through(model, images[:1])
    print(f"{'teacher':20}{4 * words.width:5}{accuracy(model, test_images, test_labels):17.2f}{cost:15,}")
    orthogonal = EUGenConfig(norm=False, projection="orthogonal")
    recipes = {
        "rows": ConversionConfig(),
        "rows for outputs": ConversionConfig(),
        "the same, allocated": ConversionConfig(),
        "random orthogonal": ConversionConfig("random", orthogonal),
    }
    for m in words.features:
        share = 1.0
        for name, config in recipes.items():
            if "allocated" in name and m < 16:
                continue  # previews are in steps of 16 units
            student = copy.deepcopy(model)
            report = convert_(
                student,
                list(images.split(128)),
                config,
                layers=(r".*\.mlp\.fc1",),
                num_features=None if "allocated" in name else m,
                macs=share if "allocated" in name else None,
                output_aware=name in ("rows for outputs", "the same, allocated"),
            )
            share = report.multiply_adds[1] / report.multiply_adds[0]
            cost = tokens_through(student, images[:1])
            correct, speed = (
                accuracy(student, test_images, test_labels),
                time_ratio(model, student, images, words.repeats),
            )
            print(f"{name:20}{m:5}{correct:17.2f}{cost:15,}{speed:6.2f}x{report.seconds:9.1f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"error: {error}")
