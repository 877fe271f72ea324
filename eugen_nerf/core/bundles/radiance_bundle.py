"""Density and colour of a scene as a bundle holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eugen_nerf.core.bundle_schema import Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.bundled_parts import Deformation, Occupancy
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.cameras.camera_images import RenderedPixels
from eugen_nerf.core.encodings.cube_encodings import CubeEncoding, SphericalEncoding
from eugen_nerf.core.encodings.encoding_kinds import build_encoding
from eugen_nerf.core.encodings.point_encodings import (
    BoxEncoding,
    ContractedEncoding,
    Encoding,
    FrequencyEncoding,
    PyramidEncoding,
)
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

DENSITIES: dict[str, Callable[[Tensor], Tensor]] = {"softplus": F.softplus, "exp": torch.exp, "relu": F.relu}
"""Activations that make a density of a network's raw output, by name."""


class RadianceBundle(BundledField):
    """Density and colour of a static scene, or of one that moves behind a deformation.

    Args:
        position: encoding of points; outside the box or cube of one by grids the density is zero.
        network: from encoded points and directions to raw density and colour, or to raw density alone.
        direction: encoding of view directions; None for density alone.
        density: name of the density's activation, one of `DENSITIES`.
        density_bias: added to the raw density.
        colour_padding: p; colours are `(1 + 2 p) sigmoid(raw) - p`, kept in [0, 1].
        deformation: for a scene that moves.
        occupancy: for a field that is defined in some cells only.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import BundledGraph, FrequencyEncoding, NeRFShape, RadianceBundle, build_nerf
        >>> position, direction = FrequencyEncoding(3, 4, 0.0, 3.0), FrequencyEncoding(3, 2, 0.0, 1.0)
        >>> network = build_nerf(NeRFShape(27, 15, trunk_width=16, head_width=8))
        >>> bundled = BundledGraph(network.collapse(), network.input_widths)
        >>> field = RadianceBundle(position, bundled, direction, density="softplus")
        >>> density, colour = field(torch.rand(5, 3), torch.nn.functional.normalize(torch.rand(5, 3), dim=-1))
        >>> density.shape, colour.shape
        (torch.Size([5, 1]), torch.Size([5, 3]))
    """

    kind = "radiance"
    MAX_SETTING = 1e4

    def __init__(
        self,
        position: Encoding,
        network: BundledGraph,
        direction: Encoding | None,
        *,
        density: str = "softplus",
        density_bias: float = 0.0,
        colour_padding: float = 0.0,
        deformation: Deformation | None = None,
        occupancy: Occupancy | None = None,
    ) -> None:
        super().__init__()
        self.position, self.direction, self.network = position, direction, network
        self.density, self.density_bias, self.colour_padding = density, density_bias, colour_padding
        self.deformation, self.occupancy = deformation, occupancy
        if direction is not None:
            self.renderers = (BundledProposals.kind if position.takes_frustums else BundledGrid.kind,)
        self.align()

    @property
    def call(self) -> str:
        """How to call it, for errors."""
        parts = (("positions", True), ("directions", self.direction), ("times", self.deformation))
        return f"bundle({', '.join(name for name, needed in parts if needed is not None)})"

    def forward(
        self,
        positions: Tensor,
        directions: Tensor | None = None,
        times: Tensor | None = None,
        *,
        scale: float | Tensor = 0.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Density and colour at points.

        Args:
            positions: `[..., 3]`, scene units (those of the training run: after nerfstudio's scaling and centring).
            directions: unit vectors from the camera, `[..., 3]`, or a shape that expands to it.
            times: `[..., 1]` in [0, 1], for a scene that moves.
            scale: standard deviation of an isotropic Gaussian round each point, scene units, at least 0: one number
                or `[..., 1]`. Only encodings of Gaussians (Mip-NeRF 360's and Zip-NeRF's) use it.

        Returns:
            Density `[..., 1]`, 1 / scene unit, and colour `[..., 3]` in [0, 1] (None where the field has none).

        Raises:
            ConfigError: something is missing, too much, or of a shape that does not fit.
        """
        points = self._points(positions, "positions", 3)
        scales = torch.as_tensor(scale, dtype=points.dtype, device=points.device)
        scales = self._beside(scales.reshape(1) if scales.dim() == 0 else scales, points, "scale", 1, self.call)
        if self.deformation is not None:
            points = points + self.deformation(points, self._beside(times, points, "times", 1, self.call))
        elif times is not None:
            raise ConfigError(f"this bundle's scene stands still and takes no times: call {self.call}")
        inputs = [self.position(points, scales)]
        if self.direction is not None:
            towards = self._beside(directions, points, "directions", 3, self.call)
            inputs.append(self.direction(towards, scales))
        density, colour = self._activated(inputs)
        if isinstance(self.position, BoxEncoding):
            unit = self.position.unit(points)
            density = density * ((unit >= 0) & (unit <= 1)).all(dim=-1, keepdim=True)
        elif isinstance(self.position, CubeEncoding):
            density = density * self.position.is_inside(self.position.unit(points))
        if self.occupancy is not None:
            density = density * self.occupancy(points)
        return density, None if colour is None else colour.clamp(0, 1)

    def _activated(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Density and colour, padded, of encoded inputs."""
        raw, *colours = (v.to(self.precision) for v in self.network(*inputs))
        density = DENSITIES[self.density](raw + self.density_bias)
        padding = self.colour_padding
        return density, torch.sigmoid(colours[0]) * (1 + 2 * padding) - padding if colours else None

    @torch.no_grad()
    def render_rays(self, rays: RayBatch) -> RenderedPixels:
        """See `BundledField`."""
        scene = self.rendered_scene()
        if isinstance(scene.renderer, BundledProposals):
            result = scene.renderer(self._coloured, rays)
        else:
            assert isinstance(scene.renderer, BundledGrid)
            result = scene.renderer.renderer(self.evaluate_spans, rays)
        background = result.last_colour if scene.background is None else result.colour.new_tensor(scene.background)
        colour = result.colour + (1 - result.accumulation) * background
        return RenderedPixels(colour.clamp(0, 1), result.depth, result.accumulation)

    def evaluate_spans(self, rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        """Density `[n, 1]` and colour `[n, 3]`, float32, at the middles of spans `[n]` of rays."""
        directions = spans.of_rays(rays.directions)
        points = torch.addcmul(spans.of_rays(rays.origins), directions, spans.middle[:, None])
        times = None if self.deformation is None or rays.times is None else spans.of_rays(rays.times)[:, None]
        density, colour = self(points, directions, times)
        return density.float(), colour.float()

    def evaluate(self, frustums: ConeFrustums, *, thinned: bool = False) -> tuple[Tensor, Tensor | None]:
        """Density `[r, n]` and, where there is one, colour `[r, n, 3]`, float32, in conical frustums `[r, n]`.

        Args:
            frustums: round rays.
            thinned: whether fewer points may stand for each.
        """
        assert isinstance(self.position, ContractedEncoding | PyramidEncoding | CubeEncoding)
        frustums = frustums.to(self.precision)
        inputs = [self.position.of_frustums(frustums, thinned=thinned)]
        if self.direction is not None:
            towards = self.direction(frustums.directions, torch.zeros_like(frustums.radius)[..., None])
            inputs.append(towards.expand(*frustums.shape, -1))
        density, colour = self._activated(inputs)
        if isinstance(self.position, CubeEncoding):
            density = density * self.position.is_inside(self.position.unit(frustums.middles))
        return density[..., 0].float(), None if colour is None else colour.float()

    def _coloured(self, frustums: ConeFrustums) -> tuple[Tensor, Tensor]:
        density, colour = self.evaluate(frustums)
        assert colour is not None
        return density, colour

    def describe(self) -> dict[str, Any]:
        """See `BundledField`."""
        return {
            "kind": self.kind,
            "position": self.position.describe(),
            "direction": None if self.direction is None else self.direction.describe(),
            "network": self.network.describe(),
            "density": self.density,
            "density_bias": self.density_bias,
            "colour_padding": self.colour_padding,
            "deformation": None if self.deformation is None else self.deformation.describe(),
            "occupancy": None if self.occupancy is None else self.occupancy.describe(),
        }

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, prefix: str = "") -> RadianceBundle:
        """The field that `spec` describes; raises `BundleError` where it describes none."""
        kinds = ("frequency", "contracted", "pyramid", "box", CubeEncoding.kind)
        position = build_encoding(spec.part("position"), tensors, f"{prefix}position.", 3, kinds)
        towards, direction = spec.optional_part("direction"), None
        if towards is not None:
            directions = (FrequencyEncoding.kind, SphericalEncoding.kind)
            direction = build_encoding(towards, tensors, f"{prefix}direction.", 3, directions)
        widths = (position.out_features, *(() if direction is None else (direction.out_features,)))
        outputs = (1,) if direction is None else (1, 3)
        network = BundledGraph.build(spec.part("network"), tensors, f"{prefix}network.", widths, outputs)
        moving, cells = spec.optional_part("deformation"), spec.optional_part("occupancy")
        return cls(
            position,
            network,
            direction,
            density=spec.text("density", DENSITIES),
            density_bias=spec.number("density_bias", -cls.MAX_SETTING, cls.MAX_SETTING),
            colour_padding=spec.number("colour_padding", 0.0, 1.0),
            deformation=None if moving is None else Deformation.build(moving, tensors, f"{prefix}deformation."),
            occupancy=None if cells is None else Occupancy.build(cells, tensors, f"{prefix}occupancy."),
        )
