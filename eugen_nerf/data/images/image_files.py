"""The files of photographs and masks: where they are, and whether they can be decoded to what their cameras say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eugen_nerf.core.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
IMAGE_MODES = ("L", "RGB", "RGBA")
MASK_MODES = ("1", "L")
ORIENTATION = 0x0112
"""Number of the EXIF tag that says how a picture is to be turned for display."""


class ImageFinder:
    """Finds the files that a data set names, as its writer meant them.

    Backslashes separate folders, an extension may be left out, be another one or differ in case, as long as one file
    alone fits.

    Arguments:
        root: what the names start from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, list[Path]] = {}

    def find(self, text: str, suffix: str, where: str) -> Path:
        """The file of a name; the name itself where none fits.

        Arguments:
            text: the name.
            suffix: what the format appends to a name, "" for nothing.
            where: what names it, for the message.

        Raises `DataError` where several files fit.
        """
        plain = self.root / text
        if "\\" in text and not plain.is_file():
            plain = self.root / text.replace("\\", "/")
        appended = plain.with_name(plain.name + suffix) if plain.name else plain
        for path in (appended, plain):
            if path.is_file():
                return path
        if plain.parent not in self._names:
            folder = plain.parent
            self._names[folder] = [p for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        near = self._names[plain.parent]
        stem = plain.stem if plain.suffix.lower() in SUFFIXES else plain.name
        fitting = [p for p in near if p.name.lower() == plain.name.lower()]
        fitting = fitting or [p for p in near if p.stem == stem and p.suffix.lower() in SUFFIXES]
        if len(fitting) > 1:
            raise DataError(
                f"'{text}' in {where} may be '{min(fitting).name}' or '{max(fitting).name}': write the whole name"
            )
        if fitting:
            return fitting[0]
        return plain if plain.suffix.lower() in SUFFIXES else appended


@dataclass(frozen=True)
class ImageFacts:
    """What decoding a file showed.

    Attributes:
        size: stored (width, height) in pixels.
        mode: PIL's pixel format.
        orientation: how display turns it, by EXIF; 1 is as stored.
        blank: no pixel is anything but 0: of the alpha channel where there is one.
    """

    size: tuple[int, int]
    mode: str
    orientation: int
    blank: bool

    @property
    def shown(self) -> tuple[tuple[int, int], ...]:
        """Sizes that a camera may have: the stored one, and the one that is displayed."""
        return (self.size, self.size[::-1]) if self.orientation >= 5 else (self.size,)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels from an image's header; raises `DataError`."""
    check_present([path], split="", what="image")
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # as below
        raise _damaged(path, "image", error) from error


def decode_all(files: Sequence[Path], *, what: str = "image", modes: Sequence[str] = IMAGE_MODES) -> list[ImageFacts]:
    """Decodes files completely, several at a time.

    Arguments:
        files: that exist.
        what: what to call them.
        modes: pixel formats that are allowed.

    Raises `DataError` naming the first bad file.
    """

    def decode(file: Path) -> ImageFacts:
        return _decode(file, what, modes)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(decode, files))


def check_present(files: Sequence[Path], *, split: str, what: str) -> None:
    """Raises where files are missing, with the first one's name and their number."""
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
    """Raises `DataError` unless each image has the size of its camera, stored or as EXIF turns it.

    Arguments:
        files, facts: of the images.
        expected: (width, height) in pixels that their cameras say.
        split: for the message.
    """
    wrong = [i for i, (fact, size) in enumerate(zip(facts, expected, strict=True)) if size not in fact.shown]
    if not wrong:
        return
    fact, camera = facts[wrong[0]], expected[wrong[0]]
    raise DataError(
        f"image '{files[wrong[0]]}' of the {split} split is {fact.size[0]}x{fact.size[1]} pixels where its camera is "
        f"{camera[0]}x{camera[1]} ({len(wrong)} of {len(files)} images differ){_likely(fact, camera)}"
    )


def check_masks(masks: Sequence[Path], sizes: Sequence[tuple[int, int]], *, split: str) -> None:
    """Raises `DataError` unless masks have one channel, the size of their image, and leave a pixel in.

    Arguments:
        masks: files.
        sizes: (width, height) in pixels of their images.
        split: for the message.
    """
    check_present(masks, split=split, what="mask")
    for file, fact, size in zip(masks, decode_all(masks, what="mask", modes=MASK_MODES), sizes, strict=True):
        if fact.size != size:
            raise DataError(
                f"mask '{file}' of the {split} split is {fact.size[0]}x{fact.size[1]} pixels where its image is "
                f"{size[0]}x{size[1]}: resize the mask by nearest neighbour, or remove it"
            )
        if fact.blank:
            raise DataError(
                f"mask '{file}' of the {split} split is black everywhere and leaves no pixel to train on: white is "
                "what is used; invert or correct it, or remove its frame"
            )


def check_alpha(files: Sequence[Path], facts: Sequence[ImageFacts], *, split: str) -> None:
    """Raises `DataError` where some images have alpha and others have none, or where nothing is visible in any."""
    alpha = [i for i, fact in enumerate(facts) if fact.mode == "RGBA"]
    plain = [i for i, fact in enumerate(facts) if fact.mode != "RGBA"]
    if alpha and plain:
        few, other = sorted((alpha, plain), key=len)
        kinds = ("with", "without") if few is alpha else ("without", "with")
        raise DataError(
            f"{len(few)} of {len(files)} images of the {split} split are {kinds[0]} an alpha channel where the others "
            f"are {kinds[1]}, the first is '{files[few[0]]}' ('{files[other[0]].name}' is one of the others): give "
            "all of them one, or none"
        )
    if facts and all(fact.mode == "RGBA" and fact.blank for fact in facts):
        raise DataError(
            f"all {len(files)} images of the {split} split are fully transparent, '{files[0]}' is the first: nothing "
            "can be learned from them; render them again, with the object in view"
        )


def _likely(fact: ImageFacts, camera: tuple[int, int]) -> str:
    """What a difference in size most likely is, and the way out."""
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


def _decode(file: Path, what: str, modes: Sequence[str]) -> ImageFacts:
    """Decodes an image completely."""
    try:
        with Image.open(file) as image:
            image.verify()  # checksums, which decoding a PNG ignores; the file must be opened again afterwards
        with Image.open(file) as image:
            image.load()
            mode, size, orientation = image.mode, image.size, image.getexif().get(ORIENTATION, 1)
            channel = image.getchannel("A") if mode == "RGBA" else image
            extrema = np.array(channel.getextrema()) if mode in modes else np.zeros(2)
    except Exception as error:  # a damaged file raises whatever its decoder meets: OSError, SyntaxError, zlib.error ...
        raise _damaged(file, what, error) from error
    if mode not in modes:
        raise DataError(
            f"{what} '{file}' has the pixel format {mode}: {'8-bit ' if what == 'image' else ''}{', '.join(modes)} are "
            "allowed; convert it"
        )
    return ImageFacts(size, mode, orientation, not extrema.any())


def _damaged(file: Path, what: str, error: Exception) -> DataError:
    return DataError(f"{what} '{file}' is damaged and cannot be decoded ({error}): copy it again, or remove its frame")
