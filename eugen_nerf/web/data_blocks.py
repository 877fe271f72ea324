"""Numbers of a page: little-endian blocks of one binary, float16 or 8 bits a number where that loses little."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 4
"""Bytes at a multiple of which a block begins."""
HALF_EXPONENT = 14
"""Scaled by a power of two, the largest number of a float16 block lies between 2 to this power and twice that: so the
smallest ones keep their digits."""
SHORT_STEPS = 127
"""Steps from zero to the largest number of a level in 8 bits."""


class DataBlocks:
    """Blocks one after another; a description names them by their numbers."""

    def __init__(self) -> None:
        self.table: list[list[str | int | float]] = []
        """`[type, offset in bytes, count, scale]` of each; types are `f32`, `f16` and `u32`."""
        self._parts: list[bytes] = []
        self._size = 0

    def add_floats(self, numbers: Tensor, *, half: bool = False) -> int:
        """The number of a new block of floats, row after row; half: float16 times a power of two."""
        scale = half_scale(numbers) if half else 1.0
        values = (numbers.detach().double() / scale).flatten().cpu().numpy()
        return self._add("f16" if half else "f32", values.astype("<f2" if half else "<f4"), len(values), scale)

    def add_words(self, packed: Tensor | np.ndarray) -> int:
        """The number of a new block of 32-bit words: bytes as they are, filled up with zeros."""
        content = np.ascontiguousarray(packed.cpu().numpy() if isinstance(packed, Tensor) else packed)
        return self._add("u32", content, -(-content.nbytes // 4), 1.0)

    def binary(self) -> bytes:
        """All blocks."""
        return b"".join(self._parts)

    def _add(self, kind: str, content: np.ndarray, count: int, scale: float) -> int:
        self.table.append([kind, self._size, count, scale])
        data = content.tobytes()
        data += bytes(-len(data) % ALIGNMENT)
        self._parts.append(data)
        self._size += len(data)
        return len(self.table) - 1


def half_scale(numbers: Tensor) -> float:
    """The power of two that a block's numbers are divided by before they are rounded to float16."""
    largest = float(numbers.detach().abs().max()) if numbers.numel() else 0.0
    return 2.0 ** (math.floor(math.log2(largest)) - HALF_EXPONENT) if largest > 0 else 1.0


def round_half(numbers: Tensor) -> Tensor:
    """Numbers as a float16 block holds them, in their own dtype."""
    scale = half_scale(numbers)
    return ((numbers.double() / scale).half().double() * scale).to(numbers.dtype)


def short_steps(numbers: Tensor) -> tuple[np.ndarray, float]:
    """Numbers as whole steps, int8, and what a full scale of `SHORT_STEPS` steps stands for."""
    scale = float(numbers.detach().abs().max()) or 1.0
    steps = (numbers.detach().double() / scale * SHORT_STEPS).round()
    return steps.to(torch.int8).cpu().numpy(), scale


def round_short(numbers: Tensor) -> Tensor:
    """Numbers as a level of 8 bits holds them, in their own dtype."""
    steps, scale = short_steps(numbers)
    return (torch.from_numpy(steps).to(numbers) / SHORT_STEPS * scale).to(numbers.dtype)
