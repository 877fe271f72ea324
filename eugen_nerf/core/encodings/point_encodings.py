"""Encodings of points in plain PyTorch, which a bundle describes by numbers and tensors alone.

Each kind computes the same features as its twin among the fields of the methods. `scale` is the standard deviation of
an isotropic Gaussian round the point, for the kinds that integrate over one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.encodings.frustum_points import alternating_hexagons, contracted_gaussians, frustum_multisamples
from eugen_nerf.core.encodings.hash_grid import PRECONDITION, HashGrid
from eugen_nerf.core.encodings.integrated import IntegratedEncoding
from eugen_nerf.core.encodings.stored_grids import build_grid, describe_grid
from eugen_nerf.core.rendering.contraction import contract, contract_gaussian, contraction_scale
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

MAX_SETTING = 1e6
"""Largest absolute value of a setting."""
MIN_STANDARD_DEVIATION = 1e-9
"""Replaces a standard deviation of 0, as in Zip-NeRF's own encoder."""


class Encoding(nn.Module, ABC):
    """Features of points."""

    kind: ClassVar[str]
    takes_scale: ClassVar[bool] = False
    """Whether features depend on it."""
    takes_frustums: ClassVar[bool] = False
    """Whether there is `of_frustums`."""
    out_features: int

    @abstractmethod
    def forward(self, points: Tensor, scale: Tensor) -> Tensor:
        """Features `[..., out_features]` of points `[..., d]` with scales `[..., 1]` in the same unit."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The numbers that `build` needs besides the tensors, as JSON values."""

    @classmethod
    @abstractmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> Encoding:
        """The encoding that `describe` wrote.

        Args:
            spec: the numbers.
            tensors: of the bundle.
            prefix: of the names of its tensors.
            width: coordinates of a point.

        Raises:
            BundleError: numbers or tensors that describe no such encoding.
        """


class FrequencyEncoding(Encoding):
    """Sines, cosines (as shifted sines) and the input itself, in the order of nerfstudio's `NeRFEncoding`.

    Args:
        width: coordinates d.
        count: frequencies a coordinate, at exponents of 2 spaced evenly from `lowest` to `highest`.
        lowest: exponent of the lowest frequency, in turns a unit.
        highest: exponent of the highest.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import FrequencyEncoding
        >>> encoding = FrequencyEncoding(3, 10, 0.0, 9.0)
        >>> encoding(torch.rand(5, 3), torch.zeros(5, 1)).shape, encoding.out_features
        (torch.Size([5, 63]), 63)
    """

    kind = "frequency"

    def __init__(self, width: int, count: int, lowest: float, highest: float) -> None:
        super().__init__()
        self.width, self.count, self.lowest, self.highest = width, count, lowest, highest
        self.out_features = width * (1 + 2 * count)

    def forward(self, points: Tensor, scale: Tensor) -> Tensor:
        """Features `[..., d + 2 d count]`; the scale is not used."""
        frequencies = 2 ** torch.linspace(
            self.lowest, self.highest, self.count, device=points.device, dtype=points.dtype
        )
        phases = ((2 * torch.pi * points)[..., None] * frequencies).flatten(-2)
        return torch.cat([torch.cat([phases, phases + torch.pi / 2.0], dim=-1).sin(), points], dim=-1)

    def describe(self) -> dict[str, Any]:
        """Number of frequencies and the range of exponents."""
        return {"kind": self.kind, "count": self.count, "lowest": self.lowest, "highest": self.highest}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> FrequencyEncoding:
        """See `Encoding`; it has no tensors."""
        count = spec.integer("count", 1, 64)
        return cls(width, count, spec.number("lowest", -64, 64), spec.number("highest", -64, 64))


class OffAxisEncoding(Encoding):
    """Scaled positions, and sines and cosines of their projections (iSDF, arXiv 2204.02296).

    Args:
        phases: directions times octaves, `[3, n]`.
        centre: subtracted first, `[3]`, metres.
        factor: multiplies the positions after that.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import OffAxisEncoding
        >>> phases = torch.cat([torch.eye(3), 2 * torch.eye(3)], dim=1)  # three axes, two octaves
        >>> encoding = OffAxisEncoding(phases, centre=torch.zeros(3), factor=1.0)
        >>> encoding(torch.rand(5, 3), torch.zeros(5, 1)).shape
        torch.Size([5, 15])
    """

    kind = "off_axis"
    phases: Tensor
    centre: Tensor

    def __init__(self, phases: Tensor, centre: Tensor, factor: float) -> None:
        super().__init__()
        self.register_buffer("phases", phases)
        self.register_buffer("centre", centre)
        self.factor = factor
        self.out_features = 3 + 2 * phases.shape[1]

    def forward(self, points: Tensor, scale: Tensor) -> Tensor:
        """Features `[..., 3 + 2 n]` of points `[..., 3]`; the scale is not used."""
        x = (points - self.centre) * self.factor
        phase = x @ self.phases
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)

    def describe(self) -> dict[str, Any]:
        """The factor."""
        return {"kind": self.kind, "factor": self.factor}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> OffAxisEncoding:
        """See `Encoding`."""
        phases = tensors.take(f"{prefix}phases", (width, None))
        return cls(phases, tensors.take(f"{prefix}centre", (width,)), spec.number("factor", -MAX_SETTING, MAX_SETTING))


