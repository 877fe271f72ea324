"""torch's int8 products, by an engine and a rounding of inputs that are exact on this processor.

A processor with AVX2 and nothing newer adds two 8-bit products in 16 bits, and cuts off what does not fit. Inputs of 7
bits always fit. Which products are exact is measured: it depends on torch, its engine and the processor together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError

PROBE_ROWS = (1, 64)
"""Rows of the probe's inputs: a product with one row may be code of its own."""
PROBE_SHAPE = (33, 61)
"""Rows and columns of the probe's weights: no multiples of what registers hold."""


@dataclass(frozen=True)
class Int8Product:
    """One way to multiply in int8: a scale for each row of weights, and one for all inputs of a call."""

    engine: str
    """One of `torch.backends.quantized.supported_engines`."""
    bits: int
    """Bits of the inputs: 8, or 7 where products of 8 overflow the processor's sums."""

    def bind(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The product with weights `[l, k]`, whose largest value in a row is rounded to 127.

        It returns `[..., l]`, float32, for float32 inputs `[..., k]`.
        """
        scales = weight.detach().double().abs().amax(dim=1).clamp_min(1e-12) / 127
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        before = torch.backends.quantized.engine
        with warnings.catch_warnings():
            # torch means to move these products to another package; they are its fastest on a CPU while it has them
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight.detach().float(), scales, zeros, 0, torch.qint8)
            try:
                torch.backends.quantized.engine = self.engine
                packed = torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.detach().float())
            finally:
                torch.backends.quantized.engine = before
        return lambda x: torch.ops.quantized.linear_dynamic(x, packed, self.bits == 7)

    def __str__(self) -> str:
        """The rounding and the engine, in one line."""
        why = "" if self.bits == 8 else " (sums of 8-bit products are cut off on this processor)"
        return f"int8 weights with a scale a row, inputs in {self.bits} bits{why}, by torch's engine {self.engine}"


def has_int8(device: torch.device) -> bool:
    """Whether torch multiplies int8 matrices on a device."""
    known = hasattr(torch.ops.quantized, "linear_prepack") and torch.backends.quantized.engine != "none"
    return device.type == "cpu" and known


def exact_int8(device: torch.device) -> Int8Product:
    """The first exact product here: torch's chosen engine with inputs of 8 bits, then of 7, then the other engines.

    Raises:
        ConfigError: torch has no int8 products on the device, or none of them is exact.
    """
    if not has_int8(device):
        raise ConfigError(f"torch has no int8 products on {device.type} here: take bfloat16, or --device cpu")
    chosen = torch.backends.quantized.engine
    others = [e for e in torch.backends.quantized.supported_engines if e not in (chosen, "none")]
    exact = _first_exact((chosen, *others))
    if exact is None:
        raise ConfigError(f"none of torch's int8 engines ({', '.join((chosen, *others))}) is exact here: take bfloat16")
    return exact


@cache
def _first_exact(engines: tuple[str, ...]) -> Int8Product | None:
    for engine in engines:
        for bits in (8, 7):
            product = Int8Product(engine, bits)
            if is_exact(lambda x, weight, product=product: product.bind(weight, None)(x)):  # type: ignore[misc]
                return product
    return None


def is_exact(multiply: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether an int8 product is exact for the numbers that it rounds to.

    Weights are integers with 127 in every row, and inputs 0 or one largest value: rounding changes neither, in however
    many bits, so that the exact product is known. Rows of weights of one sign make the largest sums.

    Args:
        multiply: float32 `[n, l]` for float32 inputs `[n, k]` and weights `[l, k]`. One that raises is not exact.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, PROBE_SHAPE, generator=generator).float()
    weight[:, 0], weight[0], weight[1] = 127, 127, -127
    for rows in PROBE_ROWS:
        x = torch.randint(0, 2, (rows, PROBE_SHAPE[1]), generator=generator).float()
        x[0] = 1
        try:
            output = multiply(x, weight).double()
        except RuntimeError:  # an engine that torch lists and the processor cannot run
            return False
        if not bool(((output - x.double() @ weight.double().T).abs() < 0.5).all()):
            return False
    return True
