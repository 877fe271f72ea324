"""COLMAP reconstructions, in COLMAP's own layout or in that of ns-process-data."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.file_names import ImageFinder
from eugen_nerf.data.images.posed import ImageSet, PosedImage, named_images
from eugen_nerf.data.lenses.lens_reading import read_lens
from eugen_nerf.data.poses import check_pose

MODEL_FOLDERS = ("colmap/sparse/0", "sparse/0", "sparse", "colmap/sparse", "")
"""Folders in which a reconstruction is searched, relative to the data set."""
SPLIT_LISTS = {
    "train": ("train_list.txt",),
    "val": ("val_list.txt", "validation_list.txt"),
    "test": ("test_list.txt",),
}
"""Files that list the images of a split."""
_PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fx fy cx cy omega",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
}
"""Parameters of COLMAP's camera models, in COLMAP's order."""


_WRONG_CONTENT = (ValueError, TypeError, LookupError, ArithmeticError)
"""What readers raise on lines and numbers that are not what they should be."""


def find_model(root: Path, preferred: Path | None = None) -> Path | None:
    """The directory of a reconstruction in a data set; None if there is none.

    Arguments:
        root: the data set's directory.
        preferred: tried first, relative to `root`.
    """
    for name in [*([] if preferred is None else [str(preferred)]), *MODEL_FOLDERS]:
        folder = root / name
        if is_model(folder):
            return folder
    parts = sorted((root / "sparse").glob("[0-9]*"))
    return next((folder for folder in parts if is_model(folder)), None)


def is_model(folder: Path) -> bool:
    """Whether a directory holds a reconstruction."""
    return any(all((folder / f"{part}.{end}").is_file() for part in ("cameras", "images")) for end in ("bin", "txt"))


def read_colmap(
    root: Path,
    model: Path,
    *,
    images: Path = Path("images"),
    masks: Path | None = None,
    upright: bool = True,
) -> ImageSet:
    """A reconstruction with its photographs.

    Arguments:
        root: the data set's directory.
        model: the reconstruction's, as `find_model` gives it.
        images, masks: folders of files, relative to `root`.
        upright: rotate COLMAP's world, whose y points down, so that z points up, as nerfstudio does.

    Raises `DataError` for the first unusable entry.
    """
    cameras, views = _read(model)
    if not views:
        raise DataError(f"the reconstruction in '{model}' has no image: match the photographs again")
    if not (root / images).is_dir():
        others = [p for p in (root, *root.iterdir()) if (p / min(view.name for view in views.values())).is_file()]
        images = others[0].relative_to(root) if len(others) == 1 else images
    if not (root / images).is_dir():
        raise DataError(
            f"'{root / images}' is missing: it must hold the photographs that '{model}' names; copy them there, or "
            "name their folder with --images-path (after the data parser's name, colmap)"
        )
    finder = ImageFinder(root)
    applied = np.eye(4)[[0, 2, 1]] * [[1.0], [1.0], [-1.0]] if upright else None
    posed = []
    for number in sorted(views):
        view = views[number]
        where = f"image {number} ('{view.name}') of '{model}'"
        if view.camera_id not in cameras:
            raise DataError(f"{where} has the camera {view.camera_id}, which is not among them: reconstruct again")
        camera = cameras[view.camera_id]
        pose = _pose(view, where)
        if applied is not None:
            pose = np.concatenate([applied @ pose, [[0.0, 0.0, 0.0, 1.0]]])
        check_pose(pose, where)
        posed.append(
            PosedImage(
                finder.find(str(images / view.name), "", where),
                pose,
                read_lens([(f"camera {view.camera_id} of '{model}'", _entries(camera, model))]),
                where,
                None if masks is None else _mask_file(finder, masks / view.name, where),
            )
        )
    splits = _lists(finder, root, images, posed)
    return ImageSet(model, root, tuple(posed), splits, applied=applied, images_folder=images)


def _lists(finder: ImageFinder, root: Path, images: Path, posed: Sequence[PosedImage]) -> dict[str, list[int]] | None:
    """Splits that files such as train_list.txt name; None without any."""
    splits = {}
    for split, names in SPLIT_LISTS.items():
        file = next((root / name for name in names if (root / name).is_file()), None)
        if file is None:
            continue
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        wanted = {finder.find(str(images / line), "", f"'{file}'") for line in lines}
        splits[split] = named_images(posed, wanted, f"'{file}'")
    return splits or None


def _read(model: Path) -> tuple[dict[int, Any], dict[int, Any]]:
    """Cameras and images of a reconstruction by their numbers."""
    from nerfstudio.data.utils import colmap_parsing_utils as parsing

    text = (model / "cameras.txt").is_file()

    def read(reader: Callable[[Path], dict[int, Any]], file: Path) -> dict[int, Any]:
        try:
            return reader(file)
        except (OSError, MemoryError, AssertionError, struct.error, *_WRONG_CONTENT) as error:
            raise DataError(
                f"'{file}' cannot be read as COLMAP's {file.stem} ({type(error).__name__}: {error}): write it again "
                "(colmap model_converter)"
            ) from error

    if text:
        return read(_text_cameras, model / "cameras.txt"), read(_text_images, model / "images.txt")
    cameras = read(parsing.read_cameras_binary, model / "cameras.bin")
    return cameras, read(parsing.read_images_binary, model / "images.bin")


def _text_cameras(file: Path) -> dict[int, Any]:
    """Cameras of a text file: number, model, width, height, parameters."""
    from nerfstudio.data.utils.colmap_parsing_utils import Camera

    found = {}
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        if line.strip() and not line.startswith("#"):
            number, name, width, height, *numbers = line.split()
            parameters = np.array([float(value) for value in numbers])
            found[int(number)] = Camera(int(number), name, int(width), int(height), parameters)
    return found


def _text_images(file: Path) -> dict[int, Any]:
    """Images of a text file, two lines each: number, quaternion, translation, camera, name (which may have spaces)."""
    from nerfstudio.data.utils.colmap_parsing_utils import Image

    found = {}
    lines = iter(file.read_text(encoding="utf-8-sig").splitlines())
    for line in lines:
        if line.strip() and not line.startswith("#"):
            number, *numbers, camera, name = line.strip().split(maxsplit=9)
            pose = np.array([float(value) for value in numbers])
            if len(pose) != 7:
                raise ValueError(f"line {line[:60]!r} has {len(pose)} numbers of a pose, not 7")
            found[int(number)] = Image(int(number), pose[:4], pose[4:], int(camera), name, np.empty(0), np.empty(0))
            next(lines, None)  # the line of points, which may be empty
    return found


def _pose(view: Any, where: str) -> np.ndarray:
    """Camera-to-world [4, 4] in OpenGL's convention, bit for bit as nerfstudio computes it."""
    from nerfstudio.data.utils.colmap_parsing_utils import qvec2rotmat

    if not abs(float(np.linalg.norm(view.qvec)) - 1.0) < 1e-3 or not np.isfinite(view.tvec).all():
        raise DataError(
            f"the camera pose in {where} has the quaternion {np.asarray(view.qvec).tolist()} and the translation "
            f"{np.asarray(view.tvec).tolist()}: a length of 1 and finite numbers are needed; reconstruct again"
        )

    world_to_camera = np.eye(4)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = qvec2rotmat(view.qvec), view.tvec
    pose = np.linalg.inv(world_to_camera)
    pose[:3, 1:3] *= -1
    return pose


def _entries(camera: Any, model: Path) -> dict[str, Any]:
    """A camera with the keys of transforms.json."""
    names = _PARAMETERS.get(camera.model, "").split()
    if len(names) != len(camera.params):
        raise DataError(
            f"camera {camera.id} of '{model}' is a {camera.model} with {len(camera.params)} parameters: "
            f"{', '.join(_PARAMETERS)} are read; undistort the images (colmap image_undistorter)"
        )
    return {
        "camera_model": camera.model,
        "w": camera.width,
        "h": camera.height,
        **{
            name: value
            for given, value in zip(names, camera.params.tolist(), strict=True)
            for name in (("fx", "fy") if given == "f" else (given,))
        },
    }


def _mask_file(finder: ImageFinder, name: Path, where: str) -> Path:
    """The mask of a photograph: COLMAP appends .png to the name, nerfstudio replaces the extension."""
    appended = finder.root / name.with_name(name.name + ".png")
    return appended if appended.is_file() else finder.find(str(name.with_suffix(".png")), "", where)
