"""Independent oracles: numpy float64 loops written from Eq. (1), and the closed-form moments of Thm 3.2."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from eugen_nerf.core import (
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    FeatureLayer,
    LayerGraph,
    LowRankLinear,
    MonarchLinear,
)

Array = np.ndarray

_erf = np.vectorize(math.erf, otypes=[float])
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "softplus": lambda z: np.where(z > 20, z, np.log1p(np.exp(np.minimum(z, 20)))),  # torch is linear above 20
    "softplus100": lambda z: np.where(z > 0.2, z, np.log1p(np.exp(np.minimum(100 * z, 20))) / 100),
    "gelu": lambda z: z * 0.5 * (1.0 + _erf(z / math.sqrt(2.0))),
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "gaussian": lambda z: np.exp(-(z**2) / 2.0),
}

PRODUCTS: dict[str, Callable[[float, float], float]] = {
    "plain": lambda a, b: a * b,
    "harmonic": lambda a, b: complex(a, b).real * complex(a, b).imag / math.hypot(a, b, 1e-3),
    "minimum": lambda a, b: math.copysign(min(abs(a), abs(b)), a) * math.copysign(1.0, b),
    "clamped": lambda a, b: a * max(-1.0, min(1.0, b)),
}
"""What joins two projections, on single numbers."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Layers built inside have this dtype, projections included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers from numpy, so that the tests never share torch's random stream."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def randomise(module: nn.Module, seed: int, spread: float = 0.5) -> None:
    """Overwrites every parameter and float buffer, so that norm columns, biases and coefficients are not special."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(spread * generator.normal(size=tuple(tensor.shape))))


def projections(layer: EUGenLinear, prefix: str) -> dict[tuple[int, int], Array]:
    """G_ij `[m, d + 2]`, columns (x, 1, |x|), unpacked from the stacked rows: block j if shared, else i then j."""
    c, d = layer.config, layer.in_features
    rows = array(getattr(layer, prefix))
    bias = getattr(layer, f"{prefix}_bias")
    norm = getattr(layer, f"{prefix}_norm")
    full = np.zeros((rows.shape[0], d + 2))
    full[:, :d] = rows
    if bias is not None:
        full[:, d] = array(bias)
    if norm is not None:
        full[:, d + 1] = array(norm)
    found, start = {}, 0
    for i in range(1, c.degree + 1):
        for j in range(1, i + 1):
            block = j - 1 if c.shared else start
            found[i, j] = full[block * c.num_features : (block + 1) * c.num_features]
            start += 1
    return found


def eugen_numpy(layer: EUGenLinear, x: Array) -> Array:
    """Eq. (1) as plain loops over inputs or outputs, degrees, features and Hadamard factors."""
    c = layer.config
    g = projections(layer, "projection")
    h = (
        None
        if c.weights == "free"
        else projections(layer, "projection" if c.weights == "tied" else "weight_projection")
    )
    weight, a = array(layer.weight), array(layer.coefficients)
    terms = [(i, r) for i in range(1, c.degree + 1) for r in range(c.num_features)]

    def products(rows: dict[tuple[int, int], Array], plus: Array) -> Array:
        found = np.ones(len(terms))
        for k, (i, r) in enumerate(terms):
            factors = [float(rows[i, j][r] @ plus) for j in range(1, i + 1)]
            found[k] = PRODUCTS[c.product](*factors) if i == 2 else math.prod(factors)
        return found

    left = [products(g, np.concatenate([row, [1.0, math.sqrt(sum(v * v for v in row))]])) for row in x]
    right = weight
    if h is not None:
        shifts = np.zeros(layer.out_features) if layer.weight_bias is None else array(layer.weight_bias)
        scales = np.array([a[i - 1] for i, _ in terms])
        made = [products(h, np.concatenate([row, [shift, 1.0]])) for row, shift in zip(weight, shifts, strict=True)]
        right = scales * FUNCTIONS[c.psi](np.array(made))
    y = FUNCTIONS[c.phi](np.array(left)) @ right.T
    return y if layer.bias is None else y + array(layer.bias)


def monarch_numpy(layer: MonarchLinear, x: Array) -> Array:
    """Two block-diagonal products as plain loops over blocks; outputs take turns over them."""

    def blocks(values: Array, rows: Array) -> Array:
        size, columns = rows.shape[0] // layer.blocks, rows.shape[1]
        padded = np.zeros((len(values), layer.blocks * columns))
        padded[:, : values.shape[1]] = values
        y = np.zeros((len(values), rows.shape[0]))
        for b in range(layer.blocks):
            for r in range(size):
                y[:, r * layer.blocks + b] = padded[:, b * columns : (b + 1) * columns] @ rows[b * size + r]
        return y

    return FUNCTIONS[layer.function](blocks(blocks(x, array(layer.first)), array(layer.second)) + array(layer.bias))


def layer_numpy(layer: FeatureLayer, x: Array) -> Array:
    """Any layer kind, in numpy."""
    if isinstance(layer, EUGenLinear):
        return eugen_numpy(layer, x)
    if isinstance(layer, DenseLinear):
        return FUNCTIONS[layer.function](x @ array(layer.weight).T + array(layer.bias))
    if isinstance(layer, MonarchLinear):
        return monarch_numpy(layer, x)
    assert isinstance(layer, LowRankLinear)
    return FUNCTIONS[layer.function]((x @ array(layer.down).T) @ array(layer.up).T + array(layer.bias))


def graph_numpy(graph: LayerGraph, wiring: dict[str, list[int | str]], inputs: list[Array]) -> dict[str, Array]:
    """Every layer's output, from the wiring the test wrote down itself."""
    values: dict[int | str, Array] = dict(enumerate(inputs))
    for name, reads in wiring.items():
        values[name] = layer_numpy(graph.layer(name), np.concatenate([values[v] for v in reads], axis=-1))
    return {name: values[name] for name in wiring}


def theorem_variance(coefficients: list[float], w: Array, x: Array, tau: float) -> float:
    """Thm 3.2 at m = 1."""
    dot = float(w @ x)
    second = 2 * dot**2 + float(w @ w) * float(x @ x) + (tau - 3) * float((w**2 * x**2).sum())
    return sum(a**2 * (second**i - dot ** (2 * i)) for i, a in enumerate(coefficients))


def estimate(coefficients: list[float], w: Array, x: Array, config: EUGenConfig) -> float:
    """One draw of the polynomial estimator of Thm 3.1 (no bias inside f)."""
    layer = EUGenLinear.from_polynomial(len(w), 1, coefficients, config, weight=torch.tensor(w)[None].float())
    with torch.no_grad():
        return float(layer(torch.tensor(x)[None].float()))
