"""Optional parts of a bundled field: a deformation of space, and cells known to be empty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundle_schema import Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.encodings.encoding_kinds import build_encoding
from eugen_nerf.core.encodings.point_encodings import Encoding, FrequencyEncoding, take_box


class Deformation(nn.Module):
    """Offsets from points at a time to their places in the canonical scene.

    Args:
        position: encoding of points.
        time: encoding of times.
        network: from both to an offset.
        anchored: whether the offset is multiplied by the time.
    """

    def __init__(self, position: Encoding, time: Encoding, network: BundledGraph, anchored: bool) -> None:
        super().__init__()
        self.position, self.time, self.network, self.anchored = position, time, network, anchored

    def forward(self, points: Tensor, times: Tensor) -> Tensor:
        """Offsets `[..., 3]` of points `[..., 3]` at times `[..., 1]`."""
        none = torch.zeros_like(times)
        (offsets,) = self.network(torch.cat([self.position(points, none), self.time(times, none)], dim=-1))
        offsets = offsets.to(points)
        return offsets * times if self.anchored else offsets

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`."""
        parts = {"position": self.position.describe(), "time": self.time.describe()}
        return {**parts, "network": self.network.describe(), "anchored": self.anchored}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str) -> Deformation:
        """The deformation that `spec` describes; raises `BundleError` where it describes no such one."""
        kinds = (FrequencyEncoding.kind,)
        position = build_encoding(spec.part("position"), tensors, f"{prefix}position.", 3, kinds)
        time = build_encoding(spec.part("time"), tensors, f"{prefix}time.", 1, kinds)
        width = (position.out_features + time.out_features,)
        network = BundledGraph.build(spec.part("network"), tensors, f"{prefix}network.", width, (3,))
        deformation = cls(position, time, network, spec.flag("anchored"))
        spec.close()
        return deformation


class Occupancy(nn.Module):
    """Occupied cells of a box; everything else is empty.

    Args:
        cells: uint8 `[n, n, n]`, 0 where empty.
        aabb: the box's corners, `[2, 3]`.
    """

    cells: Tensor
    aabb: Tensor

    def __init__(self, cells: Tensor, aabb: Tensor) -> None:
        super().__init__()
        self.register_buffer("cells", cells)
        self.register_buffer("aabb", aabb)

    def forward(self, points: Tensor) -> Tensor:
        """Whether points `[..., 3]` lie in an occupied cell: bool `[..., 1]`."""
        n = self.cells.shape[0]
        unit = (points - self.aabb[0]) / (self.aabb[1] - self.aabb[0])
        inside = ((unit >= 0) & (unit < 1)).all(dim=-1)
        index = (unit.nan_to_num(0.0).clamp(0, 1) * n).long().clamp(0, n - 1)
        return (inside & (self.cells[index[..., 0], index[..., 1], index[..., 2]] > 0))[..., None]

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`."""
        return {"resolution": self.cells.shape[0]}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str) -> Occupancy:
        """The cells that `spec` describes; raises `BundleError` where it describes none."""
        n = spec.integer("resolution", 1, 4096)
        spec.close()
        return cls(tensors.take(f"{prefix}cells", (n, n, n), integer=True), take_box(tensors, f"{prefix}aabb"))
