"""Checks of a data set before it is used, so that a user reads one line about the data instead of a traceback.

`check_blender_directory` looks at the files and runs before nerfstudio's parser, which fails with raw errors on them;
`check_dataparser_outputs` looks at what any parser of nerfstudio returned. Both raise `DataError`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from eugen_nerf.core.errors import DataError

if TYPE_CHECKING:
    from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

ImageCheck = Literal["all", "first", "none"]
"""How many images of a split are looked at: in inference mode nerfstudio's Blender parser still reads the first."""

RIGID_TOLERANCE = 1e-3
IMAGE_MODES = ("L", "RGB", "RGBA")


@dataclass(frozen=True)
class BlenderSummary:
    """What a checked Blender-format data set holds.

    Arguments:
        counts: number of frames of each split.
        size: (width, height) in pixels of its images; None where no image was looked at.
        angle_x: horizontal field of view in radians, of the first split.
    """

    counts: Mapping[str, int]
    size: tuple[int, int] | None
    angle_x: float


def check_directory(path: Path) -> None:
    """Raises `DataError` unless `path` is a directory."""
    if not path.exists():
        raise DataError(
            f"data set '{path}' does not exist: pass its directory with --data, or make one with eugen-data"
        )
    if not path.is_dir():
        raise DataError(f"data set '{path}' is a file: pass the directory that holds the data set with --data")


def check_blender_directory(
    path: Path,
    splits: Sequence[str] = ("train", "val", "test"),
    *,
    images: ImageCheck = "all",
    times: bool = False,
) -> BlenderSummary:
    """Checks a Blender-format data set: transforms files, images, poses, field of view.

    Arguments:
        path: directory of the data set.
        splits: those that will be read.
        images: how many images of each split must be there, decode, and have one size.
        times: frames need a `time` in [0, 1] too, as the D-NeRF format has it.

    Returns what it found. Raises `DataError` about the first thing that is wrong.
    """
    check_directory(path)
    counts: dict[str, int] = {}
    size: tuple[int, int] | None = None
    angle_x = float("nan")
    for split in splits:
        name = path / f"transforms_{split}.json"
        document = _read_transforms(name)
        frames = document["frames"]
        _check_angle(document["camera_angle_x"], name)
        if split == splits[0]:
            angle_x = float(document["camera_angle_x"])
        files = []
        for index, frame in enumerate(frames):
            where = f"frame {index} of '{name}'"
            _check_frame(frame, where, times=times)
            # The parser's own rule for the file's name.
            files.append(path / (frame["file_path"].replace("./", "") + ".png"))
        chosen = {"all": files, "first": files[:1], "none": []}[images]
        size = check_images(chosen, split=split, size=size) or size
        counts[split] = len(frames)
    return BlenderSummary(counts, size, angle_x)


