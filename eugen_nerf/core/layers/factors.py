"""How Muon moves the two factors of a matrix, and a matrix of diagonal blocks.

A step of Muon has one spectral norm, s. A matrix `B A` whose factors each move by it moves by `dB A + B dA`, of a norm
up to `s (|A| + |B|)`: at the start of the layers here three to five times as far as a matrix of its own would. So each
factor takes `1 / (|A| + |B|)` of the step. Diagonal blocks, stored one upon the other, are matrices of their own.
"""

from __future__ import annotations

from torch import Tensor

_SHARE = "update_share"
_BLOCKS = "diagonal_blocks"


def share_updates(first: Tensor, second: Tensor, *, blocks: int = 1) -> None:
    """Lets two random factors of one matrix, or of two layers' common one, move no further than the matrix would.

    The share is written on the tensors themselves: an optimizer gets nothing else.

    Args:
        first, second: matrices of independent entries, whose spectral norm is near `std (sqrt(r) + sqrt(c))`
            (Marchenko and Pastur 1967).
        blocks: diagonal blocks of each factor, stored one upon the other.
    """
    share = 1.0 / (_norm(first, blocks) + _norm(second, blocks))
    for factor in (first, second):
        setattr(factor, _SHARE, share)
        setattr(factor, _BLOCKS, blocks)


def update_share(parameter: Tensor) -> float:
    """The part of a step that a parameter takes; 1 for what is no factor."""
    return float(getattr(parameter, _SHARE, 1.0))


def diagonal_blocks(parameter: Tensor) -> int:
    """Blocks that a parameter holds one upon the other; 1 for a plain matrix."""
    return int(getattr(parameter, _BLOCKS, 1))


def _norm(matrix: Tensor, blocks: int) -> float:
    """Expected spectral norm of a random matrix, or of each of its diagonal blocks."""
    rows, columns = matrix.shape[0] // blocks, matrix.shape[1]
    return float(matrix.detach().double().square().mean().sqrt()) * (rows**0.5 + columns**0.5)
