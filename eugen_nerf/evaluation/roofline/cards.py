"""What graphics cards can do at most, and the least time that they need for an operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from eugen_nerf.evaluation.roofline.operations import Operation

Limit = Literal["launch", "memory", "products", "gathers", "atomics"]


@dataclass(frozen=True)
class Card:
    """Rates that kernels reach, not those of the data sheet.

    Where the figures come from:

    * Products: an H200 reached 51 TFLOP/s in float32 and 769 in bfloat16 on square matrices
      (`docs/results/data/speed_cuda.json`); the H100 SXM has the same chip. TF32 has half the rate of
      bfloat16 in NVIDIA's data sheets of both cards (495 and 989 TFLOP/s), and so here. Float64 is their 34 TFLOP/s.
    * Memory: the same H200 copied 4.1 TB/s, 85 % of its 4.8; the H100 has the same share of its 3.35.
    * Assumed, not measured: 4 us from the start of a kernel that does nothing to that of the next in eager PyTorch;
      120 G sectors of 32 bytes a second from random places of the second-level cache (tables larger than its 50 MB are
      slower); 60 G random float additions a second.
    """

    name: str
    bandwidth: float
    """Bytes/s."""
    products: Mapping[str, float]
    """FLOP/s by dtype, and by `tf32`."""
    launch: float = 4e-6
    """Least seconds of an operation."""
    gathered_sectors: float = 1.2e11
    """Sectors of 32 bytes a second, from random places."""
    atomics: float = 6e10
    """Float additions a second, at random places."""

    def times(self, operation: Operation, products: str) -> dict[Limit, float]:
        """Seconds that an operation needs by each limit alone; the longest is what it takes.

        Args:
            operation: whatever it does at a time it does side by side.
            products: key of the rate of its matrix products.
        """
        return {
            "launch": self.launch,
            "memory": operation.bytes / self.bandwidth,
            "products": operation.flops / self.products[products],
            "gathers": operation.sectors / self.gathered_sectors,
            "atomics": operation.atomics / self.atomics,
        }


_PRODUCTS = {"float32": 51e12, "tf32": 385e12, "bfloat16": 769e12, "float64": 34e12}
CARDS = {
    card.name: card
    for card in (
        Card("H100", bandwidth=0.85 * 3.35e12, products=_PRODUCTS),
        Card("H200", bandwidth=4.1e12, products=_PRODUCTS),
    )
}
"""By name."""
