"""Checks of a data set before it is used, so that a mistake in the data is reported in one line.

`check_blender_directory` checks a Blender-format data set without nerfstudio. `check_dataparser_outputs` checks the
outputs of any data parser. Both raise `DataError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.colmap import find_model, read_colmap
from eugen_nerf.data.images.image_files import (
    ImageFacts,
    check_alpha,
    check_masks,
    check_present,
    check_sizes,
    decode_all,
)
from eugen_nerf.data.images.posed import ImageSet
from eugen_nerf.data.images.transforms import read_blender, read_transforms
from eugen_nerf.data.poses import check_directory, check_pose

if TYPE_CHECKING:
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

__all__ = [
    "ImageCheck",
    "check_blender_directory",
    "check_dataparser_outputs",
    "check_directory",
    "check_image_directory",
    "check_images",
    "check_pose",
    "has_times",
]

ImageCheck = Literal["all", "first", "none"]
"""How many images of a split are checked. In inference mode they may be absent."""


@dataclass(frozen=True)
class DataSummary:
    """Summary of a checked data set.

    Arguments:
        counts: number of frames by split; under "all" where the data set names no splits.
        size: (width, height) in pixels of the first split's images.
        angle_x: horizontal field of view of the first camera, as a pinhole, in radians.
    """

    counts: Mapping[str, int]
    size: tuple[int, int]
    angle_x: float


def check_blender_directory(
    path: Path,
    splits: Sequence[str] = ("train", "val", "test"),
    *,
    images: ImageCheck = "all",
    times: bool = False,
) -> DataSummary:
    """Checks a Blender-format data set: transforms files, images, poses, lenses.

    Arguments:
        path: directory of the data set.
        splits: names of the splits to check.
        images: how many images of each split must exist, decode and have the size of their camera.
        times: whether each frame needs a `time` in [0, 1], as in the D-NeRF format.

    Returns a summary. Raises `DataError` for the first mistake.
    """
    check_directory(path)
    data = read_blender(path, splits, times=times)
    assert data.splits is not None
    for split, indices in data.splits.items():
        chosen = [data.images[i] for i in indices][: {"all": None, "first": 1, "none": 0}[images]]
        check_files(
            [image.path for image in chosen], [(i.lens.width, i.lens.height) for i in chosen], None, split=split
        )
    return _summary(data, {split: len(indices) for split, indices in data.splits.items()})


def check_image_directory(path: Path) -> DataSummary:
    """Checks a data set in nerfstudio's or COLMAP's format, whose splits the data parser chooses.

    Arguments:
        path: directory of the data set.

    Returns a summary. Raises `DataError` for the first mistake.
    """
    check_directory(path)
    model = find_model(path)
    if (path / "transforms.json").exists():
        data = read_transforms(path / "transforms.json")
    elif model is not None:
        data = read_colmap(path, model)
    else:
        raise DataError(
            f"'{path}' has no camera poses: transforms.json, transforms_train.json or sparse/0 is needed; photographs "
            "without poses become a data set by `eugen-data photos PHOTOS --output DIR`"
        )
    masks = [image.mask for image in data.images if image.mask is not None]
    if masks and len(masks) < len(data.images):
        raise DataError(
            f"{len(data.images) - len(masks)} images of '{path}' have no mask: give one to each, or to none"
        )
    sizes = [(image.lens.width, image.lens.height) for image in data.images]
    check_files([image.path for image in data.images], sizes, masks or None, split="whole")
    return _summary(data, {"all": len(data.images)})


def _summary(data: ImageSet, counts: Mapping[str, int]) -> DataSummary:
    lens = data.images[0].lens
    return DataSummary(counts, (lens.width, lens.height), 2.0 * math.atan(0.5 * lens.width / lens.fx))


def has_times(path: Path, split: str) -> bool:
    """Whether a split's first frame has a `time`, as in the D-NeRF format; False for an unreadable file."""
    try:
        document = json.loads((path / f"transforms_{split}.json").read_text(encoding="utf-8-sig"))
        return "time" in document["frames"][0]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def check_dataparser_outputs(outputs: DataparserOutputs, *, split: str, images: ImageCheck = "all") -> list[ImageFacts]:
    """Checks the outputs of any data parser: poses [N, 3, 4], focal lengths [N, 1], files against their cameras.

    Arguments:
        outputs: of one split.
        split: its name, for error messages.
        images: how many images (and masks) must exist, decode and have their camera's size.

    Returns the facts of the decoded images. Raises `DataError` for the first mistake.
    """
    names = [Path(name) for name in outputs.image_filenames]
    if not names:
        raise DataError(f"the {split} split is empty: it needs at least one image; check the split in the data set")
    poses = outputs.cameras.camera_to_worlds.detach().cpu().double().numpy()
    if poses.ndim != 3 or poses.shape[0] != len(names):
        raise DataError(
            f"the {split} split has {len(names)} images but camera poses of shape {list(poses.shape)}: "
            "each image needs one camera; check the data set's list of frames"
        )
    for index, pose in enumerate(poses):
        check_pose(pose, f"frame {index} ('{names[index].name}') of the {split} split")
    for key in ("fx", "fy"):
        focal = getattr(outputs.cameras, key).detach().cpu().double().numpy().reshape(len(names), -1)
        bad = np.flatnonzero(~(np.isfinite(focal) & (focal > 0.0)).all(axis=-1))
        if len(bad):
            raise DataError(
                f"focal length {key} is {focal[bad[0], 0]:g} pixels in frame {bad[0]} ('{names[bad[0]].name}') of the "
                f"{split} split: it must be positive and finite; correct the camera in the data set"
            )
    count = {"all": len(names), "first": 1, "none": 0}[images]
    widths, heights = (getattr(outputs.cameras, key).reshape(-1).tolist() for key in ("width", "height"))
    masks = None if outputs.mask_filenames is None else [Path(name) for name in outputs.mask_filenames[:count]]
    return check_files(names[:count], list(zip(widths, heights, strict=True))[:count], masks, split=split)


def check_files(
    files: Sequence[Path], sizes: Sequence[tuple[int, int]], masks: Sequence[Path] | None, *, split: str
) -> list[ImageFacts]:
    """Checks images and masks of a split against their cameras.

    Arguments:
        files: image files.
        sizes: (width, height) in pixels of their cameras.
        masks: one per image, or None.
        split: its name, for error messages.

    Returns the facts of the decoded images. Raises `DataError` for the first mistake.
    """
    check_present(files, split=split, what="image")
    facts = decode_all(files)
    check_sizes(files, facts, sizes, split=split)
    check_alpha(files, facts, split=split)
    if masks is not None:
        check_masks(masks, sizes, split=split)
    return facts


def check_images(files: Sequence[Path], *, split: str) -> tuple[int, int] | None:
    """Checks that image files exist and decode completely.

    Arguments:
        files: image files.
        split: its name, for error messages.

    Returns (width, height) of the first file, None without files. Raises `DataError` naming the first bad file.
    """
    check_present(files, split=split, what="image")
    facts = decode_all(files)
    return facts[0].size if facts else None