class ContractedEncoding(Encoding):
    """Mip-NeRF 360's encoding: a Gaussian contracted into the ball of radius 2, its expected sines and cosines.

    Args:
        directions: `[n, 3]`, unit vectors.
        count: L frequencies, from 2^0.
    """

    kind = "contracted"
    takes_scale = takes_frustums = True
    directions: Tensor

    def __init__(self, directions: Tensor, count: int) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.integrated, self.count = IntegratedEncoding(directions.clone(), count).to(directions), count
        self.out_features = self.integrated.out_features

    def forward(self, points: Tensor, scale: Tensor) -> Tensor:
        """Features `[..., 2 L n]` of Gaussians with means `[..., 3]` and standard deviations `[..., 1]`."""
        eye = torch.eye(3, dtype=points.dtype, device=points.device)
        return self.integrated(*contract_gaussian(points, scale.square()[..., None] * eye))

    def of_frustums(self, frustums: ConeFrustums, *, thinned: bool = False) -> Tensor:
        """Features `[r, n, 2 L n]` of the Gaussians of conical frustums; `thinned` changes nothing."""
        return self.integrated(*contracted_gaussians(frustums))

    def describe(self) -> dict[str, Any]:
        """Number of frequencies."""
        return {"kind": self.kind, "count": self.count}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> ContractedEncoding:
        """See `Encoding`."""
        return cls(tensors.take(f"{prefix}directions", (None, width)), spec.integer("count", 1, 64))


class PyramidEncoding(Encoding):
    """Zip-NeRF's encoding: grid features of a Gaussian in the contracted ball of radius 2, each weighted by its width.

    Args:
        grid: the pyramid over `[-2, 2]^3`.
    """

    kind = "pyramid"
    takes_scale = takes_frustums = True

    def __init__(self, grid: HashGrid) -> None:
        super().__init__()
        self.grid = grid
        self.out_features = grid.out_features

    def forward(self, points: Tensor, scale: Tensor) -> Tensor:
        """Features `[..., grid.out_features]` of Gaussians `[..., 3]` with standard deviations `[..., 1]`."""
        widths = (scale * contraction_scale(points)).clamp_min(MIN_STANDARD_DEVIATION)
        # one Gaussian where a frustum has six; a row number made of NaN would lie outside the table
        middles = ((contract(points) + 2) / 4).nan_to_num(0.5)
        features = self.grid(middles.reshape(-1, 1, 3), (widths / 4).nan_to_num(1.0).reshape(-1, 1))
        return features.reshape(*points.shape[:-1], self.out_features)

    def of_frustums(self, frustums: ConeFrustums, *, thinned: bool = False) -> Tensor:
        """Features `[r, n, grid.out_features]` of conical frustums, by six points each or, thinned, two."""
        points, widths = frustum_multisamples(frustums, *alternating_hexagons(frustums.starts), thinned=thinned)
        features = self.grid(((points + 2) / 4).flatten(0, -3), (widths / 4).flatten(0, -2))
        return features.reshape(*frustums.shape, self.out_features)

    def describe(self) -> dict[str, Any]:
        """The grid's sizes."""
        return {"kind": self.kind, **describe_grid(self.grid)}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> PyramidEncoding:
        """See `Encoding`."""
        return cls(build_grid(spec, tensors, f"{prefix}grid."))


class BoxEncoding(Encoding):
    """Interpolated grid features over a box; points outside get those of its border.

    Args:
        grid: the pyramid over the box.
        aabb: the box's corners, `[2, 3]`.
    """

    kind = "box"
    aabb: Tensor

    def __init__(self, grid: HashGrid, aabb: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.out_features = len(grid.resolutions) * grid.features
        self.register_buffer("aabb", aabb)

    def forward(self, points: Tensor, scale: Tensor) -> Tensor:
        """Features `[..., out_features]` of points `[..., 3]`; the scale is not used."""
        unit = self.unit(points).nan_to_num(0.5).reshape(-1, 1, 3)  # see `PyramidEncoding`
        features = self.grid.pool(unit, torch.ones_like(unit[None, ..., 0])) * PRECONDITION
        return features.reshape(*points.shape[:-1], self.out_features)

    def unit(self, points: Tensor) -> Tensor:
        """Points `[..., 3]`, the box being [0, 1]^3."""
        return (points - self.aabb[0]) / (self.aabb[1] - self.aabb[0])

    def describe(self) -> dict[str, Any]:
        """The grid's sizes."""
        return {"kind": self.kind, **describe_grid(self.grid)}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> BoxEncoding:
        """See `Encoding`."""
        return cls(build_grid(spec, tensors, f"{prefix}grid."), take_box(tensors, f"{prefix}aabb"))


def take_box(tensors: StoredTensors, name: str) -> Tensor:
    """Corners of a box, `[2, 3]`.

    Raises:
        BundleError: no tensor of that name and shape, or a box without volume.
    """
    box = tensors.take(name, (2, 3))
    if not bool((box[0] < box[1]).all()):
        raise BundleError(f"the box {name!r} is empty: each of its lower corner's numbers must be below; {ADVICE}")
    return box
