"""From runs and bundles to a web page: the fields that stand on it, and the image that it begins with."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eugen_nerf.conversion.bundle_scene import bundle_of_run
from eugen_nerf.core import load_bundle
from eugen_nerf.core.bundles.bundled_field import BundledField
from eugen_nerf.core.ranges import QUALITY
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.run_paths import is_bundle
from eugen_nerf.web.page import PageField, WebPage, web_page
from eugen_nerf.web.scene_data import SceneData, scene_data

POSTER_HEIGHT = 192
"""Pixels of the image that a page begins with."""
POSTER_QUALITY = 80
"""Of its JPEG file."""
Score = Callable[[Run, BundledField], Sequence[float]]
"""PSNR of a bundle's first test views to a run's photographs, dB."""


@dataclass(frozen=True)
class ScoredField:
    """A field, and what its test views score.

    Attributes:
        field: as it is bundled, on the CPU.
        scores: PSNR of the first views to their photographs, dB; empty where none was measured.
    """

    field: BundledField
    scores: Sequence[float] = ()


def field_at(
    path: Path,
    *,
    quality: float = QUALITY,
    device: str | None = None,
    data: Path | None = None,
    trust_config: bool = False,
    score: Score | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> ScoredField:
    """The field of a bundle, or of a run as it would be bundled.

    Args:
        path: a bundle's folder, or a run's `config.yml`.
        quality: dB of PSNR that the renderer of a run may lose; a bundle's is chosen already.
        device: where a run is measured.
        data: data set of a run, where it no longer lies where it was.
        trust_config: whether a run's config is read as nerfstudio does.
        score: measures a run's test views; a bundle has no photographs.
        progress: called with lines that say what a run's bundle lacks.

    Raises:
        EugenError: as `load_bundle`, `load_run` and `bundle_of_run`.
    """
    if is_bundle(path):
        return ScoredField(load_bundle(path))
    run = load_run(path, device=device, data=data, trust_config=trust_config)
    field = bundle_of_run(run, quality=quality, progress=progress)
    rendered = field.scene is not None and field.scene.renderer is not None
    scores = score(run, field) if score is not None and rendered else ()
    return ScoredField(field.cpu(), scores)


def page_of(
    fields: Sequence[tuple[str, ScoredField]], title: str, *, inline: bool = True
) -> tuple[WebPage, list[SceneData]]:
    """The page of one or two fields.

    Args:
        fields: names and fields.
        title: of the page.
        inline: whether the weights stand in the page.

    Returns:
        The page, and how each field was packed.

    Raises:
        ConfigError: a field that a page cannot render, and why.
    """
    packed = [scene_data(scored.field) for _, scored in fields]
    parts = [
        PageField(name, _with_scores(each.description, scored.scores), each.binary)
        for (name, scored), each in zip(fields, packed, strict=True)
    ]
    return web_page(parts, title, inline=inline, poster=poster_of(fields[0][1].field)), packed


def _with_scores(description: dict[str, Any], scores: Sequence[float]) -> dict[str, Any]:
    """The description with the scores of its first views; those without a finite one stay as they are."""
    views = list(description["info"]["views"])
    for number, score in enumerate(scores):
        if math.isfinite(score):
            views[number] = {**views[number], "psnr": round(score, 3)}
    return {**description, "info": {**description["info"], "views": views}}


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
