"""Writes a data set in the Blender format of the NeRF paper, completely or not at all.

Layout: `transforms_{split}.json` with `camera_angle_x` (radians) and frames `{file_path, transform_matrix}`, images at
`file_path` + ".png" below the data set's directory. In D-NeRF's format frames also have a `time`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eugen_nerf.core.atomic_paths import atomic_path
from eugen_nerf.core.checks.places import check_place
from eugen_nerf.core.errors import DataError
from eugen_nerf.data.synthetic.pinhole_cameras import Camera


def write_image(path: Path, rgba: NDArray[np.uint8]) -> None:
    """Writes an image [H, W, 4] uint8 as PNG; raises OSError where that fails."""
    Image.fromarray(rgba).save(path, format="PNG")


def write_split(
    directory: Path,
    split: str,
    views: Iterable[tuple[Camera, NDArray[np.uint8]]],
    times: Sequence[float] | None = None,
) -> None:
    """Writes one split of a Blender-format data set, or of D-NeRF's, which is that with times.

    Arguments:
        directory: existing directory of the data set.
        split: "train", "val" or "test": the image folder and the name of the transforms file.
        views: cameras with their images [H, W, 4] uint8; at least one, all with the same horizontal field of view. They
            are consumed one at a time, so a generator keeps one image in memory.
        times: of the views, in [0, 1].

    Raises OSError where a file cannot be written.
    """
    (directory / split).mkdir()
    frames = []
    angle_x = 0.0
    for index, (camera, rgba) in enumerate(views):
        name = f"r_{index:03d}"
        write_image(directory / split / f"{name}.png", rgba)
        frame = {"file_path": f"./{split}/{name}", "transform_matrix": camera.pose.tolist()}
        frames.append(frame if times is None else {**frame, "time": times[index]})
        angle_x = camera.angle_x
    document = {"camera_angle_x": angle_x, "frames": frames}
    (directory / f"transforms_{split}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@contextmanager
def complete_directory(
    output: Path, *, overwrite: bool = False, marker: str = "transforms_train.json"
) -> Iterator[Path]:
    """A temporary directory beside `output`, renamed to it when the block succeeds, else removed.

    The name itself always refers to the old directory or to the complete new one (`core/atomic_paths.py`).

    Arguments:
        output: directory to create, with its parents.
        overwrite: replace an existing data set. A directory without the marker is never replaced.
        marker: name of a file that identifies such a data set.

    Raises `DataError` if `output` is taken, or if anything in the block raises OSError (disk full, no permission).
    """
    check_place(output, "folder")
    final = output.resolve()
    _refuse_taken(output, final, overwrite=overwrite, marker=marker)
    try:
        with atomic_path(final, replace=True) as partial:
            partial.mkdir()
            yield partial
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"could not write the data set '{output}': {reason}; nothing half-written was left: "
            "free some space, or choose another --output"
        ) from error


def _refuse_taken(output: Path, final: Path, *, overwrite: bool, marker: str) -> None:
    """Raises `DataError` if the name is taken by something that must not be replaced, or only with `overwrite`."""
    try:
        if not final.exists():
            return
        entries = os.listdir(final)  # noqa: PTH208
    except OSError as error:
        raise DataError(f"cannot access '{output}': {error.strerror}; choose another --output") from error
    if not entries:
        return
    if not overwrite:
        raise DataError(
            f"'{output}' exists and is not empty: choose another --output, or pass --overwrite to replace it"
        )
    if marker not in entries:
        raise DataError(
            f"'{output}' exists and is no data set (it has no {marker}), so --overwrite does not replace it: "
            "choose another --output, or empty it yourself"
        )
