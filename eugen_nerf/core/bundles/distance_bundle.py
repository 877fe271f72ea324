"""Signed distance of a scene as a bundle holds it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core.bundle_schema import Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.bundled_surface import BundledSurface
from eugen_nerf.core.cameras.camera_images import RenderedPixels
from eugen_nerf.core.encodings.encoding_kinds import build_encoding
from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.marching.ray_spans import RayBatch


class DistanceBundle(BundledField):
    """Signed distance.

    Args:
        position: encoding of points.
        network: from encoded points to the distance over `output_scale`.
        output_scale: metres for one unit of the network's output.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import BundledGraph, DistanceBundle, NeRFShape, OffAxisEncoding, build_nerf
        >>> encoding = OffAxisEncoding(torch.eye(3), centre=torch.zeros(3), factor=1.0)
        >>> network = build_nerf(NeRFShape(encoding.out_features, trunk_width=16, head_width=0, output="distance"))
        >>> field = DistanceBundle(encoding, BundledGraph(network.collapse(), network.input_widths), output_scale=0.1)
        >>> field(torch.rand(5, 3)).shape
        torch.Size([5, 1])
    """

    kind = "distance"
    renderers = (BundledSurface.kind,)

    def __init__(self, position: Encoding, network: BundledGraph, output_scale: float) -> None:
        super().__init__()
        self.position, self.network, self.output_scale = position, network, output_scale
        self.align()

    def forward(self, positions: Tensor) -> Tensor:
        """Signed distance `[..., 1]` in metres, negative inside, at positions `[..., 3]` in metres.

        Differentiable in the positions: the gradient is the surface normal.

        Raises:
            ConfigError: positions of another shape.
        """
        points = self._points(positions, "positions", 3)
        (raw,) = self.network(self.position(points, torch.zeros_like(points[..., :1])))
        return self.output_scale * raw.to(self.precision)

    def distance(self, points: Tensor) -> Tensor:
        """Signed distances `[n]`, float32 metres, at points `[n, 3]`."""
        distance: Tensor = self(points)[..., 0].float()
        return distance

    def distance_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`distance`, and its gradient `[n, 3]` in space; neither carries gradients itself."""
        with torch.inference_mode(False), torch.enable_grad():
            at = points.detach().clone().requires_grad_()
            distance = self.distance(at)
            (gradient,) = torch.autograd.grad(distance.sum(), at)
        return distance.detach(), gradient

    @torch.no_grad()
    def render_rays(self, rays: RayBatch) -> RenderedPixels:
        """See `BundledField`; the first surface, lit from the camera before black."""
        renderer = self.rendered_scene().renderer
        assert isinstance(renderer, BundledSurface)
        found = renderer.renderer(self.distance, self.distance_and_gradient, rays)
        return RenderedPixels(found.shade.expand(-1, 3), found.depth, found.hit, found.normals)

    def describe(self) -> dict[str, Any]:
        """See `BundledField`."""
        parts = {"kind": self.kind, "position": self.position.describe(), "network": self.network.describe()}
        return {**parts, "output_scale": self.output_scale}

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors) -> DistanceBundle:
        """The field that `spec` describes; raises `BundleError` where it describes none."""
        position = build_encoding(spec.part("position"), tensors, "position.", 3, ("off_axis", "frequency", "box"))
        network = BundledGraph.build(spec.part("network"), tensors, "network.", (position.out_features,), (1,))
        return cls(position, network, spec.number("output_scale", -1e6, 1e6))
