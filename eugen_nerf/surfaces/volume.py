"""Signed distance on a regular grid, evaluated in slabs, and its file format.

The file is an `.npz` of numpy with the keys

| key | content |
|---|---|
| `distance` | [nx, ny, nz] float32, metres, negative inside |
| `origin` | [3] float64, metres: position of `distance[0, 0, 0]` |
| `spacing` | [3] float64, metres from one index to the next, along each axis |
| `axes` | "xyz": the order of the indices |
| `version` | 1 |

so that `distance[i, j, k]` belongs to the point `origin + spacing * (i, j, k)`.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.surfaces.files import new_file

VERSION = 1
AXES = "xyz"
SLAB_POINTS = 1 << 22
"""Approximate number of points of a slab, which is held in memory during extraction."""

MAX_LAYER_POINTS = 1 << 24
"""Largest number of points of a layer of a grid: about 1 GiB during evaluation."""
MAX_POINTS = 1 << 29
"""Largest number of points of a volume: 2 GiB of distances."""

Distance = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Signed distances [N] in metres at points [N, 3]."""
Progress = Callable[[float], None]
"""Called with the completed share, in [0, 1]."""


@dataclass(frozen=True)
class Volume:
    """Signed distance [nx, ny, nz] float32 in metres on a grid; `origin` [3] and `spacing` [3] in metres."""

    distance: NDArray[np.float32]
    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A regular grid of points.

    Attributes:
        origin: [3] metres.
        spacing: metres, the same along all axes.
        shape: number of points along x, y and z.
    """

    origin: NDArray[np.float64]
    spacing: float
    shape: tuple[int, int, int]

    def layers(self, start: int, stop: int) -> NDArray[np.float32]:
        """Points [stop - start, ny, nz, 3] of the layers x = start .. stop - 1."""
        axes = [
            self.origin[i] + self.spacing * np.arange(a, b)
            for i, (a, b) in enumerate(((start, stop), (0, self.shape[1]), (0, self.shape[2])))
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def make_grid(bounds: NDArray[Any], spacing: float) -> Grid:
    """The grid that covers a box [2, 3] in metres; raises `ConfigError` for an invalid box or spacing."""
    low, high = check_box(bounds)
    longest = float((high - low).max())
    if not longest / 8192 <= spacing <= longest / 2:
        raise ConfigError(
            f"a spacing of {spacing:g} m is given for a box {longest:.3g} m long, but {longest / 8192:.2g} to "
            f"{longest / 2:.2g} m is allowed: correct --voxel"
        )
    nx, ny, nz = (int(np.ceil(length / spacing - 1e-6)) + 1 for length in high - low)
    if ny * nz > MAX_LAYER_POINTS:
        raise ConfigError(
            f"a spacing of {spacing:g} m makes layers of {ny} x {nz} points, but at most {MAX_LAYER_POINTS:,} are held "
            "in memory: choose a larger --voxel, or a smaller box with --bounds"
        )
    return Grid(low, spacing, (nx, max(ny, 2), max(nz, 2)))


def check_box(bounds: NDArray[Any]) -> NDArray[np.float64]:
    """The corners [2, 3] of a box in metres; raises `ConfigError` for one that is empty or not finite."""
    low, high = box = np.asarray(bounds, dtype=np.float64)
    if not (np.isfinite(box).all() and (high > low).all()):
        raise ConfigError(
            f"the box from {low.tolist()} to {high.tolist()} is empty or not finite: correct --bounds (xmin ymin zmin "
            "xmax ymax zmax in metres)"
        )
    return box


def slabs(
    distance: Distance, grid: Grid, progress: Progress = lambda share: None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The grid's distances slab by slab along x: (first layer, values [layers, ny, nz]).

    A slab begins with a copy of the last layer of the one before, so that surfaces of neighbouring slabs meet exactly.
    """
    nx, ny, nz = grid.shape
    thick = max(1, SLAB_POINTS // (ny * nz))
    last: NDArray[np.float32] | None = None
    for start in range(0, nx, thick):
        stop = min(start + thick, nx)
        points = grid.layers(start, stop)
        values = distance(points.reshape(-1, 3)).reshape(points.shape[:3]).astype(np.float32)
        yield (start, values) if last is None else (start - 1, np.concatenate([last, values]))
        last = values[-1:]
        progress(stop / nx)


def sample_volume(
    distance: Distance, bounds: NDArray[Any], spacing: float, progress: Progress = lambda share: None
) -> Volume:
    """Distances on the grid that covers a box.

    Args:
        distance: function of points, metres.
        bounds: corners [2, 3], metres.
        spacing: metres.
        progress: called with the completed share.

    Raises:
        ConfigError: an empty box, or a spacing that is impossible or takes too much memory.
    """
    grid = make_grid(bounds, spacing)
    # the system may grant so much memory and kill the process when it is used
    if math.prod(grid.shape) > MAX_POINTS:
        raise ConfigError(
            f"a spacing of {spacing:g} m makes a volume of {' x '.join(map(str, grid.shape))} points, but at most "
            f"{MAX_POINTS:,} are allowed: choose a larger --voxel, or a smaller box with --bounds"
        )
    values = np.empty(grid.shape, dtype=np.float32)
    for start, slab in slabs(distance, grid, progress):
        values[start : start + len(slab)] = slab
    return Volume(values, grid.origin, np.full(3, grid.spacing))


def save_volume(volume: Volume, path: Path, *, overwrite: bool = False) -> None:
    """Writes a volume in the format of this module, completely or not at all. Raises `RunError`."""
    arrays = {
        "distance": volume.distance,
        "origin": volume.origin,
        "spacing": volume.spacing,
        "axes": np.array(AXES),
        "version": np.array(VERSION),
    }
    # np.savez_compressed leaves its archive open where the disk is full, which prints a traceback when it is collected
    with (
        new_file(path, overwrite=overwrite) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def load_volume(path: Path) -> Volume:
    """Reads a file of `save_volume`, without running code in it. Raises `RunError` for any other file."""
    try:
        with np.load(path, allow_pickle=False) as content:
            version, axes = int(content["version"]), str(content["axes"])
            volume = Volume(content["distance"], content["origin"], content["spacing"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RunError(f"{path} is not a readable volume ({reason}): make it again with eugen-sdf volume") from error
    if version != VERSION or axes != AXES:
        raise RunError(f"{path} has version {version} and axes {axes}; {VERSION} and {AXES} can be read: make it again")
    if volume.distance.ndim != 3 or volume.origin.shape != (3,) or volume.spacing.shape != (3,):
        raise RunError(f"{path} has arrays of wrong shapes: make it again with eugen-sdf volume")
    return volume
