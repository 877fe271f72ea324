"""Gaussians of frustums and their integrated encoding in one pass each, compiled by numba where it is installed.

PyTorch's operations write phases, dampings, sines and cosines to memory and read them again, and the nine numbers of a
covariance a dozen times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eugen_nerf.core.layers.loop_threads import COMPILES, in_parts
from eugen_nerf.core.layers.plain_tensors import are_plain
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

_ROWS = 256
"""Fewest Gaussians that are worth a thread of their own."""
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def can_compile(*tensors: Tensor) -> bool:
    """Whether the functions below take these: float32 on a CPU that need no gradients."""
    single = all(x.dtype == torch.float32 for x in tensors)
    return COMPILES and are_plain(*tensors) and single and not any(x.requires_grad for x in tensors)


def encode_compiled(mean: Tensor, covariance: Tensor, directions: Tensor, num_frequencies: int) -> Tensor:
    """`IntegratedEncoding` without PyTorch's operations.

    Args:
        mean: `[..., 3]`.
        covariance: `[..., 3, 3]`.
        directions: `[n, 3]`.
        num_frequencies: L.

    Returns:
        `[..., 2 L n]`.
    """
    from eugen_nerf.core.encodings.gaussian_kernels import encode

    frequencies = 2.0 ** torch.arange(num_frequencies, dtype=torch.float64)
    waves = (frequencies[:, None, None] * directions.double()).flatten(0, 1).T
    outer = torch.stack([(1 if i == j else 2) * waves[i] * waves[j] for i, j in _UPPER])
    # phases in quarter turns, and dampings as powers of two
    tables = [x.float().contiguous().numpy() for x in (waves * (2 / math.pi), outer * (-0.5 / math.log(2)))]
    means, covariances = mean.reshape(-1, 3).contiguous(), covariance.reshape(-1, 9).contiguous()
    columns = num_frequencies * len(directions)
    features = mean.new_empty(len(means), 2, columns)

    def run(rows: slice) -> None:
        encode(means[rows].numpy(), covariances[rows].numpy(), *tables, features[rows].numpy())

    in_parts(run, len(means), _ROWS)
    return features.view(*mean.shape[:-1], 2 * columns)


def contract_compiled(frustums: ConeFrustums) -> tuple[Tensor, Tensor]:
    """`contracted_gaussians` without PyTorch's operations; each frustum may have a cone of its own.

    Returns:
        Means `[..., 3]` and covariances `[..., 3, 3]`.
    """
    from eugen_nerf.core.encodings.gaussian_kernels import contract_gaussians

    shape = frustums.shape
    points = (x.expand(*shape, 3).reshape(-1, 3) for x in (frustums.origins, frustums.directions))
    numbers = (x.expand(shape).reshape(-1) for x in (frustums.starts, frustums.ends, frustums.radius))
    means = frustums.starts.new_empty(*shape, 3)
    covariances = frustums.starts.new_empty(*shape, 3, 3)
    filled = means.view(-1, 3), covariances.view(-1, 9)
    contract_gaussians(*(x.contiguous().numpy() for x in (*points, *numbers)), *(x.numpy() for x in filled))
    return means, covariances
