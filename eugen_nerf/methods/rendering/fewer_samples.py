"""Fewer samples a ray than training had, for methods that place samples by proposals.

A grid of the density over contracted space, as bounded scenes have it, was tried in place of the proposals: its cells
are too coarse for the surfaces of an unbounded scene, and it took more queries of the field for a worse picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eugen_nerf.core.errors import ConfigError

SHARES = (
    (0.75, 0.5, 0.5),
    (0.75, 0.75, 0.75),
    (1.0, 1.0, 0.75),
    (0.75, 0.75, 1.0),
    (1.0, 1.0, 0.875),
    (1.0, 1.0, 1.0),
)
"""Of the samples in the first round of proposals, in later ones and of the field, as tried: from few to many."""


@dataclass(frozen=True)
class FewerSamples:
    """Samples a ray in inference; proposals stand for a frustum by fewer points (`FrustumEncoder.thinned`)."""

    counts: tuple[int, ...]
    """Of each round of proposals, then of the field."""
    rate: float = 1.0
    """Of the field's, the part of training's."""

    def __post_init__(self) -> None:
        if len(self.counts) < 2 or not all(1 <= count <= 4096 for count in self.counts) or not 0 < self.rate <= 1:
            raise ConfigError(
                "rounds have from 1 to 4096 samples, a proposal's and the field's, and a rate in (0, 1], "
                f"got {self.counts} and {self.rate:g}"
            )


def sample_counts(trained: Sequence[int], shares: Sequence[tuple[float, float, float]] = SHARES) -> list[FewerSamples]:
    """What is tried, from few samples to as many as in training.

    Args:
        trained: samples of each round of proposals, then of the field.
        shares: as `SHARES`.

    Examples:
        >>> from eugen_nerf.methods.rendering.fewer_samples import sample_counts
        >>> [few.counts for few in sample_counts((32, 32, 32))]
        [(24, 16, 16), (24, 24, 24), (32, 32, 24), (24, 24, 32), (32, 32, 28), (32, 32, 32)]
    """
    last = len(trained) - 1
    return [
        FewerSamples(
            tuple(
                max(2, round(count * (part[2] if number == last else part[min(number, 1)])))
                for number, count in enumerate(trained)
            ),
            rate=part[2],
        )
        for part in shares
    ]
