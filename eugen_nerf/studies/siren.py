"""A photograph and its gradient learned by sines of linear layers, hidden layers replaced (arXiv 2410.09771, App. D.1).

SIREN: arXiv 2006.09661; `sin(30 (W x + b))` with its authors' initialisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from eugen_nerf.core import EUGenConfig, EUGenLinear, start_from_data
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.projections import seeded_generator
from eugen_nerf.core.ranges import COUNT, POSITIVE
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.studies.study_run import Case, Column, Study, train

FREQUENCY = 30.0
VARIANTS = ("dense", "eugen", "eugen-data", "harmonic", "harmonic-data", "lowrank", "narrow")
"""Kinds of networks: sines of EUGen layers of degree 1, in place of the sines EUGen layers of degree 2 with harmonic
products, either started from data (`core/layers/data_start.py`) or not, and baselines."""
_GRADIENT_POINTS = 4096


class Sine(nn.Module):
    """`sin(30 (W x + b))`, `[..., d]` to `[..., l]`; of low rank, W is a product of two matrices."""

    def __init__(self, in_features: int, out_features: int, *, first: bool = False, rank: int | None = None) -> None:
        super().__init__()
        bound = 1 / in_features if first else math.sqrt(6 / in_features) / FREQUENCY
        self.linear: nn.Module = nn.Linear(in_features, out_features)
        if rank is not None:
            down, up = nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features)
            nn.init.uniform_(down.weight, -math.sqrt(3 / in_features), math.sqrt(3 / in_features))
            nn.init.uniform_(up.weight, -math.sqrt(6 / rank) / FREQUENCY, math.sqrt(6 / rank) / FREQUENCY)
            self.linear = nn.Sequential(down, up)
        else:
            nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Values in [-1, 1]."""
        return torch.sin(FREQUENCY * self.linear(x))


class EUGenSine(nn.Module):
    """An EUGen layer in place of a sine of a linear one: `A sin(30 (G x + g)) + b`, of the same spread at the start."""

    def __init__(self, width: int, num_features: int, seed: int) -> None:
        super().__init__()
        self.layer = EUGenLinear(width, width, EUGenConfig(num_features, phi="sin", norm=False, seed=seed))
        with torch.no_grad():
            self.layer.projection.mul_(math.sqrt(2) / FREQUENCY)  # inputs have variance 1/2

    def forward(self, x: Tensor) -> Tensor:
        """Outputs `[..., width]`."""
        return self.layer(FREQUENCY * x)


