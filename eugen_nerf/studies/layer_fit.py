"""One dense layer learned by layers of fewer multiply-adds (Fig. 2 and App. D.1 of arXiv 2410.09771)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from eugen_nerf.core import EUGenConfig, EUGenLinear, FeatureLayer, LayerSpec, start_from_data
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.baselines import MONARCH_BLOCKS
from eugen_nerf.core.layers.projections import seeded_generator
from eugen_nerf.core.ranges import COUNT, POSITIVE
from eugen_nerf.core.spec import count_parameters
from eugen_nerf.studies.study_run import Case, Column, Study, train

EUGEN = ("eugen", "eugen-fixed", "eugen-data")
"""Kinds of EUGen layers: with A and G trained, with A alone, and started from data (`core/layers/data_start.py`)."""
HARMONIC = ("eugen-harmonic", "eugen-harmonic-data")
"""Kinds of degree 2 with harmonic products, from the usual start and from data."""


@dataclass(frozen=True)
class LayerFit(Study):
    """Points uniform in the unit cube through `f(W x + b)`, and layers of m features that learn the outputs."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("mse", "MSE, held out", "{:.3e}"),
        Column("share", "of the outputs' variance", "{:.2%}"),
        Column("multiply_adds", "multiply-adds", "{:,.0f}"),
        Column("parameters", "parameters", "{:,.0f}"),
        Column("rate", "learning rate", "{:g}"),
    )
    plot: ClassVar[tuple[str, str]] = ("multiply_adds", "mse")
    spans: ClassVar[tuple[str, ...]] = ("features", "functions", "variants")
    remark: ClassVar[str] = (
        "Fig. 2: 10,000 points, 3,000 epochs, 10 repeats, m = 128; EUGen's error is the smallest of EUGen, SNNK and "
        "low rank for ReLU, softplus and GELU. Here the learning rate is chosen for each layer on points held out for "
        "that, and errors are on others; eugen-k2 has two degrees and so half the features; snnk's features are "
        "cosines, whatever the activation; eugen-fixed trains A alone; eugen-data starts with features centred on the "
        "training points, none of them dead; eugen-harmonic has degree 2 with harmonic products."
    )

    width: Annotated[int, COUNT] = 512
    points: Annotated[int, COUNT] = 10_000
    steps: Annotated[int, COUNT] = 3_000
    batch: Annotated[int, COUNT] = 10_000
    features: tuple[Annotated[int, COUNT], ...] = (128,)
    functions: tuple[str, ...] = ("relu", "softplus", "gelu")
    variants: tuple[str, ...] = ("eugen", "eugen-data", "eugen-fixed", "snnk", "lowrank", "monarch")
    rates: tuple[Annotated[float, POSITIVE], ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """Inputs that are all positive move every pre-activation by half the rate times the width in a step of Adam: above
    1e-3, features of a ReLU die at a width of 512."""
    held_out: Annotated[int, COUNT] = 2_000
    """Points to choose the learning rate by, and as many to report on."""

    def __post_init__(self) -> None:
        for name in self.functions:
            activation(name)
        for kind in self.variants:
            _check_variant(kind)

    def cases(self) -> list[Case]:
        """Every activation, number of features and variant."""
        several = len(self.features) > 1
        return [
            {"group": function, "variant": f"{variant}, m = {m}" if several else variant, "kind": variant, "m": m}
            for function in self.functions
            for m in self.features
            for variant in self.variants
        ]

    def run(self, case: Case, seed: int) -> dict[str, float]:
        """Mean squared error on held-out points, absolute and relative to the outputs' variance, and sizes."""
        _, xs, ys = self.data(case["group"], seed)
        generator = seeded_generator(seed, "batches")
        order = torch.randint(self.points, (self.steps, min(self.batch, self.points)), generator=generator)
        whole = self.batch >= self.points

        def error(model: nn.Module, part: int) -> float:
            with torch.no_grad():
                return float((model(xs[part]) - ys[part]).square().mean())

        model, rate = train(
            lambda: self._layer(case, seed, xs[0], ys[0]),
            lambda step: (xs[0], ys[0]) if whole else (xs[0][order[step]], ys[0][order[step]]),
            lambda trained: error(trained, 1),
            steps=self.steps,
            rates=self.rates,
        )
        assert isinstance(model, FeatureLayer)
        mse = error(model, 2)
        return {
            "mse": mse,
            "share": mse / float(ys[2].var(dim=0).mean()),
            "multiply_adds": model.multiply_adds(),
            "parameters": count_parameters(model),
            "rate": rate,
        }

    def data(self, function: str, seed: int) -> tuple[nn.Linear, list[Tensor], list[Tensor]]:
        """The layer to learn, inputs `[n, width]` and outputs: for training, for the choice of a rate, for the report.

        Args:
            function: name of the activation.
            seed: of all of it; weights and inputs have streams of their own.
        """
        linear = nn.Linear(self.width, self.width).requires_grad_(False)
        weights, inputs = seeded_generator(seed, "weights"), seeded_generator(seed, "inputs")
        bound = self.width**-0.5  # as `nn.Linear` draws them, whose own draw takes no generator
        nn.init.uniform_(linear.weight, -bound, bound, generator=weights)
        nn.init.uniform_(linear.bias, -bound, bound, generator=weights)
        sizes = (self.points, self.held_out, self.held_out)
        xs = [torch.rand(size, self.width, generator=inputs) for size in sizes]
        return linear, xs, [activation(function)(linear(x)) for x in xs]

    def _layer(self, case: Case, seed: int, inputs: Tensor, outputs: Tensor) -> FeatureLayer:
        """A layer before its first step; `inputs` and `outputs` are those it is trained on."""
        _check_variant(str(case["kind"]))
        torch.manual_seed(seed)
        kind, _, degree = str(case["kind"]).partition("-k")
        harmonic = kind in HARMONIC
        m, order = int(case["m"]), int(degree or (2 if harmonic else 1))
        if kind in EUGEN + HARMONIC:
            # the same multiply-adds: a degree more is a block of features more
            eugen = EUGenConfig(
                degree=order,
                phi="relu" if order == 1 else "identity",
                product="harmonic" if harmonic else "plain",
                train_projection=kind != "eugen-fixed",
            )
            layer = LayerSpec("eugen", num_features=max(1, m // order), eugen=eugen, seed=seed).build(
                self.width, self.width
            )
            if kind.endswith("-data"):
                assert isinstance(layer, EUGenLinear)
                start_from_data(layer, inputs, outputs)
            return layer
        if kind == "monarch":
            spec = LayerSpec("monarch", str(case["group"]), MONARCH_BLOCKS * m)
        else:
            spec = LayerSpec("snnk" if kind == "snnk" else "lowrank", str(case["group"]), m, seed=seed)
        return spec.build(self.width, self.width)


def _check_variant(kind: str) -> None:
    if not re.fullmatch(rf"({'|'.join(EUGEN)})(-k[1-9]\d?)?|{'|'.join(HARMONIC)}|snnk|lowrank|monarch", kind):
        raise ConfigError(
            f"variant {kind!r} is unknown; choose eugen, eugen-k2 (of degree 2, ...), eugen-fixed, eugen-data, "
            "eugen-harmonic, eugen-harmonic-data, snnk, lowrank or monarch"
        )
