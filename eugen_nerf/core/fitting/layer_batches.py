"""Inputs of one layer and the outputs it should have, repeated as often as a fit needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

HOLD_OUT_EVERY = 5
"""Every fifth batch is not fitted to: it chooses the ridge term and gives the errors."""
CACHE_BYTES = 1 << 30
"""Pairs of one layer that are kept; more are made again each time, so memory does not grow with the samples."""


class LayerBatch(NamedTuple):
    """Inputs of one layer, and the outputs it should have."""

    x: Tensor
    """Inputs as the converted prefix makes them, `[n, d]`."""
    y: Tensor
    """The teacher's outputs, `[n, l]`."""
    weights: Tensor | None
    held_out: bool


class Replay:
    """Goes through a layer's batches again and again, from memory where they fit in `CACHE_BYTES`."""

    def __init__(self, source: Callable[[], Iterator[LayerBatch]]) -> None:
        self.source = source
        self.kept: list[LayerBatch] | None = None

    def __call__(self) -> Iterator[LayerBatch]:
        """The pairs, in the same order every time."""
        if self.kept is not None:
            yield from self.kept
            return
        kept: list[LayerBatch] | None = []
        size = 0
        for batch in self.source():
            size += batch.x.nbytes + batch.y.nbytes
            kept = None if kept is None or size > CACHE_BYTES else [*kept, batch]
            yield batch
        self.kept = kept
