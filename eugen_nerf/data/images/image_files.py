"""Checks of image and mask files: that they exist, decode, and have the size of their cameras."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.pixels import (
    ALLOWED,
    MODES,
    SIXTEEN_BIT,
    has_alpha,
    mask_pixels,
    pixel_format,
    sixteen_bit_pixels,
)
from eugen_nerf.data.images.unknown_files import describe_unknown_file

MIN_BRIGHTEST = 4096
"""Brightest value of 16-bit images below which they hold 12 bits or fewer, which the file does not state."""


@dataclass(frozen=True)
class ImageFacts:
    """Properties of a decoded image file.

    Attributes:
        size: stored (width, height) in pixels.
        alpha: whether pixels may be transparent.
        orientation: EXIF orientation; 1 is as stored.
        blank: whether all pixels are 0 (of the alpha channel, if there is one).
        brightest: largest value of an image of 16 bits a channel; None for 8 bits.
    """

    size: tuple[int, int]
    alpha: bool
    orientation: int
    blank: bool
    brightest: int | None = None

    @property
    def allowed_sizes(self) -> tuple[tuple[int, int], ...]:
        """Sizes that its camera may have: as stored, and as rotated by EXIF."""
        return (self.size, self.size[::-1]) if self.orientation >= 5 else (self.size,)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels from an image's header; raises `DataError`."""
    check_present([path], split="", what="image")
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # as below
        raise _damaged(path, "image", error) from error


def decode_all(files: Sequence[Path]) -> list[ImageFacts]:
    """Decodes existing images completely, several at a time; raises `DataError` for the first bad one."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_decode, files))


def check_present(files: Sequence[Path], *, split: str, what: str) -> None:
    """Raises `DataError` if files are missing, with the first one's name and their number."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        of = f" of the {split} split" if split else ""
        raise DataError(
            f"{len(missing)} of {len(files)} {what} files{of} are missing, the first is '{missing[0]}': copy them "
            "there, or remove their frames"
        )


def check_sizes(
    files: Sequence[Path], facts: Sequence[ImageFacts], expected: Sequence[tuple[int, int]], *, split: str
) -> None:
    """Raises `DataError` unless each image has the size of its camera, as stored or as rotated by EXIF.

    Arguments:
        files, facts: of the images.
        expected: (width, height) of their cameras in pixels.
        split: its name, for error messages.
    """
    wrong = [i for i, (fact, size) in enumerate(zip(facts, expected, strict=True)) if size not in fact.allowed_sizes]
    if not wrong:
        return
    fact, camera = facts[wrong[0]], expected[wrong[0]]
    raise DataError(
        f"image '{files[wrong[0]]}' of the {split} split is {fact.size[0]}x{fact.size[1]} pixels where its camera is "
        f"{camera[0]}x{camera[1]} ({len(wrong)} of {len(files)} images differ){_size_advice(fact, camera)}"
    )


def check_masks(masks: Sequence[Path], sizes: Sequence[tuple[int, int]], *, split: str) -> None:
    """Raises `DataError` unless masks are black and white, have the size of their image, and keep at least one pixel.

    Arguments:
        masks: files.
        sizes: (width, height) in pixels of their images.
        split: its name, for error messages.
    """
    check_present(masks, split=split, what="mask")

    def inspect(file: Path) -> tuple[tuple[int, ...], bool]:
        try:
            used = mask_pixels(file)
        except DataError:
            raise
        except Exception as error:  # as in `_decode`
            raise _damaged(file, "mask", error) from error
        return used.shape[::-1], bool(used.any())

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        inspected = list(pool.map(inspect, masks))
    for file, (found, any_used), size in zip(masks, inspected, sizes, strict=True):
        if found != size:
            raise DataError(
                f"mask '{file}' of the {split} split is {found[0]}x{found[1]} pixels where its image is "
                f"{size[0]}x{size[1]}: resize the mask by nearest neighbour, or remove it"
            )
        if not any_used:
            raise DataError(
                f"mask '{file}' of the {split} split is black everywhere and leaves no pixel to train on: white is "
                "what is used; invert or correct it, or remove its frame"
            )


