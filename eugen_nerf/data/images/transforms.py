"""Data sets in JSON: transforms.json of nerfstudio and instant-ngp, and one file per split of Blender and D-NeRF."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eugen_nerf.core.checks.names import shown
from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.file_names import ImageFinder
from eugen_nerf.data.images.image_files import image_size
from eugen_nerf.data.images.posed import ImageSet, PosedImage, named_images
from eugen_nerf.data.lenses.lens_entries import has_focal
from eugen_nerf.data.lenses.lens_reading import read_lens
from eugen_nerf.data.poses import check_pose

SPLITS = ("train", "val", "test")
ORIENTATIONS = ("pca", "up", "vertical", "none")
_AGAIN = "write it again, or pass another data set with --data"


def read_transforms(path: Path, *, ordered: bool = True) -> ImageSet:
    """A data set whose single JSON file lists all frames, and optionally their splits.

    Arguments:
        path: the file.
        ordered: sort images by their files, as nerfstudio does before it splits them.

    Raises `DataError` for the first unusable entry.
    """
    document = read_document(path)
    frames = _Frames(path, document, path.parent)
    images = frames.read()
    if ordered:
        images = tuple(sorted(images, key=lambda image: image.path))
    splits = None
    if any(f"{split}_filenames" in document for split in SPLITS):
        splits = {
            split: _named(frames, images, document[f"{split}_filenames"], f"'{split}_filenames' of '{path}'")
            for split in SPLITS
            if f"{split}_filenames" in document
        }
    applied = document.get("applied_transform")
    if applied is None and (path.parent / "colmap/sparse/0").exists():
        applied = [
            [0, 1, 0, 0],
            [1, 0, 0, 0],
            [0, 0, -1, 0],
        ]  # applied by versions of ns-process-data that did not write it
    try:
        box = float(document.get("aabb_scale", 1.0))
        crop = document.get("fisheye_crop_radius")
        radius = None if crop is None else float(crop)
        transform = None if applied is None else np.asarray(applied, dtype=np.float64)[:3].reshape(3, 4)
        scale = float(document.get("applied_scale", 1.0))
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"'applied_transform' of '{path}' must be 3x4 numbers, 'applied_scale', 'aabb_scale' and "
            f"'fisheye_crop_radius' one each ({error}); {_AGAIN}"
        ) from error
    if not 0.0 < scale < np.inf or not np.isfinite([0.0] if transform is None else transform).all():
        raise DataError(
            f"'applied_scale' of '{path}' must be positive and 'applied_transform' finite, not {scale:g} and "
            f"{applied}; {_AGAIN}"
        )
    orientation = document.get("orientation_override")
    if orientation not in (None, *ORIENTATIONS):
        raise DataError(
            f"'orientation_override' of '{path}' is {shown(orientation)}: "
            f"{', '.join(ORIENTATIONS)} are allowed; correct it"
        )
    return ImageSet(path, path.parent, images, splits, transform, scale, orientation, box=box, crop_radius=radius)


def read_blender(root: Path, splits: Sequence[str] = SPLITS, *, times: bool = False) -> ImageSet:
    """A data set with one JSON file per split.

    Arguments:
        root: its directory.
        splits: names of the splits to read.
        times: whether each frame needs a `time` in [0, 1], as in the D-NeRF format.

    Raises `DataError` for the first unusable entry.
    """
    images: list[PosedImage] = []
    found: dict[str, list[int]] = {}
    for split in splits:
        path = root / f"transforms_{split}.json"
        own = _Frames(path, read_document(path), root, suffix=".png", times=times).read()
        found[split] = list(range(len(images), len(images) + len(own)))
        images += own
    return ImageSet(root, root, tuple(images), found, transparent=True)


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object with a list of frames, with or without a byte-order mark; raises `DataError`."""
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        document = json.loads(data.decode("utf-16" if wide else "utf-8-sig"))
    except FileNotFoundError:
        raise DataError(
            f"'{path}' is missing: a Blender-format data set has one transforms file a split; check the directory "
            "given with --data"
        ) from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}): check the file and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not valid JSON ({error}): {_AGAIN}") from error
    if not isinstance(document, dict) or "frames" not in document:
        raise DataError(f"'{path}' lacks 'frames': it must be an object with a list of frames; {_AGAIN}")
    if not isinstance(document["frames"], list):
        raise DataError(f"'frames' in '{path}' is no list: it must be a list with one entry an image; {_AGAIN}")
    if not document["frames"]:
        raise DataError(f"'{path}' has no frames, its split is empty: at least one is needed; {_AGAIN}")
    return document


