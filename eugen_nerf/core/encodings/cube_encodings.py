"""What nerfstudio's `nerfacto` encodes: positions by hash grids over a cube, directions by spherical harmonics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core.bundle_schema import Spec, StoredTensors
from eugen_nerf.core.encodings.hash_grid import HashGrid
from eugen_nerf.core.encodings.point_encodings import Encoding, take_box
from eugen_nerf.core.encodings.stored_grids import build_grid, describe_grid
from eugen_nerf.core.rendering.contraction import contract_cube
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

VERTEX_SHIFT = 0.0
"""Of the grids: see `HashGrid`."""
MAX_LEVELS = 4
"""Of spherical harmonics."""


class CubeEncoding(Encoding):
    """Interpolated grid features over a box, or over all of space contracted into a cube.

    Args:
        grid: whose point 0 lies on a vertex.
        aabb: the box's corners, `[2, 3]`; None for contracted space, whose cube is `[-2, 2]^3`.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import HashGrid
        >>> from eugen_nerf.core.encodings.cube_encodings import CubeEncoding
        >>> encoding = CubeEncoding(HashGrid((5, 9), features=2, log2_table_size=8, shift=0.0), None)
        >>> points = torch.tensor([[0.0, 0.0, 0.0], [100.0, 3.0, 0.0]])
        >>> encoding.unit(points)[1].tolist(), encoding(points, torch.zeros(2, 1)).shape
        ([0.9975000023841858, 0.514924943447113, 0.5], torch.Size([2, 4]))
    """

    kind = "cube"
    takes_frustums = True
    aabb: Tensor | None

    def __init__(self, grid: HashGrid, aabb: Tensor | None) -> None:
        super().__init__()
        self.grid = grid
        self.out_features = len(grid.resolutions) * grid.features
        self.register_buffer("aabb", aabb)

    def forward(self, points: Tensor, scale: Tensor | None) -> Tensor:
        """Features `[..., out_features]` of points `[..., 3]`; the scale is not used."""
        unit = self.unit(points)
        # nerfstudio moves points outside to the corner; their density is zero
        unit = torch.where(self.is_inside(unit), unit, 0.0).reshape(-1, 1, 3)
        features = self.grid.pool(unit, torch.ones_like(unit[None, ..., 0]))
        return features.reshape(*points.shape[:-1], self.out_features)

    def of_frustums(self, frustums: ConeFrustums, *, thinned: bool = False) -> Tensor:
        """Features `[r, n, out_features]` of the middles of frustums; `thinned` changes nothing."""
        return self(frustums.middles, None)

    def unit(self, points: Tensor) -> Tensor:
        """Points `[..., 3]`, the cube being [0, 1]^3."""
        if self.aabb is None:
            return (contract_cube(points) + 2) / 4
        return (points - self.aabb[0]) / (self.aabb[1] - self.aabb[0])

    @staticmethod
    def is_inside(unit: Tensor) -> Tensor:
        """Whether points `[..., 3]` of the unit cube lie inside it, where there is density: bool `[..., 1]`."""
        return ((unit > 0) & (unit < 1)).all(dim=-1, keepdim=True)

    def describe(self) -> dict[str, Any]:
        """Whether space is contracted, and the grid's sizes."""
        return {"kind": self.kind, "contracted": self.aabb is None, **describe_grid(self.grid)}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> CubeEncoding:
        """See `Encoding`."""
        aabb = None if spec.flag("contracted") else take_box(tensors, f"{prefix}aabb")
        return cls(build_grid(spec, tensors, f"{prefix}grid.", VERTEX_SHIFT), aabb)


class SphericalEncoding(Encoding):
    """Real spherical harmonics of directions that were moved from [-1, 1] to [0, 1], as `nerfacto` in PyTorch has them.

    Args:
        levels: 1 to `MAX_LEVELS`; level l has 2 l - 1 functions.
    """

    kind = "spherical"

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.out_features = levels**2

    def forward(self, points: Tensor, scale: Tensor | None) -> Tensor:
        """Features `[..., levels^2]` of unit vectors `[..., 3]`; the scale is not used."""
        x, y, z = ((points + 1) / 2).unbind(dim=-1)
        xx, yy, zz = x * x, y * y, z * z
        values = [torch.full_like(x, 0.28209479177387814)]
        values += [0.4886025119029199 * v for v in (y, z, x)]
        values += [1.0925484305920792 * v for v in (x * y, y * z)]
        values += [0.9461746957575601 * zz - 0.31539156525251999]
        values += [1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy)]
        values += [0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z]
        values += [0.4570457994644658 * y * (5 * zz - 1), 0.3731763325901154 * z * (5 * zz - 3)]
        values += [0.4570457994644658 * x * (5 * zz - 1), 1.445305721320277 * z * (xx - yy)]
        values += [0.5900435899266435 * x * (xx - 3 * yy)]
        return torch.stack(values[: self.out_features], dim=-1)

    def describe(self) -> dict[str, Any]:
        """Number of levels."""
        return {"kind": self.kind, "levels": self.levels}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str, width: int) -> SphericalEncoding:
        """See `Encoding`; it has no tensors."""
        return cls(spec.integer("levels", 1, MAX_LEVELS))
