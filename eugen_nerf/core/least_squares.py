"""Streamed second moments, and the closed-form fit of Eq. (31) from them alone.

Memory depends on the widths, never on the number of samples; everything is accumulated in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eugen_nerf.core.distributed import process_count, summed
from eugen_nerf.core.errors import ConfigError

RIDGES = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class MomentSums:
    """Weighted sums over samples of `phi phi^T`, `phi y^T` and `y^2`, in float64.

    Args:
        num_features: F.
        num_targets: l.
        bias: whether a constant feature 1 is appended to phi.
    """

    def __init__(self, num_features: int, num_targets: int, *, bias: bool = True) -> None:
        self.bias = bias
        size = num_features + int(bias)
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.cross = torch.zeros(size, num_targets, dtype=torch.float64)
        self.energy = torch.zeros(num_targets, dtype=torch.float64)
        self.total = torch.zeros(num_targets, dtype=torch.float64)
        self.count = 0
        self.mass = 0.0

    def add(self, features: Tensor, targets: Tensor, weights: Tensor | None = None, *, gram: bool = True) -> None:
        """Adds samples.

        Args:
            features: `[n, F]`, any float dtype.
            targets: `[n, l]`.
            weights: `[n]`, at least 0; ones where None.
            gram: False where these features were added before and only the targets are new.

        Raises:
            ConfigError: if a value is not finite.
        """
        phi = features.detach().double()
        y = targets.detach().double()
        if self.bias:
            phi = torch.cat([phi, phi.new_ones(phi.shape[0], 1)], dim=1)
        scale = phi.new_ones(len(phi), 1) if weights is None else weights.detach().double()[:, None]
        cross, own = phi.T @ (scale * y), phi.T @ (scale * phi) if gram else None
        if not (torch.isfinite(cross).all() and (own is None or torch.isfinite(own).all())):
            raise ConfigError("features or targets hold a value that is not finite: check the teacher for NaN weights")
        if own is not None:
            self.gram += own.cpu()
        self.cross += cross.cpu()
        self.energy += (scale * y.square()).sum(dim=0).cpu()
        self.total += (scale * y).sum(dim=0).cpu()
        self.mass += float(scale.sum())
        self.count += phi.shape[0]

    def summed(self) -> MomentSums:
        """The moments of all processes' samples together."""
        if process_count() == 1:
            return self
        total = MomentSums(0, 0, bias=self.bias)
        for name in ("gram", "cross", "energy", "total"):
            setattr(total, name, summed(getattr(self, name)))
        counts = summed(torch.tensor([self.count, self.mass], dtype=torch.float64)).tolist()
        total.count, total.mass = round(counts[0]), counts[1]
        return total

    def clear_targets(self) -> None:
        """Clears all sums over targets, for other targets of the same features."""
        for sums in (self.cross, self.energy, self.total):
            sums.zero_()
        self.count, self.mass = 0, 0.0

    def select(self, columns: Tensor) -> MomentSums:
        """The moments of a subset of the features (the constant one stays).

        Args:
            columns: indices of features, int64 `[m]`.
        """
        kept = torch.cat([columns, torch.tensor([self.gram.shape[0] - 1])]) if self.bias else columns
        chosen = MomentSums(0, 0, bias=self.bias)
        chosen.gram, chosen.cross = self.gram[kept][:, kept], self.cross[kept]
        chosen.energy, chosen.total, chosen.count = self.energy.clone(), self.total.clone(), self.count
        chosen.mass = self.mass
        return chosen

    def squared_error(self, weight: Tensor, bias: Tensor | None) -> float:
        """Weighted sum over samples of `|A phi + b - y|^2`, from the moments alone.

        Args:
            weight: A, `[l, F]`.
            bias: b, `[l]`; needed where the moments have a constant feature.
        """
        joined = _join(weight.double(), bias).T if self.bias else weight.double().T
        quadratic = (joined * (self.gram @ joined)).sum()
        return float(quadratic - 2 * (joined * self.cross).sum() + self.energy.sum())

    def variation(self) -> float:
        """Weighted sum over samples of `|y - mean(y)|^2`, the scale of a relative error.

        Where all samples are alike it is that of a hundred rounding errors of float32, so that an error as small as
        rounding is not divided by zero.
        """
        least = float(self.energy.sum()) * (100 * torch.finfo(torch.float32).eps) ** 2
        return max(least, float((self.energy - self.total.square() / max(self.mass, 1e-300)).sum()))


