"""Which image size a sequence's intrinsics belong to, and what they are for its depth images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.undistortion import Lens, Size, scaled_by, share_shown
from eugen_nerf.data.rgbd.rgbd_images import same_view
from eugen_nerf.data.rgbd.rgbd_types import RGBDFrame

OFF_CENTRE = 0.3
"""Share of a side by which a principal point may miss the middle: beyond it, intrinsics are of other images."""
HOW = "pass --intrinsics fx fy cx cy in pixels of the depth images, from their upper left corner"


def fit_lenses(frames: list[RGBDFrame], size: Size, color: Size, explicit: bool, notes: list[str]) -> list[RGBDFrame]:
    """The frames with lenses in pixels of the depth images.

    Arguments:
        frames: lenses are of the size they name; where they name none, the principal point says which they fit.
        size: (width, height) of the depth images.
        color: of the colour images.
        explicit: the user gave the intrinsics, so they are taken even where they look wrong.
        notes: lines are added for what was scaled and undistorted.

    Raises `DataError` for a camera that fits no size of its images.
    """
    fitted: dict[Lens, Lens] = {}
    for frame in frames:
        if frame.lens not in fitted:
            fitted[frame.lens] = _fitted(frame, size, color, explicit, notes if not fitted else [])
    bent = next((lens for lens in fitted.values() if lens.distorted), None)
    if bent is not None:
        numbers = ", ".join(f"{value:.6g}" for value in bent.pinhole)
        notes.append(
            f"the {bent.model} lens's distortion is removed from colour and depth: they are used as pinhole images "
            f"with fx, fy, cx, cy = {numbers} at {size[0]}x{size[1]}, {100 * share_shown(bent):.3g} % of whose pixels "
            "the lens shows"
        )
    return [replace(frame, lens=fitted[frame.lens]) for frame in frames]


def _fitted(frame: RGBDFrame, size: Size, color: Size, explicit: bool, notes: list[str]) -> Lens:
    lens = frame.lens
    if not (np.isfinite(lens.pinhole).all() and min(lens.pinhole[:2]) > 0.0):
        raise DataError(
            f"the camera of '{frame.color}' has fx, fy, cx, cy = {_listed(lens)}: finite numbers and positive focal "
            "lengths are needed; correct it, or pass --intrinsics"
        )
    if lens.size is not None and not same_view(lens.size, size):
        swapped = same_view(lens.size[::-1], size)
        raise DataError(
            f"w, h of '{frame.color}' are {lens.size[0]}x{lens.size[1]} but depth '{frame.depth}' is "
            f"{size[0]}x{size[1]}: {'they are swapped; correct them' if swapped else f'the images were cropped; {HOW}'}"
        )
    sizes = [lens.size] if lens.size is not None else list(dict.fromkeys((color, size)))
    own = min(sizes, key=lambda s: _off_centre(lens, s))
    if _off_centre(lens, own) > OFF_CENTRE:
        text = (
            f"the principal point {lens.cx:g}, {lens.cy:g} of '{frame.color}' is far from the middle of images of "
            f"{own[0]}x{own[1]} pixels: where they were resized or cropped since, {HOW}"
        )
        if not explicit:
            raise DataError(text)
        notes.append(f"warning: {text}")
        own = size
    ratio = scaled_by((lens.cx, lens.cy), own)
    if ratio is not None and not explicit:
        raise DataError(
            f"the principal point {lens.cx:g}, {lens.cy:g} of '{frame.color}' is the middle of images {ratio:.3g} "
            f"times the size of {own[0]}x{own[1]}: correct the intrinsics, or {HOW}"
        )
    lens = replace(lens, size=own)
    if own == size:
        return lens
    scaled = lens.scaled_to(size)
    notes.append(
        f"intrinsics of {own[0]}x{own[1]} images are scaled to depth's {size[0]}x{size[1]}: fx, fy, cx, cy = "
        f"{_listed(scaled)} (--intrinsics)"
    )
    return scaled


def _off_centre(lens: Lens, size: Size) -> float:
    """By which share of a side the principal point misses the middle, the larger of both axes."""
    return max(abs(lens.cx / size[0] - 0.5), abs(lens.cy / size[1] - 0.5))


def _listed(lens: Lens) -> str:
    return ", ".join(f"{value:.6g}" for value in lens.pinhole)
