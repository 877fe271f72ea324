"""Pixel formats of photographs and masks: read with the right colours, or named in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_edits import manager_of, masks, photographs, refusal
from painted_sphere import RIGHT, colour_error, write_transforms
from PIL import Image

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.pixels import mask_pixels, photograph_pixels

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
GREY, ALPHA = COLOURS[..., 0], COLOURS[..., 1]
DEEP = np.random.default_rng(1).integers(0, 65536, (12, 16, 4)).astype(np.uint16)
NEAREST = np.rint(DEEP.astype(float) * 255 / 65535)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def by_cv2(path: Path, values: np.ndarray) -> None:
    assert cv2.imwrite(str(path), values)


FORMATS: dict[str, tuple[Callable[[Path], object], np.ndarray]] = {
    "grey": (lambda p: Image.fromarray(GREY).save(p), grey(GREY)),
    "two colours": (lambda p: Image.fromarray(GREY > 99).save(p), grey(255 * (GREY > 99))),
    "grey with alpha": (
        lambda p: Image.fromarray(np.dstack([GREY, ALPHA]), "LA").save(p),
        np.dstack([grey(GREY), ALPHA]),
    ),
    "palette": (lambda p: Image.fromarray(GREY % 4 * 80).convert("P").save(p), grey(GREY % 4 * 80)),
    "palette with a transparent colour": (
        lambda p: Image.fromarray(GREY % 4 * 80).convert("P").save(p, transparency=80),
        np.dstack([grey(GREY % 4 * 80), 255 * (GREY % 4 != 1)]),
    ),
    "16-bit grey": (lambda p: by_cv2(p, DEEP[..., 0]), grey(NEAREST[..., 0])),
    "16-bit colours": (lambda p: by_cv2(p, DEEP[..., 2::-1]), NEAREST[..., :3]),
    "16-bit colours with alpha": (lambda p: by_cv2(p, DEEP[..., [2, 1, 0, 3]]), NEAREST),
}


@pytest.mark.parametrize("name", FORMATS)
def test_photographs_of_every_format(name: str, tmp_path: Path) -> None:
    write, expected = FORMATS[name]
    write(tmp_path / "a.png")
    assert np.array_equal(photograph_pixels(tmp_path / "a.png"), expected)


def test_photographs_of_mixed_formats_train(tmp_path: Path) -> None:
    def save(path: Path, index: int) -> None:
        pixels = np.asarray(Image.open(path)).astype(np.uint16) * 257
        if index % 2:
            by_cv2(path, pixels[..., ::-1])

    def edit(document: dict, root: Path) -> None:
        for index, frame in enumerate(document["frames"]):
            save(root / frame["file_path"], index)

    assert colour_error(manager_of(write_transforms(tmp_path / "set", edit))) < RIGHT


STRANGERS = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC photograph: convert it to PNG or JPEG"),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0", "is a video: pass a folder of images"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of git LFS, not the image: run git lfs"),
    "page": (b"<html>404</html>", "is a page of HTML or XML"),
    "nothing": (b"", "is damaged and cannot be decoded (it has 0 bytes)"),
    "noise": (b"abc", "is damaged and cannot be decoded"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_files_that_are_no_pictures(name: str, tmp_path: Path) -> None:
    content, line = STRANGERS[name]
    root = write_transforms(tmp_path / "set", lambda d, r: (r / "images/a2.png").write_bytes(content))
    assert f"a2.png' {line}" in refusal(root)


def test_a_converted_photograph_is_found_by_its_old_name(tmp_path: Path) -> None:
    def edit(document: dict, root: Path) -> None:
        for index, frame in enumerate(document["frames"]):
            frame["file_path"] = f"images/a{index}.HEIC"

    assert colour_error(manager_of(write_transforms(tmp_path / "set", edit))) < RIGHT


def test_pictures_without_a_white(tmp_path: Path) -> None:
    deep = photographs(lambda p: Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 16))
    assert "values up to 3" in (line := refusal(write_transforms(tmp_path / "dark", deep)))
    assert "scale them so that white is 65535" in line

    def edit(document: dict, root: Path) -> None:
        for frame in document["frames"]:
            file = root / frame["file_path"]
            Image.open(file).convert("CMYK").save(file.with_suffix(".tif"))
            file.unlink()

    root = write_transforms(tmp_path / "ink", edit)
    assert "a0.tif' has the pixel format CMYK" in refusal(root)


USED = np.zeros((12, 16), bool)
USED[5:] = True
WHITE = np.uint8(255) * USED
MASKS = {
    "1": Image.fromarray(USED),
    "L": Image.fromarray(WHITE),
    "0 and 1": Image.fromarray(USED.astype(np.uint8)),
    "P": Image.fromarray(WHITE).convert("P"),
    "RGB": Image.fromarray(WHITE).convert("RGB"),
    "RGBA": Image.fromarray(WHITE).convert("RGBA"),
    "alpha": Image.fromarray(np.dstack([grey(np.full_like(WHITE, 255)), WHITE])),
    "16 bits": Image.fromarray(WHITE.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_every_format(name: str, tmp_path: Path) -> None:
    MASKS[name].save(tmp_path / "m.png")
    assert np.array_equal(mask_pixels(tmp_path / "m.png"), USED)


def test_masks_of_jpeg_have_their_border(tmp_path: Path) -> None:
    """JPEG rings round black and white: its noise is no mask."""
    Image.fromarray(WHITE).convert("RGB").save(tmp_path / "m.jpg", quality=50)
    stored = np.asarray(Image.open(tmp_path / "m.jpg").convert("L"))
    assert np.any((stored > 0) & ~USED)
    assert np.array_equal(mask_pixels(tmp_path / "m.jpg"), USED)
    Image.fromarray(COLOURS).save(tmp_path / "c.png")
    with pytest.raises(DataError, match="has colours: white"):
        mask_pixels(tmp_path / "c.png")


def test_pixels_are_drawn_where_a_mask_of_colours_is_white(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "set", masks(lambda i: MASKS["RGBA"]))
    _, batch = manager_of(root).next_train(0)
    assert int(batch["indices"][:, 1].min()) == 5
