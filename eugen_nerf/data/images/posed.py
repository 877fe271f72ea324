"""The common form of all formats: images with poses and lenses, and their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.lenses.lens_reading import PhotographLens

Array = NDArray[np.float64]
SUBSTITUTE_SPLITS = {"val": "test", "test": "val"}
"""Splits that substitute for each other if a data set has only one of them: neither is trained on."""


@dataclass(frozen=True)
class PosedImage:
    """One photograph.

    Attributes:
        path: its file, which may be missing.
        pose: camera-to-world [4, 4], OpenGL convention (x right, y up, looking along -z).
        lens: for the image size that the data set states.
        where: description of its entry, for error messages.
        mask: file, white where pixels are used; None without masks.
        time: in [0, 1], for dynamic scenes.
    """

    path: Path
    pose: Array
    lens: PhotographLens
    where: str
    mask: Path | None = None
    time: float | None = None


@dataclass(frozen=True)
class ImageSet:
    """A data set as stored on disk.

    Attributes:
        source: the file or directory that describes it.
        root: directory to which its paths are relative.
        images: all of them; splits are indices into this order.
        splits: indices by split if the data set defines them; None leaves them to the data parser's settings.
        applied: transform [3, 4] that was applied to the cameras when the data set was written, None for none.
        applied_scale: scale that was applied then.
        orientation: method of orientation that replaces the parser's.
        transparent: whether alpha is composited on white unless the parser names another colour.
        crop_radius: radius in pixels of the used part of fisheye images; None for all.
        box: size of the scene in instant-ngp's units (`aabb_scale`).
        images_folder: folder of the photographs below `root`: downscaled copies lie beside it, with `_2`, `_4`, ...
    """

    source: Path
    root: Path
    images: tuple[PosedImage, ...]
    splits: Mapping[str, list[int]] | None = None
    applied: Array | None = None
    applied_scale: float = 1.0
    orientation: str | None = None
    transparent: bool = False
    box: float = 1.0
    crop_radius: float | None = None
    images_folder: Path = Path("images")

    def __post_init__(self) -> None:
        """Raises `DataError` if one photograph has two poses at one time."""
        first: dict[tuple[Path, float | None], PosedImage] = {}
        for image in self.images:
            other = first.setdefault((image.path, image.time), image)
            if other is not image and not np.allclose(other.pose, image.pose, rtol=1e-6, atol=1e-6):
                raise DataError(
                    f"'{image.path}' is the photograph of {other.where} and of {image.where}, with different poses: "
                    "remove the wrong one"
                )


def named_images(images: Sequence[PosedImage], wanted: Set[Path], where: str) -> list[int]:
    """Indices of the images of these files; raises `DataError`, naming the list `where`, for files of no image."""
    missing = wanted - {image.path for image in images}
    if missing:
        raise DataError(
            f"{where} names {len(missing)} images that have no camera, the first is '{min(missing)}': correct the list"
        )
    return [index for index, image in enumerate(images) if image.path in wanted]
