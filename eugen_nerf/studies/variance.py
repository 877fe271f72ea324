"""The error of unbiased estimates of a layer, by distribution of the projections (Fig. 28, Thm 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from eugen_nerf.core import EUGenConfig, EUGenLinear
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.layers.activations import activation, polynomial_fit
from eugen_nerf.core.layers.projections import PROJECTIONS, seeded_generator
from eugen_nerf.core.ranges import COUNT, Range
from eugen_nerf.studies.study_run import Case, Column, Study


@dataclass(frozen=True)
class Variance(Study):
    """A layer `f(W x + b)`, rows `[W, b]` and inputs on unit spheres, estimated from m features without training."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("mse", "MSE of the estimate", "{:.3e}"),
        Column("mse_times_m", "MSE x m", "{:.3g}"),
        Column("bias", "error of the polynomial itself", "{:.2e}"),
    )
    plot: ClassVar[tuple[str, str]] = ("m", "mse")
    spans: ClassVar[tuple[str, ...]] = ("features", "functions", "degrees", "projections")
    remark: ClassVar[str] = (
        "Fig. 28 compares Gaussian orthogonal with independent Gaussian rows for ReLU, softplus and GELU and m = 8 to "
        "512, and finds smaller errors for orthogonal ones. Thm 3.2: MSE x m is constant for independent entries. The "
        "estimate is of the polynomial of the given degree closest to the activation."
    )

    width: Annotated[int, COUNT] = 256
    outputs: Annotated[int, COUNT] = 128
    points: Annotated[int, COUNT] = 256
    features: tuple[Annotated[int, COUNT], ...] = (8, 16, 32, 64, 128, 256, 512)
    functions: tuple[str, ...] = ("relu", "softplus", "gelu")
    degrees: tuple[Annotated[int, Range(1, 16)], ...] = (1, 2)
    projections: tuple[str, ...] = PROJECTIONS
    draws: Annotated[int, COUNT] = 20
    """Projections drawn for each seed."""

    def __post_init__(self) -> None:
        for name in self.functions:
            activation(name)
        for kind in self.projections:
            if kind not in PROJECTIONS:
                raise ConfigError(f"projection {kind!r} is unknown; choose one of {', '.join(PROJECTIONS)}")

    def cases(self) -> list[Case]:
        """Every activation, degree, number of features and distribution."""
        return [
            {"group": f"{function}, degree {k}", "variant": f"{kind}, m = {m}", "function": function, "degree": k,
             "kind": kind, "m": m}
            for function in self.functions
            for k in self.degrees
            for kind in self.projections
            for m in self.features
        ]  # fmt: skip

    def run(self, case: Case, seed: int) -> dict[str, float]:
        """Mean squared error over points, outputs and draws, and what the polynomial misses of the activation."""
        generator = seeded_generator(seed, "weights and points")
        w, x = (
            torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)
            for n, d in ((self.outputs, self.width + 1), (self.points, self.width))
        )
        z = x @ w[:, :-1].T + w[:, -1]
        scale = float(z.square().mean().sqrt())
        coefficients = polynomial_fit(case["function"], case["degree"], scale=scale)
        exact = sum(a * z**i for i, a in enumerate(coefficients))
        total = 0.0
        for draw in range(self.draws):
            config = EUGenConfig(case["m"], projection=case["kind"], norm=False, seed=1000 * seed + draw)
            layer = EUGenLinear.from_polynomial(
                self.width, self.outputs, coefficients.tolist(), config, weight=w[:, :-1], bias=w[:, -1]
            )
            with torch.no_grad():
                total += float((layer.double()(x) - exact).square().mean())
        mse = total / self.draws
        bias = float((exact - activation(case["function"])(z)).square().mean())
        return {"m": case["m"], "mse": mse, "mse_times_m": mse * case["m"], "bias": bias}
