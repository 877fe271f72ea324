"""Describes files that are no images or are in an unsupported format, by their first bytes."""

from __future__ import annotations

from pathlib import Path

_AGAIN = "copy the image itself there, or remove its frame"
_CONVERT = "convert it to PNG or JPEG (mogrify -format png FILES), keep its name before the extension, and remove it"
_FRAMES = "pass a folder of images instead (ffmpeg -i VIDEO -r 2 images/%05d.png), with a camera for each"
_HEIC = ("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1")
_KINDS = (
    (0, b"version https://git-lfs", "a pointer of git LFS, not the image", "run git lfs pull"),
    (0, b"v/1\x01", "an OpenEXR image, whose colours have no white", _CONVERT),
    (0, b"\x93NUMPY", "an array of numpy", _CONVERT),
    (0, b"\x1aE\xdf\xa3", "a video", _FRAMES),
    (8, b"AVI ", "a video", _FRAMES),
    (0, b"PK\x03\x04", "an archive (zip or npz)", "unpack it"),
    (0, b"%PDF", "a PDF document", _AGAIN),
    (0, b"II*\x00", "a raw photograph or a TIFF of a kind that is not read", _CONVERT),
    (0, b"MM\x00*", "a raw photograph or a TIFF of a kind that is not read", _CONVERT),
    (0, b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (4, b"JXL ", "a JPEG XL image", _CONVERT),
    *((4, b"ftyp" + brand.encode(), "a HEIC photograph", _CONVERT) for brand in _HEIC),
    (4, b"ftypavif", "an AVIF image, which this Pillow does not read", _CONVERT),
    (4, b"ftypcrx", "a raw photograph", _CONVERT),
    (4, b"ftyp", "a video", _FRAMES),
    (0, b"<", "a page of HTML or XML", _AGAIN),
)
"""Position, bytes, meaning and advice; the first match is used."""


def describe_unknown_file(path: Path) -> str | None:
    """Describes a file that no decoder reads, with advice; None if it may be a damaged image."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        return f"cannot be read ({error.strerror}): check its permissions"
    if not start:
        return "is damaged and cannot be decoded (it has 0 bytes): copy it again, or remove its frame"
    for position, signature, kind, way in _KINDS:
        if start[position:].startswith(signature):
            return f"is {kind}: {way}"
    return None
