"""Detects the format of a directory, and the nerfstudio data parser for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.dnerf_dataparser import DNeRFDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE

from eugen_nerf.core.errors import DataError
from eugen_nerf.data.images.colmap import find_model, read_colmap
from eugen_nerf.data.images.posed import SUBSTITUTE_SPLITS, ImageSet
from eugen_nerf.data.images.transforms import SPLITS, read_blender, read_transforms
from eugen_nerf.data.poses import check_directory

SUPPORTED_PARSERS = (
    BlenderDataParserConfig,
    ColmapDataParserConfig,
    DNeRFDataParserConfig,
    InstantNGPDataParserConfig,
    NerfstudioDataParserConfig,
)
"""Configs of the nerfstudio data parsers whose formats this package reads."""
_MARKER_FILES = {
    "transforms.json": "nerfstudio-data",
    "transforms_train.json": "blender-data",
    "meta_data.json": "sdfstudio-data",
    "nerfosr.json": "nerfosr-data",
    "dataset.json": "dycheck-data",
}
"""Files that identify a format, and nerfstudio's data parser for it."""


def read_image_set(config: DataParserConfig, split: str) -> ImageSet:
    """Reads the data set of a config in `SUPPORTED_PARSERS`, with at least the images of a split; raises `DataError`.

    A parser for JSON or COLMAP reads the other formats too if its own is absent, so that a user need not know which
    parser fits the directory.
    """
    path = Path(config.data)
    if isinstance(config, DNeRFDataParserConfig | BlenderDataParserConfig):
        check_directory(path)
        return _read_split(path, config, split)
    ordered = not isinstance(config, InstantNGPDataParserConfig)
    if path.suffix == ".json" and path.is_file():
        return read_transforms(path, ordered=ordered)
    check_directory(path)
    file = path / "transforms.json"
    readers: dict[bool, Callable[[], ImageSet | None]] = {
        True: lambda: _read_reconstruction(path, config),
        False: lambda: read_transforms(file, ordered=ordered) if file.exists() else None,
    }
    first = isinstance(config, ColmapDataParserConfig)
    found = readers[first]() or readers[not first]()
    if found is not None:
        return found
    if (path / "transforms_train.json").exists():
        return read_blender(path, [name for name in SPLITS if (path / f"transforms_{name}.json").exists()])
    raise _wrong_format(path, config)


def _read_split(path: Path, config: DataParserConfig, split: str) -> ImageSet:
    """One JSON file of several; validation and test substitute for each other."""
    if not list(path.glob("transforms_*.json")):
        raise _wrong_format(path, config)
    others = (split, SUBSTITUTE_SPLITS.get(split, split))
    name = next((name for name in others if (path / f"transforms_{name}.json").exists()), split)
    return read_blender(path, [name], times=isinstance(config, DNeRFDataParserConfig))


def _read_reconstruction(path: Path, config: DataParserConfig) -> ImageSet | None:
    """The COLMAP reconstruction in a directory; None if there is none."""
    settings = config if isinstance(config, ColmapDataParserConfig) else ColmapDataParserConfig()
    model = find_model(path, settings.colmap_path)
    if model is None:
        return None
    others = [p.name for p in sorted(model.parent.iterdir()) if p.is_dir() and p.name.isdigit() and p != model]
    if model.name.isdigit() and others:
        CONSOLE.print(
            f"'{model}' is read; COLMAP found further parts ({', '.join(others)}) that it could not join", markup=False
        )
    return read_colmap(
        path,
        model,
        images=settings.images_path,
        masks=settings.masks_path,
        upright=settings.assume_colmap_world_coordinate_convention,
    )


def _wrong_format(path: Path, config: DataParserConfig) -> DataError:
    """The error for a directory without the formats of a parser."""
    other = next(
        (f"'{name}', the format of {parser}" for name, parser in _MARKER_FILES.items() if (path / name).exists()), ""
    )
    moving = isinstance(config, DNeRFDataParserConfig)
    if not other and find_model(path) is not None:
        other = "a COLMAP reconstruction, the format of colmap"
    if other and not moving:  # only this parser reads times
        parser = other.rpartition(" ")[2]
        return DataError(
            f"'{path}' holds {other}, which this data parser does not read: write {parser} --data PATH at the end of "
            "the command"
        )
    names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
    there = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"
    needed = (
        "transforms_train.json (D-NeRF's format, with a time of each frame)"
        if moving
        else "transforms_train.json (Blender's format)"
        if isinstance(config, BlenderDataParserConfig)
        else "transforms.json (nerfstudio's), transforms_train.json (Blender's) or sparse/0 (COLMAP's)"
    )
    advice = (
        ""
        if moving  # pose estimation gives no times
        else "; for photographs alone, eugen-data photos PHOTOS --output DIR finds them (or, where COLMAP and ffmpeg "
        "are installed, ns-process-data images --data PHOTOS --output-dir DIR)"
    )
    return DataError(f"'{path}' has no camera poses: it needs {needed} and holds {there}{advice}")