@dataclass(frozen=True)
class SirenFit(Study):
    """Brightness of a photograph at pixel coordinates, learned on all pixels."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("psnr", "PSNR", "{:.2f}"),
        Column("gradient_error", "error of the gradient", "{:.1%}"),
        Column("parameters", "parameters", "{:,.0f}"),
        Column("multiply_adds", "multiply-adds", "{:,.0f}"),
        Column("rate", "learning rate", "{:g}"),
    )
    plot: ClassVar[tuple[str, str]] = ("multiply_adds", "gradient_error")
    spans: ClassVar[tuple[str, ...]] = ("features", "variants")
    remark: ClassVar[str] = (
        "The paper fits an image and its gradients with a SIREN 3 x 256 whose hidden layer has m = 32 features, at a "
        "third of the size. Here all hidden layers are replaced; lowrank and narrow have eugen's parameters, harmonic "
        "has degree 2 in place of sines, and every learning rate is the best of those tried. PSNR is on the pixels "
        "that are learned, as in the paper; the gradient is the network's own against central differences of the "
        "photograph, relative to their norm."
    )

    size: Annotated[int, COUNT] = 256
    width: Annotated[int, COUNT] = 256
    depth: Annotated[int, COUNT] = 3
    """Sine layers, the first included."""
    steps: Annotated[int, COUNT] = 3_000
    batch: Annotated[int, COUNT] = 8_192
    features: tuple[Annotated[int, COUNT], ...] = (32,)
    variants: tuple[str, ...] = ("dense", "eugen", "lowrank", "narrow")
    rates: tuple[Annotated[float, POSITIVE], ...] = (1e-4, 3e-4, 1e-3)

    def __post_init__(self) -> None:
        for kind in self.variants:
            _check_variant(kind)

    def cases(self) -> list[Case]:
        """The dense network once, the others for every number of features."""
        cases: list[Case] = [{"group": "photograph", "variant": "dense", "kind": "dense", "m": 0}]
        for m in self.features:
            cases += [
                {"group": "photograph", "variant": f"{kind}, m = {m}", "kind": kind, "m": m}
                for kind in self.variants
                if kind != "dense"
            ]
        return cases if "dense" in self.variants else cases[1:]

    def run(self, case: Case, seed: int) -> dict[str, float]:
        """PSNR in dB, relative error of the gradient, sizes."""
        x, y = photograph(self.size)
        generator = seeded_generator(seed, "batches")
        order = torch.randint(len(x), (self.steps, min(self.batch, len(x))), generator=generator)

        def error(model: nn.Module) -> float:
            with torch.no_grad():
                return float((model(x).clamp(-1, 1) - y).square().mean())

        model, rate = train(
            lambda: self._network(case, seed, x),
            lambda step: (x[order[step]], y[order[step]]),
            error,
            steps=self.steps,
            rates=self.rates,
        )
        return {
            "psnr": -10 * math.log10(error(model) / 4),  # brightness is in [-1, 1]
            "gradient_error": self._gradient_error(model, x, y),
            "parameters": count_parameters(model),
            "multiply_adds": self._multiply_adds(model),
            "rate": rate,
        }

    def _network(self, case: Case, seed: int, x: Tensor) -> nn.Module:
        """A network before its first step; `x` are the coordinates that it is trained on."""
        torch.manual_seed(seed)
        kind, m, width = case["kind"], case["m"], self.width
        _check_variant(kind)
        if kind == "narrow":  # l^2 of a hidden layer as 2 m d of eugen's
            width = max(4, round(math.sqrt(2 * m * width)))
        hidden: list[nn.Module] = []
        for i in range(self.depth - 1):
            if kind.startswith("eugen"):
                hidden.append(EUGenSine(width, m, seed + i))
            elif kind.startswith("harmonic"):
                # the same multiply-adds: a degree more is a block of features more
                features = max(1, m // 2)
                config = EUGenConfig(features, 2, phi="identity", product="harmonic", norm=False, seed=seed + i)
                hidden.append(EUGenLinear(width, width, config))
            else:
                hidden.append(Sine(width, width, rank=m if kind == "lowrank" else None))
        last = nn.Linear(width, 1)
        bound = math.sqrt(6 / width) / FREQUENCY
        nn.init.uniform_(last.weight, -bound, bound)
        network = nn.Sequential(Sine(2, width, first=True), *hidden, last)
        if kind.endswith("-data"):
            _start_from_data(network, x)
        return network

    def _multiply_adds(self, model: nn.Module) -> int:
        """Of a pixel, EUGen's output maps merged into their consumers (Eq. 29)."""
        stages = [m for m in model.modules() if isinstance(m, nn.Linear | EUGenLinear)]
        total, merged_width = 0, None
        for layer in stages:
            width = layer.in_features if merged_width is None else merged_width
            rows = layer.out_features if isinstance(layer, nn.Linear) else layer.weight.shape[1]
            total += width * rows
            merged_width = None if isinstance(layer, nn.Linear) else rows
        return total

    def _gradient_error(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        side, step = self.size, 2 / self.size
        image = y.reshape(side, side)
        across = (image[2:, 1:-1] - image[:-2, 1:-1]) / (2 * step), (image[1:-1, 2:] - image[1:-1, :-2]) / (2 * step)
        truth = torch.stack(across, dim=-1).reshape(-1, 2)
        inside = x.reshape(side, side, 2)[1:-1, 1:-1].reshape(-1, 2)
        parts = []
        for chunk in inside.split(_GRADIENT_POINTS):
            points = chunk.clone().requires_grad_(True)
            parts.append(torch.autograd.grad(model(points).sum(), points)[0])
        return float((torch.cat(parts) - truth).norm() / truth.norm())


@torch.no_grad()
def _start_from_data(network: nn.Sequential, x: Tensor) -> None:
    for layer in network:
        if isinstance(layer, EUGenSine):
            start_from_data(layer.layer, FREQUENCY * x)
        elif isinstance(layer, EUGenLinear):
            start_from_data(layer, x)
        x = layer(x)


def _check_variant(kind: str) -> None:
    if kind not in VARIANTS:
        raise ConfigError(f"variant {kind!r} is unknown; choose {', '.join(VARIANTS[:-1])} or {VARIANTS[-1]}")


def photograph(size: int) -> tuple[Tensor, Tensor]:
    """Coordinates `[size^2, 2]` and brightness `[size^2, 1]`, both in [-1, 1], of scikit-image's photographer."""
    from skimage.data import camera
    from skimage.transform import resize

    image = torch.from_numpy(resize(camera(), (size, size), anti_aliasing=True)).float() * 2 - 1
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.cartesian_prod(axis, axis), image.reshape(-1, 1)
