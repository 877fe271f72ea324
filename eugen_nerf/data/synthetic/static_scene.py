"""Generates a Blender-format data set of the demonstration scene, which nerfstudio's `blender-data` parser reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.ranges import SEED, Range, check_numbers
from eugen_nerf.data.synthetic.blender_format import complete_directory, write_split
from eugen_nerf.data.synthetic.pinhole_cameras import Camera, hemisphere_positions, look_at
from eugen_nerf.data.synthetic.ray_casting import Tracer, render_rgba
from eugen_nerf.data.synthetic.still_life import demo_scene

SPLITS = ("train", "val", "test")
CAMERA_RADIUS = 4.0
CAMERA_ANGLE_X = 0.6911112070083618  # radians, that of the NeRF paper's synthetic scenes


@dataclass(frozen=True)
class SceneConfig:
    """What to generate; these numbers determine every view.

    Raises `ConfigError` for a value out of its range.
    """

    resolution: Annotated[int | tuple[int, int], Range(1, 8192)] = 64
    """Image size in pixels: one number for square images or (width, height), each 1 to 8192."""
    num_train: Annotated[int, Range(1, 100_000)] = 60
    """Number of training views, at least 1."""
    num_val: Annotated[int, Range(1, 100_000)] = 4
    """Number of validation views, at least 1."""
    num_test: Annotated[int, Range(1, 100_000)] = 8
    """Number of test views, at least 1."""
    seed: Annotated[int, SEED] = 0
    """Non-negative seed for layout, colours, textures, light and cameras."""
    supersample: Annotated[int, Range(1, 16)] = 3
    """Rays per pixel and axis, 1 to 16: 3 averages 9 rays a pixel."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_numbers(self)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return (self.resolution, self.resolution) if isinstance(self.resolution, int) else self.resolution

    @property
    def counts(self) -> dict[str, int]:
        """Number of views of each split."""
        return dict(zip(SPLITS, (self.num_train, self.num_val, self.num_test), strict=True))


def scene_cameras(config: SceneConfig) -> dict[str, list[Camera]]:
    """The cameras of each split, on the upper half of a sphere with radius 4 around the origin, looking at it.

    Each split has its own random numbers, so its number of views does not affect the cameras of another.
    """
    width, height = config.size
    cameras = {}
    for index, (split, count) in enumerate(config.counts.items()):
        rng = np.random.default_rng(np.random.SeedSequence([config.seed, 1 + index]))
        positions = hemisphere_positions(rng, count, CAMERA_RADIUS)
        cameras[split] = [
            Camera(look_at(position, np.zeros(3)), width, height, CAMERA_ANGLE_X) for position in positions
        ]
    return cameras


def generate_scene(output: Path, config: SceneConfig | None = None, *, overwrite: bool = False) -> Path:
    """Renders the demonstration scene and writes it as a Blender-format data set; shows its progress on stderr.

    The same config gives the same bytes. The directory appears under its name when it is complete.

    Arguments:
        output: directory to make.
        config: what to generate, `SceneConfig()` by default.
        overwrite: replace a data set that is already there, once the new one is complete.

    Returns `output`. Raises `DataError` if `output` is taken or cannot be written.
    """
    from rich.console import Console
    from rich.progress import Progress

    config = config or SceneConfig()
    with complete_directory(output, overwrite=overwrite) as directory:
        tracer = Tracer(demo_scene(config.seed))
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("rendering", total=sum(config.counts.values()))

            def views(cameras: list[Camera]) -> Iterator[tuple[Camera, NDArray[np.uint8]]]:
                for camera in cameras:
                    yield camera, render_rgba(tracer, camera, supersample=config.supersample)
                    progress.advance(task)

            for split, cameras in scene_cameras(config).items():
                progress.update(task, description=f"rendering {split}")
                write_split(directory, split, views(cameras))
    return output