def has_times(path: Path, split: str) -> bool:
    """Whether a split's first frame has a `time`, as D-NeRF's format has it; False where that cannot be read."""
    try:
        document = json.loads((path / f"transforms_{split}.json").read_text(encoding="utf-8"))
        return "time" in document["frames"][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False


def check_dataparser_outputs(outputs: DataparserOutputs, *, split: str, images: ImageCheck = "all") -> None:
    """Checks what any nerfstudio data parser returned: images, masks, poses [N, 3, 4] and focal lengths [N, 1].

    Arguments:
        outputs: for one split.
        split: its name, for the message.
        images: how many images must be there and decode; they may differ in size.

    Raises `DataError` about the first thing that is wrong.
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
    check_images(names[:count], split=split)
    if outputs.mask_filenames is not None:
        masks = [Path(name) for name in outputs.mask_filenames[:count]]
        _check_present(masks, split=split, what="mask")


def check_images(
    files: Sequence[Path], *, split: str, size: tuple[int, int] | Literal[False] | None = False
) -> tuple[int, int] | None:
    """Checks that image files are there and decode completely to 8-bit grey, RGB or RGBA.

    Arguments:
        files: image files.
        split: name of the split, for the message.
        size: (width, height) in pixels that all must have, None for that of the first file, False for any.

    Returns (width, height) of the first file, None without files. Raises `DataError` naming the first bad file.
    """
    _check_present(files, split=split, what="image")
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_decode, files))
    expected = (found[0] if found else None) if size is None else size
    if expected:
        for file, actual in zip(files, found, strict=True):
            if actual != expected:
                raise DataError(
                    f"image '{file}' of the {split} split is {actual[0]}x{actual[1]} pixels where the data set's first "
                    f"is {expected[0]}x{expected[1]}: one size is allowed in this format; resize or remove it"
                )
    return found[0] if found else None


def check_pose(pose: ArrayLike, where: str) -> None:
    """Checks a camera-to-world matrix: 3x4 or 4x4, finite, rotation part orthonormal within 1e-3 and right-handed.

    Arguments:
        pose: the matrix.
        where: names the frame in the message.

    Raises `DataError` for any other matrix; scaled rotations are refused too.
    """
    try:
        matrix = np.asarray(pose, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        given = f"is of shape {list(matrix.shape)}" if matrix.size else "is no matrix of numbers"
        raise DataError(f"the camera pose in {where} {given}: it must be 4x4 numbers; correct or remove the frame")
    if not np.isfinite(matrix).all():
        raise DataError(
            f"the camera pose in {where} has NaN or infinite entries: all must be finite; correct or remove the frame"
        )
    if len(matrix) == 4 and not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0), rtol=0.0, atol=RIGID_TOLERANCE):
        raise DataError(
            f"the camera pose in {where} has the last row {matrix[3].tolist()}: it must be [0, 0, 0, 1]; "
            "correct or remove the frame"
        )
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    determinant = float(np.linalg.det(rotation))
    if error > RIGID_TOLERANCE or determinant < 0.0:
        raise DataError(
            f"the camera pose in {where} is not rigid (|R^T R - I| up to {error:.2g}, determinant {determinant:.3g}): "
            f"a rotation without scale or mirroring (within {RIGID_TOLERANCE:g}) is needed; correct or remove the frame"
        )


def _read_transforms(name: Path) -> dict[str, Any]:
    """The document of a transforms file with its two keys, `frames` a non-empty list."""
    again = "write it again, or pass another data set with --data"
    try:
        document = json.loads(name.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"'{name}' is missing: a Blender-format data set has one transforms file a split; "
            "check the directory given with --data"
        ) from None
    except OSError as error:
        raise DataError(f"'{name}' cannot be read ({error.strerror}): check the file and its permissions") from error
    except ValueError as error:
        raise DataError(f"'{name}' is not valid JSON ({error}): {again}") from error
    keys = ("camera_angle_x", "frames")
    missing = [key for key in keys if not isinstance(document, dict) or key not in document]
    if missing:
        raise DataError(f"'{name}' lacks {_quoted(missing)}: it must be an object with {_quoted(keys)}; {again}")
    if not isinstance(document["frames"], list):
        raise DataError(f"'frames' in '{name}' is no list: it must be a list with one entry an image; {again}")
    if not document["frames"]:
        raise DataError(f"'{name}' has no frames, its split is empty: at least one is needed; {again}")
    return document


def _check_angle(angle: Any, name: Path) -> None:
    """Raises unless the field of view is a number between 0 and pi."""
    if isinstance(angle, bool) or not isinstance(angle, int | float) or not 0.0 < angle < np.pi:
        raise DataError(
            f"'camera_angle_x' in '{name}' is {angle!r}: a field of view between 0 and 3.1416 radians (both excluded) "
            "is allowed; correct the file"
        )


def _check_frame(frame: Any, where: str, *, times: bool) -> None:
    """Raises unless a frame has a file name, a rigid 4x4 pose and, if asked for, a time in [0, 1]."""
    keys = ["file_path", "transform_matrix", *(["time"] if times else [])]
    missing = [key for key in keys if not isinstance(frame, dict) or key not in frame]
    if missing:
        raise DataError(f"{where} lacks {_quoted(missing)}: each frame needs {_quoted(keys)}; correct or remove it")
    if not isinstance(frame["file_path"], str):
        raise DataError(f"'file_path' of {where} is {frame['file_path']!r}: it must be text; correct or remove it")
    check_pose(frame["transform_matrix"], where)
    if times:
        time = frame["time"]
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= 1:
            raise DataError(
                f"'time' of {where} is {time!r}: it must be a number from 0 to 1; scale all splits' times alike, or "
                "correct or remove the frame"
            )


def _check_present(files: Sequence[Path], *, split: str, what: str) -> None:
    """Raises where files are missing, with the first one's name and their number."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} {what} files of the {split} split are missing, the first is "
            f"'{missing[0]}': copy them there, or remove their frames"
        )


def _decode(file: Path) -> tuple[int, int]:
    """Decodes an image completely; returns (width, height) in pixels."""
    try:
        with Image.open(file) as image:
            image.verify()  # checksums, which decoding a PNG ignores; the file must be opened again afterwards
        with Image.open(file) as image:
            image.load()
            mode, size = image.mode, image.size
    except Exception as error:  # a damaged file raises whatever its decoder meets: OSError, SyntaxError, zlib.error ...
        raise DataError(
            f"image '{file}' is damaged and cannot be decoded ({error}): copy it again, or remove its frame"
        ) from error
    if mode not in IMAGE_MODES:
        raise DataError(
            f"image '{file}' has the pixel format {mode}: 8-bit {', '.join(IMAGE_MODES)} are allowed; convert it"
        )
    return size


def _quoted(names: Iterable[str]) -> str:
    """'a' and 'b'."""
    quote: Callable[[str], str] = "'{}'".format
    return " and ".join(map(quote, names))
