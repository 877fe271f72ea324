"""Fields that need torch alone: collapsed networks behind encodings, called with points instead of rays.

Encodings and results are float32 for networks of any dtype but float64, and float64 for those.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.bundles.bundled_scene import BundledScene
from eugen_nerf.core.cameras.camera_images import RenderedPixels, render_camera
from eugen_nerf.core.cameras.pinhole_camera import PinholeCamera
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch

RAYS_AT_ONCE = 4096
"""Rays that are rendered at a time: their samples fit a processor's cache better than more would."""


class BundledField(nn.Module, ABC):
    """A field that `save_bundle` writes and `load_bundle` reads.

    Attributes:
        scene: how it is rendered, and from where; None where the bundle holds the field alone.
    """

    kind: ClassVar[str]
    renderers: tuple[str, ...] = ()
    """Kinds of renderers that it can be rendered by."""
    network: BundledGraph

    def __init__(self) -> None:
        super().__init__()
        self.scene: BundledScene | None = None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Its numbers as JSON values; with the tensors, `build_field` makes the field again."""

    @abstractmethod
    def render_rays(self, rays: RayBatch) -> RenderedPixels:
        """Renders rays `[r]` with unit directions, and times where the scene moves; without gradients.

        Raises:
            ConfigError: the bundle cannot be rendered, or rays without times.
        """

    def render(self, camera: PinholeCamera, *, rays_at_once: int = RAYS_AT_ONCE) -> RenderedPixels:
        """The image of a camera, `[height, width, channels]`, on the field's device.

        Args:
            camera: one of `cameras`, or another in scene units.
            rays_at_once: which memory depends on.

        Raises:
            ConfigError: the bundle cannot be rendered, or a camera without a time where the scene moves.
        """
        scene = self.rendered_scene()
        device = next(self.buffers()).device
        return render_camera(self.render_rays, camera, scene.near, scene.far, device=device, rays_at_once=rays_at_once)

    @property
    def cameras(self) -> tuple[PinholeCamera, ...]:
        """Those of the test views; their names are in `scene.views`."""
        return () if self.scene is None else tuple(view.camera for view in self.scene.views)

    def rendered_scene(self) -> BundledScene:
        """The scene, where it can be rendered.

        Raises:
            ConfigError: it cannot, and why.
        """
        if self.scene is None:
            raise ConfigError(
                "this bundle holds a field without a renderer: it was written by an older version, or without the "
                "photographs of its training; write it again with them"
            )
        if self.scene.renderer is None:
            raise ConfigError(
                "this bundle has test views and no renderer: it was written where its field had none; write it again"
            )
        return self.scene

    def networks(self) -> dict[str, BundledGraph]:
        """Its networks by module name: `network`, `deformation.network`; those of a renderer's proposals are not."""
        named = self.named_modules()
        return {n: m for n, m in named if isinstance(m, BundledGraph) and not n.startswith("scene.")}

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of its features at which it was trained, from all of them (1) downwards; none where with all alone."""
        networks = (part for part in self.modules() if isinstance(part, BundledGraph))
        return next((network.shares for network in networks if network.shares), ())

    def at_share(self, share: float) -> BundledField:
        """The field with the first features of its layers alone, and no `shares`; as it is, it has all of them.

        Args:
            share: one of `shares`.

        Returns:
            A field of its own networks, which shares encodings, cells and renderer with this one.

        Raises:
            ConfigError: it was not trained at this share.
        """
        if share not in self.shares:
            known = f"at these: {', '.join(f'{s:g}' for s in self.shares)}" if self.shares else "with all of them alone"
            raise ConfigError(f"the bundle cannot be evaluated with {share:g} of its features: it was trained {known}")
        narrower = _at_share(self, share)
        assert isinstance(narrower, BundledField)
        if narrower.scene is not None:
            narrower.scene = narrower.scene.at_share(share)
        return narrower.eval()

    def multiply_adds(self) -> int:
        """Multiply-adds of all networks for one point."""
        return sum(n.graph.multiply_adds() for n in self.networks().values())

    def inference_parameters(self) -> int:
        """Numbers of networks and encodings, scene apart."""
        named = self.state_dict().items()
        return sum(tensor.numel() for name, tensor in named if not name.startswith(("scene.", "occupancy.")))

    @property
    def precision(self) -> torch.dtype:
        """Dtype of encodings and results: float64 for a float64 network, float32 for any other."""
        return torch.float64 if self.network.dtype == torch.float64 else torch.float32

    def cast(self, dtype: torch.dtype) -> BundledField:
        """A copy with networks of another dtype; encodings stay precise, unlike with `half()`."""
        field = copy.deepcopy(self)
        for network in field.networks().values():
            network.to(dtype)
        return field.align()

    def align(self) -> BundledField:
        """Casts tensors outside networks and scene to `precision`; returns the field."""
        kept = [*self.networks().values(), *([] if self.scene is None else [self.scene])]
        left = {id(m) for n in kept for m in n.modules()}
        for module in self.modules():
            if id(module) not in left:
                for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                    if tensor.is_floating_point() and tensor.dtype != self.precision:
                        cast = tensor.detach().to(self.precision)
                        same = nn.Parameter(cast, requires_grad=False) if isinstance(tensor, nn.Parameter) else cast
                        setattr(module, name, same)
        return self

    def _points(self, points: Tensor, name: str, width: int) -> Tensor:
        if not isinstance(points, Tensor) or points.dim() < 1 or points.shape[-1] != width:
            shape = list(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise ConfigError(f"{name} must be a tensor [..., {width}], got {shape}")
        return points.to(self.precision)

    def _beside(self, values: Tensor | None, positions: Tensor, name: str, width: int, call: str) -> Tensor:
        """`values` expanded to the positions' leading shape."""
        if values is None:
            raise ConfigError(f"this bundle's field needs {name}: call {call}")
        values = self._points(values, name, width)
        try:
            return values.expand(*positions.shape[:-1], width)
        except RuntimeError as error:
            raise ConfigError(
                f"{name} {list(values.shape)} do not fit positions {list(positions.shape)}: their leading shapes differ"
            ) from error


def _at_share(module: nn.Module, share: float) -> nn.Module:
    """A copy whose networks have a share of their features; what holds no network is the module's own."""
    if isinstance(module, BundledGraph):
        return module.at_share(share)
    if not any(isinstance(part, BundledGraph) for part in module.modules()):
        return module
    copied = copy.copy(module)
    parts = module._modules.items()
    copied._modules = {name: None if part is None else _at_share(part, share) for name, part in parts}
    return copied
