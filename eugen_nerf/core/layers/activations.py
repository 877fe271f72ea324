"""Element-wise functions a layer may name: the outer functions Phi and Psi of Eq. (1), and plain activations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from eugen_nerf.core.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "softplus": F.softplus,
    "softplus100": lambda x: F.softplus(x, beta=100.0),  # the smooth stand-in for ReLU of signed distance networks
    "gelu": F.gelu,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gaussian": lambda x: torch.exp(-0.5 * x * x),
}
"""Functions that settings may name; each takes and returns a tensor of any shape."""

_CONVERSION_ONLY: dict[str, Callable[..., Tensor]] = {
    "silu": F.silu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
}
# in networks that are converted only; the last two take a parameter, as in "leaky_relu(0.2)"


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The element-wise function called `name`.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    if name in _CONVERSION_ONLY:
        return _CONVERSION_ONLY[name]
    if match := re.fullmatch(r"(leaky_relu|elu)\(([-+]?[\d.]+(?:e[-+]?\d+)?)\)", name):
        return partial(_parametrised, match[1], float(match[2]))
    raise ConfigError(f"activation {name!r} is unknown; choose one of {', '.join(sorted(ACTIVATIONS))}")


def _parametrised(name: str, parameter: float, x: Tensor) -> Tensor:
    return _CONVERSION_ONLY[name](x, parameter)


def polynomial_fit(name: str, degree: int, *, scale: float = 1.0) -> Tensor:
    """Least-squares polynomial of an activation under Gaussian inputs.

    Args:
        name: the activation.
        degree: highest power, at least 0.
        scale: standard deviation of the inputs, larger than 0.

    Returns:
        Coefficients `a_0 .. a_degree`, float64 `[degree + 1]`.

    Raises:
        ConfigError: unknown name, negative degree or a scale that is not positive.
    """
    if degree < 0 or not scale > 0 or not math.isfinite(scale):
        raise ConfigError(f"a polynomial fit needs degree >= 0 and scale > 0, got degree {degree} and scale {scale}")
    grid = torch.linspace(-6.0, 6.0, 4001, dtype=torch.float64)
    weight = torch.exp(-0.25 * grid * grid)  # square root of the density: applied to both sides of the regression
    powers = grid[:, None] ** torch.arange(degree + 1, dtype=torch.float64)
    target = activation(name)(scale * grid)
    solution = torch.linalg.lstsq(powers * weight[:, None], (target * weight)[:, None]).solution[:, 0]
    return solution / scale ** torch.arange(degree + 1, dtype=torch.float64)