def check_alpha(files: Sequence[Path], facts: Sequence[ImageFacts], *, split: str) -> None:
    """Raises `DataError` if only some images have alpha, or if nothing is visible."""
    alpha = [i for i, fact in enumerate(facts) if fact.alpha]
    plain = [i for i, fact in enumerate(facts) if not fact.alpha]
    if alpha and plain:
        few, other = sorted((alpha, plain), key=len)
        kinds = ("with", "without") if few is alpha else ("without", "with")
        raise DataError(
            f"{len(few)} of {len(files)} images of the {split} split are {kinds[0]} an alpha channel where the others "
            f"are {kinds[1]}, the first is '{files[few[0]]}' ('{files[other[0]].name}' is one of the others): give "
            "all of them one, or none"
        )
    brightest = [fact.brightest for fact in facts if fact.brightest is not None]
    if brightest and len(brightest) == len(facts) and max(brightest) < MIN_BRIGHTEST:
        raise DataError(
            f"the {len(files)} images of the {split} split have 16 bits a channel and values up to {max(brightest)} of "
            f"65535, so all are nearly black, '{files[0]}' is the first: scale them so that white is 65535, or write "
            "8 bits"
        )
    if facts and all(fact.alpha and fact.blank for fact in facts):
        raise DataError(
            f"all {len(files)} images of the {split} split are fully transparent, '{files[0]}' is the first: nothing "
            "can be learned from them; render them again, with the object in view"
        )


def _size_advice(fact: ImageFacts, camera: tuple[int, int]) -> str:
    """Likely cause of a difference in size, and advice."""
    width, height = fact.size
    ways = "put back the images that the cameras were computed for, or "
    if (height, width) == camera:
        return ": width and height are swapped; turn the images, or swap 'w' and 'h'"
    ratio = width / camera[0]
    if abs(width - ratio * camera[0]) <= 1 and abs(height - ratio * camera[1]) <= max(1.0, ratio):
        if abs(width - camera[0]) <= 1 and abs(height - camera[1]) <= 1:
            return f": one was rounded; {ways}write the images' size as 'w' and 'h' if the lens was computed for it"
        return (
            f": they are {ratio:.4g} times the size; {ways}multiply the cameras by {ratio:.4g}: 'w', 'h', "
            "'fl_x', 'fl_y', 'cx', 'cy' or 'K', or COLMAP's width, height and parameters"
        )
    return f": {ways}give each frame its own 'w', 'h', 'fl_x', 'fl_y', 'cx', 'cy'"


def _decode(file: Path) -> ImageFacts:
    """Decodes a photograph completely."""
    try:
        with Image.open(file) as image:
            image.verify()  # checksums, which decoding a PNG ignores; the file must be opened again afterwards
        with Image.open(file) as image:
            found, alpha, size = pixel_format(image), has_alpha(image), image.size
            if found not in (*MODES, SIXTEEN_BIT):
                raise DataError(f"image '{file}' has the pixel format {found}: {ALLOWED} are read; convert it")
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            if found == SIXTEEN_BIT:
                values = sixteen_bit_pixels(file)
                alpha = values.shape[-1] == 4
                blank = not (values[..., 3] if alpha else values).any()
                return ImageFacts(size, alpha, orientation, blank, int(values.max(initial=0)))
            channel = image if not alpha else image.convert("RGBA").getchannel("A")
            return ImageFacts(size, alpha, orientation, not np.any(channel.getextrema()))
    except DataError:
        raise
    except Exception as error:  # a damaged file raises whatever its decoder meets: OSError, SyntaxError, zlib.error ...
        raise _damaged(file, "image", error) from error


def _damaged(file: Path, what: str, error: Exception) -> DataError:
    """The error for a file that cannot be decoded."""
    kind = (
        describe_unknown_file(file) or f"is damaged and cannot be decoded ({error}): copy it again, or remove its frame"
    )
    return DataError(f"{what} '{file}' {kind}")
