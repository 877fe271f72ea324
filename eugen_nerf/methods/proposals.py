"""Sampling by proposals on conical frustums (Sec. 3 of arXiv 2111.12077).

nerfstudio's own ProposalNetworkSampler hands positions to its density functions; these take frustums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.ray_samplers import PDFSampler, Sampler, SpacedSampler
from torch import Tensor

from eugen_nerf.core.rendering.step_functions import annealed, inverse_power_transform, power_transform


class Round(NamedTuple):
    """One round of sampling."""

    samples: RaySamples
    weights: Tensor
    """`[rays, samples, 1]`."""


def power_sampler(exponent: float, multiplier: float) -> SpacedSampler:
    """Samples spaced by the power transformation of distance (Sec. 4 of arXiv 2304.06706), jittered once a ray."""
    return SpacedSampler(
        spacing_fn=lambda t: power_transform(multiplier * t, exponent),
        spacing_fn_inv=lambda s: inverse_power_transform(s, exponent) / multiplier,
        single_jitter=True,
    )


class ProposalSampler(Sampler):
    """Rounds of samples, each drawn from the weights of the round before.

    Args:
        first: places the samples of the first round.
        num_samples: of each proposal round, then of the final one.
        anneal_slope: of the weights' annealing; 0 for none.
        histogram_padding: added to all weights before they are drawn from.
    """

    def __init__(
        self, first: Sampler, num_samples: Sequence[int], anneal_slope: float, histogram_padding: float
    ) -> None:
        super().__init__(num_samples=num_samples[-1])
        self.first = first
        self.counts = tuple(num_samples)
        self.anneal_slope = anneal_slope
        self.fraction = 1.0
        """Part of training that is done; weights are annealed by it while training."""
        self.pdf = PDFSampler(include_original=False, single_jitter=True, histogram_padding=histogram_padding)

    def generate_ray_samples(  # type: ignore[override]
        self,
        ray_bundle: RayBundle,
        densities: Sequence[Callable[[RaySamples], Tensor]],
        rounds: int | None = None,
        counts: Sequence[int] | None = None,
    ) -> tuple[list[Round], RaySamples]:
        """Proposal rounds and the samples that follow the last of them.

        Args:
            ray_bundle: rays, near and far planes set.
            densities: of each proposal round: samples to densities `[rays, samples, 1]`.
            rounds: how many proposal rounds are made; all by default.
            counts: samples of each round, then of the final one; those of training by default.

        Returns:
            The rounds, and samples without weights.
        """
        first, *others = counts or self.counts
        samples = self.first(ray_bundle, num_samples=first)
        done: list[Round] = []
        for density, count in zip(densities[:rounds], others, strict=False):
            weights = samples.get_weights(density(samples))
            done.append(Round(samples, weights))
            if self.training and self.anneal_slope > 0:
                weights = annealed(weights.detach(), self.fraction, self.anneal_slope)
            samples = self.pdf(ray_bundle, samples, weights, num_samples=count)
        return done, samples
