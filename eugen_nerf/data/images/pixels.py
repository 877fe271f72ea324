"""Pixels of photographs and masks, of all unambiguous pixel formats, in one form."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from eugen_nerf.core.errors import DataError

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
"""PIL's pixel formats of 8 bits with an unambiguous colour."""
SIXTEEN_BIT = "16-bit"
"""Name for all formats of 16 bits a channel."""
ALLOWED = "grey, RGB, RGBA and palettes of 8 bits, grey, RGB and RGBA of 16 bits"
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF")
"""Formats whose compression blurs edges between black and white."""
MAX_GREY_SPREAD = 24
"""Largest difference of the colour channels of a grey image in such a format, of 255."""

Pixels = NDArray[np.uint8]


def pixel_format(image: Image.Image) -> str:
    """PIL's mode of an opened, unloaded image; `SIXTEEN_BIT` for 16 bits a channel, which PIL would cut to 8."""
    deep = image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return SIXTEEN_BIT if deep else image.mode


def has_alpha(image: Image.Image) -> bool:
    """Whether pixels may be transparent: by a channel, a palette or a transparent colour."""
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info


def photograph_pixels(path: Path, *, camera: tuple[int, int] | None = None) -> Pixels:
    """A photograph `[H, W, 3]`, or `[H, W, 4]` with alpha.

    Arguments:
        path: a file whose format is one of `MODES` or `SIXTEEN_BIT`.
        camera: (width, height) of its camera. If the stored image has another size, and EXIF rotates it to this
            one, it is rotated.
    """
    with Image.open(path) as image:
        turned = camera is not None and image.size != camera and image.size[::-1] == camera
        if pixel_format(image) == SIXTEEN_BIT:
            pixels = Image.fromarray(to_8_bits(sixteen_bit_pixels(path)))
            pixels.getexif().update(image.getexif())
        else:
            mode = "RGBA" if has_alpha(image) else "RGB"
            pixels = image if image.mode == mode else image.convert(mode)
        return np.array(ImageOps.exif_transpose(pixels) if turned else pixels, dtype=np.uint8)


def sixteen_bit_pixels(path: Path) -> NDArray[np.uint16]:
    """An image of 16 bits a channel `[H, W, 3 or 4]`, decoded by OpenCV at full precision."""
    stored = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise ValueError("its 16 bits a channel are stored in a way that OpenCV does not read")
    if stored.ndim == 2:
        return np.repeat(stored[..., None], 3, axis=2)
    return np.ascontiguousarray(stored[..., [2, 1, 0, 3][: stored.shape[2]]])


def to_8_bits(pixels: NDArray[np.uint16]) -> Pixels:
    """Rounds to the nearest of 256 steps; white is 65535."""
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def mask_pixels(path: Path) -> NDArray[np.bool_]:
    """The pixels `[H, W]` that a mask keeps: those that are neither black nor transparent.

    In a lossy format, it keeps those more than half as bright as the brightest. Raises `DataError` for colours, and
    passes on what decoding a damaged file raises.
    """
    with Image.open(path) as image:
        found, lossy = pixel_format(image), image.format in LOSSY_FORMATS
        if found not in (*MODES, SIXTEEN_BIT):
            raise DataError(
                f"mask '{path}' has the pixel format {found}: {ALLOWED} are read; convert it to 8-bit grey, "
                "white where pixels are used"
            )
        if found == SIXTEEN_BIT:
            values = sixteen_bit_pixels(path)
        else:
            values = np.asarray(image.convert("RGBA" if has_alpha(image) else "RGB"))
    colours = values[..., :3].astype(np.int64)
    grey = colours.max(axis=-1)
    if int((grey - colours.min(axis=-1)).max(initial=0)) > (MAX_GREY_SPREAD if lossy else 0):
        raise DataError(
            f"mask '{path}' has colours: white (used) and black (left out) are allowed; convert it to 8-bit grey"
        )
    used = 2 * grey > grey.max() if lossy else grey > 0
    return used & (values[..., 3] > 0) if values.shape[-1] == 4 else used
