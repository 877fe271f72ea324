"""Integrated positional encoding (Eq. 14 of arXiv 2103.13415) along many directions (off-axis, arXiv 2111.12077)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eugen_nerf.core.encodings.compiled_gaussians import can_compile, encode_compiled

ROWS = 512
"""Gaussians at a time, so that what is kept of them stays in a processor's cache."""
LEAST_EXPONENT = -50.0
"""Of a damping, which is nothing there: `exp` on a CPU takes thirty times as long where float32 has no ordinary numbers
any more, and what is multiplied by its values ten times."""


class IntegratedEncoding(nn.Module):
    """Expected sines and cosines of a Gaussian's projections.

    For direction p and frequency `2^l`: `E[sin(2^l p.x)] = sin(2^l p.mu) exp(-4^l p^T Sigma p / 2)`, and the same with
    cosines.

    Args:
        directions: `[directions, 3]`, unit vectors.
        num_frequencies: L; the frequencies are `2^0, ..., 2^(L - 1)`.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import IntegratedEncoding
        >>> encoding = IntegratedEncoding(torch.eye(3), num_frequencies=4)
        >>> mean, covariance = torch.rand(5, 3), 0.01 * torch.eye(3).expand(5, 3, 3)
        >>> encoding(mean, covariance).shape
        torch.Size([5, 24])
    """

    directions: Tensor
    frequencies: Tensor

    def __init__(self, directions: Tensor, num_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("directions", directions, persistent=False)
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_frequencies), persistent=False)
        self.out_features = 2 * num_frequencies * len(directions)

    def forward(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Features `[..., 2 L directions]` in [-1, 1] for means `[..., 3]` and covariances `[..., 3, 3]`."""
        if can_compile(mean, covariance, self.directions):
            return encode_compiled(mean, covariance, self.directions, len(self.frequencies))
        # frequencies are powers of two: multiplied into the directions they change no rounding, and cost nothing
        waves = self.frequencies[:, None, None] * self.directions
        outer = -0.5 * waves[..., :, None] * waves[..., None, :]
        arguments = (mean, covariance.flatten(-2), waves.flatten(0, 1).T, outer.flatten(2).flatten(0, 1).T)
        if mean.requires_grad or covariance.requires_grad:
            phase, damping = _phase_and_damping(*arguments)
            return torch.cat([phase.sin() * damping, phase.cos() * damping], dim=-1)
        means, covariances = (values.reshape(-1, values.shape[-1]) for values in arguments[:2])
        features = mean.new_empty(len(means), 2, self.out_features // 2)
        for start in range(0, len(means), ROWS):
            rows = slice(start, start + ROWS)
            phase, damping = _phase_and_damping(means[rows], covariances[rows], *arguments[2:])
            torch.mul(phase.sin(), damping, out=features[rows, 0])
            torch.mul(phase.cos(), damping, out=features[rows, 1])
        return features.view(*mean.shape[:-1], self.out_features)


def _phase_and_damping(mean: Tensor, covariance: Tensor, waves: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Phases and dampings `[..., L directions]` of means `[..., 3]` and covariances `[..., 9]`."""
    # a contracted covariance far away has lost the digits of its smallest variance, and its sign with them
    return mean @ waves, (covariance @ outer).clamp(LEAST_EXPONENT, 0).exp()
