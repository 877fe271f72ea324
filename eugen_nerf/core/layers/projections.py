"""Random projection matrices G of Eq. (1), zero mean and unit variance an entry, each from its own seeded generator.

The layer sets the scale, since it depends on what the projection is for (Thm 3.1 puts `|a_i| / m` there).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError

PROJECTIONS = ("gaussian", "rademacher", "orthogonal")


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own, so that no global random state is read or changed.

    Args:
        seed: any integer.
        purpose: what is drawn. Two purposes have independent streams under one seed: weights and the inputs that test
            them would otherwise be the same numbers.
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:7], "little"))


def sample_projection(
    kind: str, rows: int, columns: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Samples a projection with entries of mean 0 and variance 1.

    `gaussian` and `rademacher` entries are independent. `orthogonal` rows are Gaussian in their marginals (uniform
    directions, chi-distributed lengths) and exactly orthogonal within blocks of `columns` rows (Sec. 3.1).

    Args:
        kind: one of `PROJECTIONS`.
        rows: number of random features m, at least 0.
        columns: input width d, at least 1.
        generator: CPU generator; float64 numbers are drawn and then cast, so dtypes see the same projection.
        dtype: of the result.

    Returns:
        Matrix `[rows, columns]` on the CPU.

    Raises:
        ConfigError: unknown kind or impossible sizes.
    """
    if kind not in PROJECTIONS:
        raise ConfigError(f"projection {kind!r} is unknown; choose one of {', '.join(PROJECTIONS)}")
    if rows < 0 or columns < 1:
        raise ConfigError(f"a projection needs rows >= 0 and columns >= 1, got {rows} x {columns}")
    if kind == "rademacher":
        signs = torch.randint(0, 2, (rows, columns), generator=generator)
        return (2 * signs - 1).to(dtype)
    if kind == "gaussian":
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)
    blocks = [_orthogonal_block(columns, generator) for _ in range(-(-rows // columns))]
    return torch.cat(blocks)[:rows].to(dtype) if blocks else torch.zeros(0, columns, dtype=dtype)


def _orthogonal_block(size: int, generator: torch.Generator) -> Tensor:
    gaussian = torch.randn(size, size, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.sign(torch.diagonal(r))  # without the signs QR's convention biases the directions
    lengths = torch.randn(size, size, generator=generator, dtype=torch.float64).norm(dim=1)
    return q.T * lengths[:, None]
