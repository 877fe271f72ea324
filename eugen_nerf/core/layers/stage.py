"""The one building block every layer kind is made of, and the algebra that merges two of them.

Alphabet: `x` input of width d, `u` pre-activations, `phi` features of width F, `(A, b)` an affine map from features to
an output of width l. A layer is a *stage* (projection, Hadamard products, element-wise Phi: Eq. 1) followed by an
affine map. The next stage projects that map's output again, so both projections are one matrix: that is the collapse
of App. B.1 (Eq. 29), and for the norm the thin QR factor of `[A | b]` stands in for the output of width l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.cpu_products import trained_linear
from eugen_nerf.core.layers.products import features_in_place, hadamard_products


# by identity (`eq=False`), here and for all that holds tensors: torch.compile hashes what it calls
@dataclass(frozen=True, eq=False)
class Affine:
    """`y = A phi + b`, or the identity where `weight` is None."""

    weight: Tensor | None = None  # [l, F]
    bias: Tensor | None = None  # [l]

    def __call__(self, features: Tensor) -> Tensor:
        """Maps features `[..., F]` to `[..., l]`."""
        return features if self.weight is None else trained_linear(features, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Stage:
    """Features `Phi(prod_j (G_ij x + b_ij + |x| n_ij))` for i = 1..degree, concatenated over i (Eq. 1).

    The rows of all `G_ij` are stacked: one block of m rows a projection; `degree` blocks when the projections are
    shared over i, `degree (degree + 1) / 2` when they are not (block order: i, then j).
    """

    weight: Tensor  # [blocks * m, d]; [m, ceil(d / groups)] where there are groups
    bias: Tensor | None  # [blocks * m]
    norm: Tensor | None  # [blocks * m], the column that multiplies the input's norm
    degree: int
    shared: bool
    phi: str
    groups: int = 1
    """Diagonal blocks of the projection: group g's rows (g m / groups and on) see the g-th part of the input alone,
    which is padded with zeros to equal parts. Outputs take turns over the groups, so that the next such stage mixes
    them. Groups go with degree 1, without the norm, and are never merged with what comes before."""
    product: str = "plain"
    """How the two factors of degree 2 are joined (`core/layers/products.py`)."""

    @property
    def num_features(self) -> int:
        """Number of features F = degree * m."""
        blocks = self.degree if self.shared else self.degree * (self.degree + 1) // 2
        return self.weight.shape[0] // blocks * self.degree

    @property
    def linear(self) -> bool:
        """Whether the features are the projection itself."""
        return self.phi == "identity" and self.degree == 1 and self.norm is None and self.groups == 1

    def merge(self, maps: Sequence[Affine], widths: Sequence[int]) -> MergedStage:
        """This stage as a function of its producers' features: their affine maps are multiplied in.

        Args:
            maps: for each input segment, in order, the map that gives it from its producer's features.
            widths: width of each segment; they sum to d.
        """
        if self.groups > 1:
            assert all(m.weight is None for m in maps), "diagonal blocks are not merged"
            return MergedStage(self.weight, self.bias, None, 1, True, self.phi, groups=self.groups)
        blocks, bias = [], self.bias
        for part, m in zip(self.weight.split(list(widths), dim=1), maps, strict=True):
            blocks.append(part if m.weight is None else part @ m.weight)
            if m.bias is not None:
                shift = part @ m.bias
                bias = shift if bias is None else bias + shift
        weight = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
        factors = tuple(None if m.weight is None else _norm_factor(m) for m in maps) if self.norm is not None else ()
        return MergedStage(
            weight, bias, self.norm, self.degree, self.shared, self.phi, product=self.product, factors=factors
        )


@dataclass(frozen=True, eq=False)
class MergedStage(Stage):
    """A stage that reads its producers' features directly.

    `factors` holds, for each input segment, the pair `(R, r)` with `|A phi + b| = |R phi + r|`, or None where the
    segment's features are the input itself.
    """

    factors: tuple[tuple[Tensor, Tensor] | None, ...] = ()

    def __call__(self, segments: Sequence[Tensor]) -> Tensor:
        """Features of concatenated segments.

        Args:
            segments: `[..., F_s]` each.

        Returns:
            `[..., degree * m]`.
        """
        joined = segments[0] if len(segments) == 1 else torch.cat(list(segments), dim=-1)
        u = self.project(joined)
        if self.norm is not None:
            u = u + self.input_norm(segments) * self.norm
        if torch.is_grad_enabled():
            return activation(self.phi)(hadamard_products(u, self.degree, self.shared, self.product))
        return features_in_place(u, self.degree, self.shared, self.phi, self.product)

    def project(self, joined: Tensor) -> Tensor:
        """Stacked pre-activations `[..., blocks * m]` of joined segments, without the norm's part."""
        if self.groups > 1:
            return _grouped_linear(joined, self.weight, self.bias, self.groups)
        return trained_linear(joined, self.weight, self.bias)

    def multiply_adds(self) -> int:
        """Multiply-adds of the matrix products for one input (element-wise work is not counted)."""
        return self.weight.numel() + sum(f[0].numel() for f in self.factors if f is not None)

    def ungrouped(self, width: int) -> MergedStage:
        """The same function of inputs `[..., width]` with one dense matrix, zeros written out."""
        if self.groups == 1:
            return self
        rows, columns = self.weight.shape
        parts = torch.block_diag(*self.weight.view(self.groups, -1, columns))
        order = torch.arange(rows, device=self.weight.device).view(self.groups, -1).T.reshape(-1)
        return replace(self, weight=parts[order, :width], groups=1)

    def input_norm(self, segments: Sequence[Tensor]) -> Tensor:
        """The norm `[..., 1]` of the input that segments `[..., F_s]` stand for, by the factors."""
        squares = [
            _at_least_float32(s if f is None else F.linear(s, *f)).square().sum(dim=-1, keepdim=True)
            for s, f in zip(segments, self.factors, strict=True)
        ]
        norm = safe_sqrt(torch.stack(squares).sum(dim=0) if len(squares) > 1 else squares[0])
        return norm.to(self.norm.dtype) if self.norm is not None else norm


def _at_least_float32(x: Tensor) -> Tensor:
    """float32 or more: squares of float16 overflow from 256 on."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """`[..., m]`, outputs in turns over the groups, for inputs `[..., d]` and rows `[m, ceil(d / groups)]`."""
    parts = weight.view(groups, -1, weight.shape[1])
    x = F.pad(x, (0, groups * weight.shape[1] - x.shape[-1]))
    flat = x.reshape(-1, groups, weight.shape[1]).transpose(0, 1)
    u = torch.bmm(flat, parts.transpose(1, 2)).permute(1, 2, 0).reshape(*x.shape[:-1], weight.shape[0])
    return u if bias is None else u + bias


def safe_sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 (the convention for `|x|` at the origin)."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), 0.0)


def _norm_factor(m: Affine) -> tuple[Tensor, Tensor]:
    """`(R, r)` with `|A phi + b| = |R phi + r|`, from the thin QR of `[A | b]`; R has min(l, F + 1) rows."""
    assert m.weight is not None
    bias = m.weight.new_zeros(m.weight.shape[0]) if m.bias is None else m.bias
    joined = torch.cat([m.weight, bias[:, None]], dim=1)
    exact = joined.double() if joined.dtype in (torch.float16, torch.bfloat16) else joined
    r = torch.linalg.qr(exact, mode="r").R.to(joined.dtype)
    return r[:, :-1], r[:, -1]
