"""What a bundle holds besides its field, so that it renders: renderer, background, planes, box and test views."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from eugen_nerf.core.bundle_schema import ADVICE, BundleError, Spec, StoredTensors
from eugen_nerf.core.bundles.bundled_grid import BundledGrid
from eugen_nerf.core.bundles.bundled_network import MAX_SHARES
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.bundles.bundled_surface import BundledSurface
from eugen_nerf.core.bundles.bundled_views import MAX_VIEWS, BundledView

SceneRenderer = BundledGrid | BundledProposals | BundledSurface
BuildRenderer = Callable[[Spec, StoredTensors, str], SceneRenderer]
"""Reads a renderer from its description and tensors, whose names have a prefix."""
MAX_DISTANCE = 1e9
"""Farthest plane, largest coordinate of the box and of the transform, and largest scale."""
MAX_DECIBEL = 1e3


@dataclass(frozen=True)
class MeasuredQuality:
    """What the renderer loses, measured on rays of training photographs."""

    exact_psnr: float
    """PSNR of the image that the method's own samplers render, dB."""
    psnr: float
    """That of this bundle's renderer, dB."""

    @property
    def lost(self) -> float:
        """dB below the exact image; negative where it is above."""
        return self.exact_psnr - self.psnr

    def __str__(self) -> str:
        """One line to print."""
        change = f"loses {self.lost:.2f} dB" if self.lost >= 0.005 else "loses nothing"
        return f"{change} on training photographs ({self.psnr:.2f} dB)"


@dataclass(frozen=True)
class SceneCoordinates:
    """From the data set's coordinates to the field's: `scale * (rotation p + translation)`."""

    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    """Rotation and translation, `[3, 4]` row after row."""
    scale: float = 1.0


class BundledScene(nn.Module):
    """How a bundle's field is rendered, and from where.

    Args:
        renderer: of densities or of signed distances; None where there is none for the field's kind yet.
        near: distance at which rays begin, scene units.
        far: distance at which they end.
        box: lower and upper corner of the scene, 6 numbers.
        background: colour in [0, 1] behind the scene; None for the colour of a ray's last sample.
        views: test views.
        coordinates: those of the data set.
        times: first and last time that was trained; None for a scene that stands still.
        quality: what the renderer was measured to lose; None where there is no photograph to compare with.
        share_quality: the same with fewer of the field's features, by their share; none where nothing was measured.
    """

    def __init__(
        self,
        renderer: SceneRenderer | None,
        *,
        near: float,
        far: float,
        box: tuple[float, ...],
        background: tuple[float, ...] | None,
        views: Sequence[BundledView] = (),
        coordinates: SceneCoordinates | None = None,
        times: tuple[float, ...] | None = None,
        quality: MeasuredQuality | None = None,
        share_quality: Mapping[float, MeasuredQuality] | None = None,
    ) -> None:
        super().__init__()
        self.renderer, self.near, self.far, self.box, self.background = renderer, near, far, box, background
        self.views = tuple(views)
        self.coordinates = coordinates or SceneCoordinates()
        self.times, self.quality, self.share_quality = times, quality, dict(share_quality or {})

    def at_share(self, share: float) -> BundledScene:
        """The scene of a field with a share of its features: what was measured with others is left out."""
        scene = copy.copy(self)
        scene._modules = dict(self._modules)
        if share != 1:
            scene.quality = self.share_quality.get(share)
            scene.views = tuple(replace(view, psnr=None) for view in self.views)
        scene.share_quality = {}
        return scene

    def describe(self) -> dict[str, Any]:
        """See `BundledField.describe`."""
        # left out where there is none: earlier versions read such scenes too
        measured = [{"share": share, **asdict(quality)} for share, quality in self.share_quality.items()]
        return {
            **({"share_quality": measured} if measured else {}),
            "renderer": None if self.renderer is None else self.renderer.describe(),
            "near": self.near,
            "far": self.far,
            "box": list(self.box),
            "background": None if self.background is None else list(self.background),
            "views": [view.describe() for view in self.views],
            "transform": list(self.coordinates.transform),
            "scale": self.coordinates.scale,
            "times": None if self.times is None else list(self.times),
            "quality": None if self.quality is None else asdict(self.quality),
        }

    @classmethod
    def build(cls, spec: Spec, tensors: StoredTensors, kinds: Mapping[str, BuildRenderer]) -> BundledScene:
        """The scene that `spec` describes.

        Args:
            spec: as `describe` writes it.
            tensors: of the bundle.
            kinds: of renderers that the field can be rendered by, with what reads them.

        Raises:
            BundleError: it describes none, or another kind of renderer.
        """
        described, renderer = spec.optional_part("renderer"), None
        if described is not None:
            renderer = kinds[described.text("kind", kinds)](described, tensors, "scene.renderer.")
        near, far = spec.number("near", 0.0, MAX_DISTANCE), spec.number("far", 0.0, MAX_DISTANCE)
        box = spec.numbers("box", -MAX_DISTANCE, MAX_DISTANCE, 6)
        times = spec.optional_numbers("times", 0.0, 1.0, 2)
        if not near < far or not all(low < high for low, high in zip(box[:3], box[3:], strict=True)):
            raise BundleError(
                f"{spec.where}: near must be below far, and the box's first corner below its second; {ADVICE}"
            )
        if isinstance(renderer, BundledProposals) and renderer.renderer.spacing == "power" and near <= 0:
            raise BundleError(f"{spec.where}.near must be above 0 where proposals space samples; {ADVICE}")
        if times is not None and times[0] > times[1]:
            raise BundleError(f"{spec.where}.times ends before it begins; {ADVICE}")
        coordinates = SceneCoordinates(
            spec.numbers("transform", -MAX_DISTANCE, MAX_DISTANCE, 12), spec.number("scale", 1e-9, MAX_DISTANCE)
        )
        scene = cls(
            renderer,
            near=near,
            far=far,
            box=box,
            background=spec.optional_numbers("background", 0.0, 1.0, 3),
            views=[BundledView.build(view) for view in spec.listed("views", MAX_VIEWS)],
            coordinates=coordinates,
            times=times,
            quality=_read_quality(spec.optional_part("quality")),
            share_quality=_read_share_quality(spec) if spec.holds("share_quality") else None,
        )
        spec.close()
        return scene


def _read_share_quality(spec: Spec) -> dict[float, MeasuredQuality]:
    measured: dict[float, MeasuredQuality] = {}
    for part in spec.parts("share_quality", MAX_SHARES):
        share, quality = part.number("share", 0.0, 1.0), _read_quality(part)
        if share in measured:
            raise BundleError(f"{part.where} is of the share {share:g} again; {ADVICE}")
        assert quality is not None
        measured[share] = quality
    return measured


def _read_quality(spec: Spec | None) -> MeasuredQuality | None:
    if spec is None:
        return None
    quality = MeasuredQuality(
        spec.number("exact_psnr", -MAX_DECIBEL, MAX_DECIBEL),
        spec.number("psnr", -MAX_DECIBEL, MAX_DECIBEL),
    )
    spec.close()
    return quality