def ridge_solution(moments: MomentSums, *, ridge: float) -> tuple[Tensor, Tensor | None]:
    """Minimises `|phi A^T + b - y|^2 + ridge * s * |A|^2` (Eq. 31 with a ridge term; b is not penalised).

    `s` is the mean diagonal of the features' moments, so that `ridge` has no unit. A singular system takes the
    Moore-Penrose solution of the problem with features scaled to equal length.

    Args:
        moments: sums over at least one sample.
        ridge: at least 0.

    Returns:
        A `[l, F]` and b `[l]` (None where the moments have no constant feature), float64.

    Raises:
        ConfigError: no samples, or a negative ridge.
    """
    if moments.count == 0:
        raise ConfigError("a closed-form fit needs samples and got none: take a larger fraction of the rays")
    if ridge < 0:
        raise ConfigError(f"the ridge term must be at least 0, got {ridge}")
    gram = moments.gram.clone()
    size = gram.shape[0] - int(moments.bias)
    if gram.shape[0] == 0:
        return moments.cross.T, None
    diagonal = gram.diagonal()[:size]
    diagonal += ridge * diagonal.mean() if size else 0.0
    # columns of unit length before solving: features differ by orders of magnitude, which the rank test must ignore
    scale = gram.diagonal().clamp_min(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    normalised = gram / (scale[:, None] * scale)
    values, vectors = torch.linalg.eigh(normalised)
    keep = values > values[-1] * gram.shape[0] * torch.finfo(torch.float64).eps
    inverse = torch.where(keep, 1 / torch.where(keep, values, torch.ones_like(values)), torch.zeros_like(values))
    solution = vectors @ (inverse[:, None] * (vectors.T @ (moments.cross / scale[:, None]))) / scale[:, None]
    return (solution[:-1].T, solution[-1]) if moments.bias else (solution.T, None)


def best_ridge(
    fit: MomentSums, held_out: MomentSums, ridges: Sequence[float] = RIDGES
) -> tuple[Tensor, Tensor | None, float, float]:
    """The closed-form solution whose ridge term does best on held-out samples.

    Args:
        fit: moments of the samples to fit.
        held_out: moments of the samples to choose the ridge term with.
        ridges: candidates.

    Returns:
        A `[l, F]`, b `[l]`, the chosen ridge term and its squared error on the held-out samples relative to their
        variation.

    Raises:
        ConfigError: where either set is empty.
    """
    if held_out.count == 0:
        raise ConfigError("no held-out samples to choose the ridge term with: take a larger fraction of the rays")
    best = None
    for ridge in ridges:
        weight, bias = ridge_solution(fit, ridge=ridge)
        error = held_out.squared_error(weight, bias)
        if best is None or error < best[3]:
            best = (weight, bias, ridge, error)
    assert best is not None
    return *best[:3], max(0.0, best[3]) / max(held_out.variation(), 1e-300)


def greedy_columns(moments: MomentSums, count: int, metric: Tensor | None = None) -> Tensor:
    """The leading `count` features of `greedy_path`, int64 `[count]`, best first."""
    return greedy_path(moments, count, metric)[0]


def greedy_path(moments: MomentSums, count: int, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Chooses features one by one, each the best addition to a least-squares fit of the targets.

    Orthogonal least squares on the moments: after each choice the Gram matrix and the cross moments are deflated, so
    the set of m features is the leading part of the set of m + 1.

    Args:
        moments: features against targets.
        count: how many, at most F.
        metric: `[t, l]`; errors are measured as `|metric (y - y_fit)|^2`, the identity where None.

    Returns:
        Indices, int64 `[count]`, best first; and by how much each lowers the squared error when it joins those before
        it, float64 `[count]`.

    Raises:
        ConfigError: a count of none, or of more features than there are.
    """
    size = moments.gram.shape[0] - int(moments.bias)
    if not 0 < count <= size:
        raise ConfigError(f"cannot choose {count} features of {size} rows: choose 1 to {size}")
    gram = moments.gram.clone()
    cross = moments.cross if metric is None else moments.cross @ metric.to(moments.cross).T
    cross = cross.clone()
    if moments.bias:
        gram, cross = _deflate(gram, cross, size)
    gains = []
    initial = gram.diagonal()[:size].clone()
    chosen: list[int] = []
    open_ = torch.ones(size, dtype=torch.bool)
    for _ in range(count):
        diagonal = gram.diagonal()[:size]
        alive = open_ & (diagonal > 1e-10 * initial) & (diagonal > 0)
        gain = torch.where(
            alive, cross[:size].square().sum(dim=1) / diagonal.clamp_min(1e-300), torch.full_like(diagonal, -1.0)
        )
        gain = torch.where(open_, gain, torch.full_like(gain, -2.0))
        best = int(gain.argmax())
        chosen.append(best)
        open_[best] = False
        gains.append(max(0.0, float(gain[best])))
        if gains[-1] > 0:
            gram, cross = _deflate(gram, cross, best)
    return torch.tensor(chosen), torch.tensor(gains, dtype=torch.float64)


def _deflate(gram: Tensor, cross: Tensor, index: int) -> tuple[Tensor, Tensor]:
    pivot = gram[index, index]
    if pivot <= 0:
        return gram, cross
    column = gram[:, index].clone()
    return gram - torch.outer(column, column) / pivot, cross - torch.outer(column, cross[index]) / pivot


def _join(weight: Tensor, bias: Tensor | None) -> Tensor:
    assert bias is not None, "moments with a constant feature need a bias"
    return torch.cat([weight, bias.double()[:, None]], dim=1)
