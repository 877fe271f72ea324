"""From a bundle to the data of a page: a description of numbers and known words, and one binary."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.bundles.bundled_scene import BundledScene
from eugen_nerf.core.bundles.distance_bundle import DistanceBundle
from eugen_nerf.web.data_blocks import DataBlocks
from eugen_nerf.web.field_data import describe_field
from eugen_nerf.web.renderer_data import describe_renderer
from eugen_nerf.web.rounding import PRECISIONS, Precision, fits, lost_decibel, rounded, rounding_error

VERSION = 1
"""Of the description; the page's scripts read this one alone."""


@dataclass(frozen=True)
class SceneData:
    """A scene as a page holds it."""

    description: dict[str, Any]
    """JSON values; names of views are the only text that comes from the bundle."""
    binary: bytes
    """Blocks of numbers, little-endian, each at a multiple of 4 bytes."""
    precision: Precision
    """What numbers were rounded to."""
    rounding: float | None
    """Mean squared error of rendered colours that rounding makes; None without test views to measure it on."""
    lost: float | None
    """dB of PSNR to photographs that rounding loses; None where the bundle does not say what it had."""

    @property
    def half(self) -> bool:
        """Whether weights are float16."""
        return self.precision.half


def scene_data(bundle: BundledField, *, half: bool | None = None) -> SceneData:
    """The data of a page that shows a bundle.

    Args:
        bundle: with a renderer.
        half: whether weights are float16; by default as the measured loss allows.

    Raises:
        ConfigError: a bundle without a renderer, or one that a page cannot run.

    Examples:
        >>> from eugen_nerf.core import load_bundle
        >>> from eugen_nerf.web.scene_data import scene_data
        >>> data = scene_data(load_bundle("tests/golden/bundles/rendered"))
        >>> data.description["field"]["kind"], data.half, len(data.binary) < 4000
        ('radiance', True, True)
    """
    scene = bundle.rendered_scene()
    bundle = bundle.to("cpu")
    precision, field, error = _rounded(bundle, half)
    blocks = DataBlocks()
    description = {
        "version": VERSION,
        "info": _info(bundle, scene, precision),
        "field": describe_field(field, blocks, precision),
        "renderer": describe_renderer(field, blocks, precision),
        "blocks": blocks.table,
    }
    return SceneData(description, blocks.binary(), precision, error, lost_decibel(error, scene.quality))


def _rounded(bundle: BundledField, half: bool | None) -> tuple[Precision, BundledField, float | None]:
    """The smallest precision that loses little, the field in it, and what it loses."""
    choices = [precision for precision in PRECISIONS if half in (None, precision.half)]
    for precision in choices:
        field = rounded(bundle, precision)
        error = rounding_error(bundle, field)
        if fits(error, bundle.rendered_scene().quality):
            break
    return precision, field, error


def _info(bundle: BundledField, scene: BundledScene, precision: Precision) -> dict[str, Any]:
    """What the page says about a scene, and shows."""
    described = scene.describe()
    kept = ("near", "far", "box", "background", "times", "views", "quality")
    surfaces = isinstance(bundle, DistanceBundle)
    return {
        **{key: described[key] for key in kept},
        "moving": getattr(bundle, "deformation", None) is not None,
        "macs": bundle.multiply_adds(),
        "parameters": bundle.inference_parameters(),
        "shares": [_share_info(bundle, share) for share in bundle.shares],
        "bits": 16 if precision.half else 32,
        "shadings": ["colour", "depth", "normals", "slice"] if surfaces else ["colour", "depth"],
    }


def _share_info(bundle: BundledField, share: float) -> dict[str, Any]:
    """What the page says about a scene while a share of its field's features is shown."""
    narrower = bundle.at_share(share)
    quality = narrower.rendered_scene().quality
    return {
        "share": share,
        "macs": narrower.multiply_adds(),
        "quality": None if quality is None else asdict(quality),
    }
