"""From runs and bundles to a web page: the fields that stand on it, and the image that it begins with."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from eugen_nerf.conversion.bundle_scene import bundle_of_run
from eugen_nerf.core import load_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.methods.runs.loading import load_run
from eugen_nerf.methods.runs.run_paths import is_bundle
from eugen_nerf.web.page import PageField, WebPage, web_page
from eugen_nerf.web.scene_data import SceneData, scene_data

POSTER_HEIGHT = 192
"""Pixels of the image that a page begins with."""
POSTER_QUALITY = 80
"""Of its JPEG file."""
COORDINATES_DIFFER = 1e-4
"""Of transforms and scales, from which on two fields are not shown together."""


def field_at(
    path: Path,
    *,
    quality: float = QUALITY,
    device: str | None = None,
    data: Path | None = None,
    trust_config: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> BundledField:
    """The field of a bundle, or of a run as it would be bundled, on the CPU.

    Args:
        path: a bundle's folder, or a run's `config.yml`.
        quality: dB of PSNR that the renderer of a run may lose; a bundle's is chosen already.
        device: where a run is measured.
        data: data set of a run, where it no longer lies where it was.
        trust_config: whether a run's config is read as nerfstudio does.
        progress: called with lines that say what a run's bundle lacks.

    Raises:
        EugenError: as `load_bundle`, `load_run` and `bundle_of_run`.
    """
    if is_bundle(path):
        return load_bundle(path)
    run = load_run(path, device=device, data=data, trust_config=trust_config)
    return bundle_of_run(run, quality=quality, progress=progress).cpu()


def page_of(
    fields: Sequence[tuple[str, BundledField]], title: str, *, inline: bool = True
) -> tuple[WebPage, list[SceneData]]:
    """The page of one or two fields.

    Args:
        fields: names and fields.
        title: of the page.
        inline: whether the weights stand in the page.

    Returns:
        The page, and how each field was packed.

    Raises:
        ConfigError: a field that a page cannot render, and why; two whose coordinates differ.
    """
    _check_coordinates(fields)
    packed = [scene_data(field) for _, field in fields]
    parts = [PageField(name, each.description, each.binary) for (name, _), each in zip(fields, packed, strict=True)]
    return web_page(parts, title, inline=inline, poster=poster_of(fields[0][1])), packed


def _check_coordinates(fields: Sequence[tuple[str, BundledField]]) -> None:
    """One camera shows both fields, so data must have been scaled and turned alike; raises `ConfigError`."""
    placed = [(name, field.scene.coordinates) for name, field in fields if field.scene is not None]
    for name, each in placed[1:]:
        first_name, first = placed[0]
        numbers = zip((*first.transform, first.scale), (*each.transform, each.scale), strict=True)
        if not all(math.isclose(a, b, rel_tol=COORDINATES_DIFFER, abs_tol=COORDINATES_DIFFER) for a, b in numbers):
            raise ConfigError(
                f"{first_name} and {name} place the scene differently, and would not lie on each other: "
                "train both with the same options of the data parser, or write a page of each"
            )


def poster_of(field: BundledField) -> bytes | None:
    """A JPEG file of the first test view, small; None for a field without test views."""
    from PIL import Image

    from eugen_nerf.methods.runs.image_metrics import quantise

    if not field.cameras:
        return None
    camera = field.cameras[0]
    image = field.render(camera.resized(min(POSTER_HEIGHT, camera.height))).colour
    file = io.BytesIO()
    Image.fromarray(quantise(image)).save(file, format="JPEG", quality=POSTER_QUALITY)
    return file.getvalue()
