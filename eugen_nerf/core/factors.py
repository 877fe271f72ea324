"""How far Muon moves the two factors of a matrix.

A step of Muon has one spectral norm, s. A matrix `B A` whose factors each move by it moves by `dB A + B dA`, of a norm
up to `s (|A| + |B|)`: at the start of the layers here three to five times as far as a matrix of its own would. So each
factor takes `1 / (|A| + |B|)` of the step.
"""

from __future__ import annotations

from torch import Tensor

_SHARE = "update_share"


def share_updates(first: Tensor, second: Tensor) -> None:
    """Lets two random factors of one matrix, or of two layers' common one, move no further than the matrix would.

    The share is written on the tensors themselves: an optimizer gets nothing else.

    Args:
        first, second: matrices of independent entries, whose spectral norm is near `std (sqrt(r) + sqrt(c))`
            (Marchenko and Pastur 1967).
    """
    share = 1.0 / (_norm(first) + _norm(second))
    setattr(first, _SHARE, share)
    setattr(second, _SHARE, share)


def update_share(parameter: Tensor) -> float:
    """The part of a step that a parameter takes; 1 for what is no factor."""
    return float(getattr(parameter, _SHARE, 1.0))


def _norm(matrix: Tensor) -> float:
    """Expected spectral norm of a random matrix."""
    rows, columns = matrix.shape
    return float(matrix.detach().double().square().mean().sqrt()) * (rows**0.5 + columns**0.5)
