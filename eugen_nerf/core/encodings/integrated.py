"""Integrated positional encoding (Eq. 14 of arXiv 2103.13415) along many directions (off-axis, arXiv 2111.12077)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        outer = self.directions[:, :, None] * self.directions[:, None, :]
        projected = mean @ self.directions.T
        # a contracted covariance far away has lost the digits of its smallest variance, and its sign with them
        variance = (covariance.flatten(-2) @ outer.flatten(1).T).clamp_min(0)
        phase = (projected[..., None, :] * self.frequencies[:, None]).flatten(-2)
        damping = (variance[..., None, :] * (-0.5 * self.frequencies.square()[:, None])).flatten(-2).exp()
        return torch.cat([phase.sin() * damping, phase.cos() * damping], dim=-1)
