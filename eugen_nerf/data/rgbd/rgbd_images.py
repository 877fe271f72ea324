"""Reads the files of an RGB-D frame: depth in metres, masks and colours, as images of one pinhole camera."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.unknown_files import describe_unknown_file
from eugen_nerf.data.lenses.undistortion import Lens, Size, undistorted

DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""PIL's modes of a depth image: one channel of 16 or 32 bits."""
ASPECT_TOLERANCE = 0.01
"""Largest relative difference of the aspect ratios of two sizes of one view: ScanNet has 1296x968 and 640x480."""


def load_depth(
    path: Path,
    unit_scale: float,
    invalid: Iterable[float],
    depth_max: float,
    *,
    mask: Path | None = None,
    lens: Lens | None = None,
) -> NDArray[np.float32]:
    """Reads a depth image.

    Arguments:
        path: PNG or TIFF of one channel of 16 or 32 bits, or .npy [h, w] of any real type.
        unit_scale: metres of one stored unit.
        invalid: stored values that mean "not measured".
        depth_max: metres; farther depths are not used.
        mask: image file whose zeros are pixels without a depth, of the same view.
        lens: of the image; if it is distorted, each pixel of the pinhole image takes the nearest pixel's depth.

    Returns depth along the optical axis [h, w] float32 in metres, NaN where unknown. Raises `DataError`.
    """
    stored = read_stored_depth(path)
    bad = ~(stored > 0.0) | ~np.isfinite(stored)
    for value in invalid:
        bad |= stored == value
    depth = stored.astype(np.float32) * np.float32(unit_scale)
    bad |= depth > depth_max
    if mask is not None:
        bad |= ~_load_mask(mask, (depth.shape[1], depth.shape[0]))
    depth[bad] = np.nan
    if lens is not None and lens.distorted:
        depth = undistorted(depth, lens, nearest=True, unknown=np.nan)
    return depth


def load_depth_of(metadata: Mapping[str, Any], index: int) -> NDArray[np.float32]:
    """Reads a depth image described by the metadata of `EugenRGBDDataParser`, as `load_depth` does."""
    return load_depth(
        metadata["depth_filenames"][index],
        metadata["depth_unit_scale_factor"],
        metadata["depth_invalid"],
        metadata["depth_max"],
        mask=metadata["depth_masks"][index],
        lens=metadata["lenses"][index],
    )


def load_color(path: Path, size: Size, lens: Lens | None = None) -> NDArray[np.uint8]:
    """Reads a colour image of `size` (width, height) as a pinhole image: uint8 [h, w, 3 or 4].

    It is rotated by EXIF if only then it has the aspect of the depth image, resized by averaging, and undistorted if
    `lens`, of the same size, is distorted.
    """
    with Image.open(path) as image:
        turn = not same_view(image.size, size) and same_view(_turned_size(image), size)
        turned = ImageOps.exif_transpose(image) if turn else image
        pixels = np.asarray(turned.convert("RGBA" if "A" in turned.mode else "RGB"))
    if (pixels.shape[1], pixels.shape[0]) != size:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if lens is not None and lens.distorted:
        pixels = undistorted(pixels, lens.scaled_to(size), nearest=False)
    return pixels


def read_stored_depth(path: Path) -> NDArray[Any]:
    """The stored numbers [h, w] of a depth file; raises `DataError`."""
    again = "copy it again, or remove its frame"
    if path.suffix == ".npy":
        try:
            stored = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"depth '{path}' is damaged and cannot be read ({first_line(error)}): {again}") from error
        if stored.ndim == 3 and stored.shape[2] == 1:
            stored = stored[..., 0]
        if stored.ndim != 2 or stored.dtype.kind not in "uif":
            raise DataError(
                f"depth '{path}' is an array {list(stored.shape)} of {stored.dtype}: real numbers [height, width] are "
                "needed; convert it"
            )
        return stored
    try:
        with Image.open(path) as image:
            mode = image.mode
            stored = np.asarray(image)
    except Exception as error:  # a damaged file raises whatever its decoder meets: OSError, SyntaxError, zlib.error ...
        kind = describe_unknown_file(path)
        if kind is not None:
            raise DataError(f"depth '{path}' {kind}") from error
        if isinstance(error, UnidentifiedImageError) and path.suffix.lower() not in (".png", ".tif", ".tiff"):
            again = "PNG or TIFF of 16 or 32 bits and .npy are read; convert it"
        raise DataError(f"depth '{path}' is damaged and cannot be decoded ({first_line(error)}): {again}") from error
    if mode not in DEPTH_MODES:
        raise DataError(
            f"depth '{path}' has the pixel format {mode}: one channel of 16 bits is needed (PNG), or .npy; convert it"
        )
    return stored


def depth_size(path: Path) -> Size:
    """(width, height) of a depth file, from its header if it has one; raises `DataError`."""
    if path.suffix == ".npy":
        height, width = read_stored_depth(path).shape
        return width, height
    return color_sizes(path)[0]


def color_sizes(path: Path) -> tuple[Size, Size]:
    """(width, height) of an image file as stored, and as rotated by EXIF; raises `DataError`."""
    try:
        with Image.open(path) as image:
            return image.size, _turned_size(image)
    except (OSError, SyntaxError, ValueError) as error:
        kind = describe_unknown_file(path)
        if kind is not None:
            raise DataError(f"image '{path}' {kind}") from error
        raise DataError(
            f"image '{path}' is damaged and cannot be decoded ({first_line(error)}): copy it again, or remove it"
        ) from error


def same_view(one: Size, other: Size) -> bool:
    """Whether an image of one size can be a resized copy of the other, up to rounding to whole pixels."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= ASPECT_TOLERANCE


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its class."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _load_mask(path: Path, size: Size) -> NDArray[np.bool_]:
    """Which pixels of an image of `size` a mask keeps: those whose colour, and alpha if any, is not 0."""
    try:
        with Image.open(path) as image:
            image.load()
            mode = image.mode
            pixels = np.asarray(image.convert("RGBA") if mode in ("P", "PA", "LA") else image)
    except Exception as error:  # as for depth
        raise DataError(
            f"mask '{path}' is missing or damaged and cannot be decoded ({first_line(error)}): copy it again, or "
            "remove mask_path from its frame"
        ) from error
    if not same_view((pixels.shape[1], pixels.shape[0]), size):
        raise DataError(
            f"mask '{path}' is {pixels.shape[1]}x{pixels.shape[0]} pixels but the depth image is {size[0]}x{size[1]}: "
            "both must show the same view; write it again, or remove mask_path from its frame"
        )
    kept = pixels != 0
    if kept.ndim == 3:
        kept = kept[..., :3].any(axis=-1) & (kept[..., 3] if kept.shape[2] == 4 else True)
    return cv2.resize(kept.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) != 0


def _turned_size(image: Image.Image) -> Size:
    width, height = image.size
    return (height, width) if image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8) else (width, height)
