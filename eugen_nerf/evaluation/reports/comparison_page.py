"""The page of a comparison: tables, plots, and views that a reader can enlarge and compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from eugen_nerf.evaluation.compare import Comparison
from eugen_nerf.evaluation.images.crop import most_different_crop
from eugen_nerf.evaluation.images.difference import FULL_SCALE, difference_image, scale_colours
from eugen_nerf.evaluation.images.film import image_strip
from eugen_nerf.evaluation.reports.headline import headline
from eugen_nerf.evaluation.reports.pages import render_page
from eugen_nerf.evaluation.reports.svg_plots import psnr_curves_svg, psnr_time_svg
from eugen_nerf.evaluation.reports.tables import RATIOS, SIZES_REMARK, further_tables, page_tables
from eugen_nerf.evaluation.reports.training_curves import REMARK as CURVES_REMARK
from eugen_nerf.methods.runs.image_metrics import Image8


class ShownImage(NamedTuple):
    """An image with its caption."""

    pixels: Image8
    caption: str
    whole: str = ""
    """Of a whole render: the name by which the slider offers it."""


class ShownView(NamedTuple):
    """One view: the ground truth, every run's render of it, and details of both."""

    number: int
    images: list[ShownImage]


def html_page(comparison: Comparison, *, max_views: int = 4) -> str:
    """The page as text.

    Args:
        comparison: what to show.
        max_views: views shown, spread evenly over the scored ones.
    """
    protocol = comparison.protocol
    title = f"Comparison of {', '.join(comparison.renders)}"
    scores, sizes = page_tables(comparison)
    count = len(comparison.views)
    positions = np.linspace(0, count - 1, min(count, max_views)).round().astype(int)
    return render_page(
        "comparison.html",
        title=title,
        heading=headline(comparison.rows, protocol["baseline"]),
        introduction=_introduction(title, protocol),
        notes=comparison.notes,
        scores=scores,
        sizes=sizes,
        tables=further_tables(comparison),
        psnr_time=psnr_time_svg(comparison.rows),
        curves=psnr_curves_svg(comparison.rows),
        curves_remark=CURVES_REMARK,
        scale=scale_colours(),
        full_scale=FULL_SCALE,
        views=[ShownView(comparison.views[i], list(_images(comparison, i))) for i in positions],
        frames={name: image_strip(images) for name, images in comparison.frames.items()},
        frames_view=comparison.views[0],
        times=", ".join(f"{time:.2g}" for time in comparison.times),
        protocol=protocol,
        environment=comparison.environment,
    )


def _introduction(title: str, protocol: dict[str, Any]) -> str:
    sizes, rounds = ", ".join(protocol["resolution"]), protocol["timing"]["repeats"]
    return (
        f"{title}. {protocol['number_of_views']} {protocol['split']} views of {sizes} pixels. Scores are means over "
        f"the views; times are medians over {rounds} rounds in which the runs take turns; speeds are relative to "
        f"{protocol['baseline']}, {RATIOS}. {SIZES_REMARK}"
    )


def _images(comparison: Comparison, position: int) -> Iterator[ShownImage]:
    truth = comparison.truth[position]
    renders = {name: images[position] for name, images in comparison.renders.items()}
    scores = {row["variant"]: row["psnr_per_view"][position] for row in comparison.rows}
    crop = most_different_crop(truth, list(renders.values()))
    yield ShownImage(truth, "ground truth", whole="ground truth")
    yield ShownImage(truth[crop], "ground truth, enlarged")
    for name, image in renders.items():
        yield ShownImage(image, f"{name}: {scores[name]:.2f} dB", whole=name)
        yield ShownImage(difference_image(image, truth), f"{name}: difference")
        yield ShownImage(image[crop], f"{name}, enlarged")