class _Frames:
    """The frames of one JSON file.

    Arguments:
        path: the file.
        document: its content.
        root: directory to which its paths are relative.
        suffix: extension that the format appends to `file_path`.
        times: whether each frame needs a `time`.
    """

    def __init__(
        self, path: Path, document: Mapping[str, Any], root: Path, *, suffix: str = "", times: bool = False
    ) -> None:
        self.path, self.document, self.root, self.suffix, self.times = path, document, root, suffix, times
        self.finder = ImageFinder(root)
        self.files: list[Path] = []
        self.sizes: dict[Path, tuple[int, int]] = {}
        self._common_size: tuple[int, int] | None = None

    def read(self) -> tuple[PosedImage, ...]:
        """All frames, in the file's order; raises `DataError` for the first bad one."""
        top = {key: value for key, value in self.document.items() if key != "frames"}
        read_top = (f"'{self.path}'", top)
        where_of = [f"frame {index} of '{self.path}'" for index in range(len(self.document["frames"]))]
        for frame, where in zip(self.document["frames"], where_of, strict=True):
            self._check(frame, where)
            self.files.append(self.finder.find(frame["file_path"], self.suffix, where))
        images = []
        for frame, where, path in zip(self.document["frames"], where_of, self.files, strict=True):
            images.append(
                PosedImage(
                    path,
                    _square(frame["transform_matrix"]),
                    read_lens([read_top, (where, frame)], size=partial(self._size, path if has_focal(frame) else None)),
                    where,
                    self._mask(frame, where),
                    frame["time"] if self.times else None,
                )
            )
        return tuple(images)

    def _check(self, frame: Any, where: str) -> None:
        """Raises unless a frame has a file name, a rigid pose and, if wanted, a time in [0, 1]."""
        keys = ["file_path", "transform_matrix", *(["time"] if self.times else [])]
        missing = [key for key in keys if not isinstance(frame, dict) or key not in frame]
        if missing:
            names = " and ".join(map("'{}'".format, missing))
            needed = " and ".join(map("'{}'".format, keys))
            raise DataError(f"{where} lacks {names}: each frame needs {needed}; correct or remove it")
        if not isinstance(frame["file_path"], str) or not frame["file_path"].strip():
            raise DataError(
                f"'file_path' of {where} is {shown(frame['file_path'])}: it must be text; correct or remove it"
            )
        check_pose(_rows(frame["transform_matrix"]), where)
        if self.times:
            time = frame["time"]
            if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= 1:
                raise DataError(
                    f"'time' of {where} is {shown(time)}: it must be a number from 0 to 1; "
                    "scale all splits' times alike, "
                    "or correct or remove the frame"
                )

    def _size(self, own: Path | None) -> tuple[int, int]:
        """(width, height) of a frame whose entries do not state it.

        It is read from the frame's own file if the frame has its own focal length. Else it is the most frequent size of
        the first, middle and last existing file, because all frames share one lens.
        """
        if own is not None and own.is_file():
            return self._size_of(own)
        if self._common_size is None:
            there = [file for file in self.files if file.is_file()] or self.files[:1]
            some = (there[0], there[len(there) // 2], there[-1])
            self._common_size = Counter(map(self._size_of, some)).most_common(1)[0][0]
        return self._common_size

    def _size_of(self, path: Path) -> tuple[int, int]:
        if path not in self.sizes:
            self.sizes[path] = image_size(path)
        return self.sizes[path]

    def _mask(self, frame: Mapping[str, Any], where: str) -> Path | None:
        """The mask of a frame; None if it has none."""
        value = frame.get("mask_path")
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise DataError(f"'mask_path' of {where} is {shown(value)}: it must be text; correct or remove it")
        return self.finder.find(value, "", where)


def _square(pose: Any) -> np.ndarray:
    """A pose as 4x4, its last row added if the data set omits it."""
    matrix = np.asarray(_rows(pose), dtype=np.float64)
    return matrix if len(matrix) == 4 else np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])


def _rows(pose: Any) -> Any:
    """A pose of 12 or 16 numbers in one list by its rows; anything else as it is."""
    flat = isinstance(pose, list) and len(pose) in (12, 16) and not any(isinstance(value, list) for value in pose)
    return [pose[start : start + 4] for start in range(0, len(pose), 4)] if flat else pose


def _named(frames: _Frames, images: Sequence[PosedImage], names: Any, where: str) -> list[int]:
    """Indices of the images that a list of a split names."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where} is no list of file names: write it as the frames' 'file_path'")
    return named_images(images, {frames.finder.find(name, "", where) for name in names}, where)
