"""Finds the image size of a sequence's intrinsics, and scales them to its depth images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.undistortion import Lens, Size, rescaling_factor, visible_share
from eugen_nerf.data.rgbd.rgbd_images import same_view
from eugen_nerf.data.rgbd.rgbd_types import RGBDFrame

MAX_CENTRE_OFFSET = 0.3
"""Largest offset of a principal point from the middle, as a share of the side: beyond it, intrinsics are of other
images."""
INTRINSICS_ADVICE = "pass --intrinsics fx fy cx cy in pixels of the depth images, from their upper left corner"


def fit_lenses(frames: list[RGBDFrame], size: Size, color: Size, explicit: bool, notes: list[str]) -> list[RGBDFrame]:
    """The frames with lenses in pixels of the depth images.

    Arguments:
        frames: their lenses are for the size they state; if they state none, the principal point decides.
        size: (width, height) of the depth images.
        color: of the colour images.
        explicit: whether the user gave the intrinsics; then they are used even if they look wrong.
        notes: receives a line for each scaling and undistortion.

    Raises `DataError` for a camera that matches no size of its images.
    """
    fitted: dict[Lens, Lens] = {}
    for frame in frames:
        if frame.lens not in fitted:
            fitted[frame.lens] = _fitted(frame, size, color, explicit, notes if not fitted else [])
    distorted = next((lens for lens in fitted.values() if lens.distorted), None)
    if distorted is not None:
        numbers = ", ".join(f"{value:.6g}" for value in distorted.pinhole)
        notes.append(
            f"the {distorted.model} lens's distortion is removed from colour and depth: they are used as pinhole "
            f"images with fx, fy, cx, cy = {numbers} at {size[0]}x{size[1]}, "
            f"{100 * visible_share(distorted):.3g} % of whose pixels "
            "the lens covers"
        )
    return [replace(frame, lens=fitted[frame.lens]) for frame in frames]


def _fitted(frame: RGBDFrame, size: Size, color: Size, explicit: bool, notes: list[str]) -> Lens:
    lens = frame.lens
    if not (np.isfinite(lens.pinhole).all() and min(lens.pinhole[:2]) > 0.0):
        raise DataError(
            f"the camera of '{frame.color}' has fx, fy, cx, cy = {_listed(lens)}: finite numbers and positive focal "
            "lengths are needed; correct it, or pass --intrinsics"
        )
    if lens.size is not None and min(lens.size) < 1:
        raise DataError(
            f"w, h of '{frame.color}' are {lens.size[0]}x{lens.size[1]}: at least 1 is needed; correct them"
        )
    if lens.size is not None and not same_view(lens.size, size):
        swapped = same_view(lens.size[::-1], size)
        advice = "they are swapped; correct them" if swapped else f"the images were cropped; {INTRINSICS_ADVICE}"
        raise DataError(
            f"w, h of '{frame.color}' are {lens.size[0]}x{lens.size[1]} but depth '{frame.depth}' is "
            f"{size[0]}x{size[1]}: {advice}"
        )
    sizes = [lens.size] if lens.size is not None else list(dict.fromkeys((color, size)))
    own = min(sizes, key=lambda s: _off_centre(lens, s))
    if _off_centre(lens, own) > MAX_CENTRE_OFFSET:
        text = (
            f"the principal point {lens.cx:g}, {lens.cy:g} of '{frame.color}' is far from the middle of images of "
            f"{own[0]}x{own[1]} pixels: where they were resized or cropped since, {INTRINSICS_ADVICE}"
        )
        if not explicit:
            raise DataError(text)
        notes.append(f"warning: {text}")
        own = size
    ratio = rescaling_factor((lens.cx, lens.cy), own)
    if ratio is not None and not explicit:
        raise DataError(
            f"the principal point {lens.cx:g}, {lens.cy:g} of '{frame.color}' is the middle of images {ratio:.3g} "
            f"times the size of {own[0]}x{own[1]}: correct the intrinsics, or {INTRINSICS_ADVICE}"
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
    """Offset of the principal point from the middle as a share of the side, the larger of both axes."""
    return max(abs(lens.cx / size[0] - 0.5), abs(lens.cy / size[1] - 0.5))


def _listed(lens: Lens) -> str:
    return ", ".join(f"{value:.6g}" for value in lens.pinhole)
