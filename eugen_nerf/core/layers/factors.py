"""Muon's step for the two factors of a matrix, and for a matrix of diagonal blocks.

A step of Muon has one spectral norm, s. A matrix `B A` whose factors each move by it moves by `dB A + B dA`, whose norm
is up to `s (|A| + |B|)`: three to five times the step of one matrix at the start of the layers here. So each factor
takes `1 / (|A| + |B|)` of the step. Diagonal blocks, stacked in one parameter, are matrices of their own.
"""

from __future__ import annotations

from torch import Tensor

_SHARE = "update_share"
_BLOCKS = "diagonal_blocks"


def share_updates(first: Tensor, second: Tensor, *, blocks: int = 1) -> None:
    """Limits the steps of two random factors of one matrix, so that the matrix moves as far as it would on its own.

    The share is an attribute of the tensors, since an optimizer gets nothing else.

    Args:
        first: matrix of independent entries, whose spectral norm is near `std (sqrt(r) + sqrt(c))` (Marchenko and
            Pastur 1967).
        second: likewise.
        blocks: diagonal blocks of each factor, stacked.
    """
    share = 1.0 / (_norm(first, blocks) + _norm(second, blocks))
    for factor in (first, second):
        setattr(factor, _SHARE, share)
        setattr(factor, _BLOCKS, blocks)


def update_share(parameter: Tensor) -> float:
    """The share of a step that a parameter takes; 1 for a parameter that is no factor."""
    return float(getattr(parameter, _SHARE, 1.0))


def diagonal_blocks(parameter: Tensor) -> int:
    """Number of diagonal blocks stacked in a parameter; 1 for a plain matrix."""
    return int(getattr(parameter, _BLOCKS, 1))


def _norm(matrix: Tensor, blocks: int) -> float:
    """Expected spectral norm of a random matrix, or of each of its diagonal blocks."""
    rows, columns = matrix.shape[0] // blocks, matrix.shape[1]
    return float(matrix.detach().double().square().mean().sqrt()) * (rows**0.5 + columns**0.5)
