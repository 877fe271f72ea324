"""The settings of a comparison of signed distances; light, since the command line's help is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.ranges import CELL, POSITIVE, SEED, Range, check_numbers


@dataclass(frozen=True)
class SdfProtocol:
    """What is measured and how."""

    points: Annotated[int, Range(1, 100_000_000)] = 100_000
    """Points of the volume."""
    rays: Annotated[int, Range(1, 10_000_000)] = 2000
    """Held-out rays whose depth is compared."""
    samples_per_ray: Annotated[int, Range(1, 100_000)] = 50
    """Points on each of them, where the room is known."""
    chamfer_points: Annotated[int, Range(1, 100_000_000)] = 50_000
    """Points on the reference surface, and on each mesh."""
    voxel: Annotated[float, CELL] = 0.04
    """Edge of a cell of the meshes, metres."""
    bands: Annotated[tuple[float, ...], POSITIVE] = (0.1, 0.5)
    """Bounds of the bands of true distance that the volume's error is split by, metres."""
    timed_rays: Annotated[int, Range(1, 10_000_000)] = 1000
    """Random rays of one timed forward pass."""
    timed_samples: Annotated[int, Range(1, 100_000)] = 27
    """Points on each of them: 27 is iSDF's training batch."""
    warmup: Annotated[int, Range(0, 10_000)] = 3
    """Untimed rounds before."""
    repeats: Annotated[int, Range(1, 10_000)] = 20
    """Timed rounds; in each, the runs take turns."""
    train_iterations: Annotated[int, Range(0, 10_000_000)] = 0
    """Training iterations to time as well, in memory, after everything else; 0 for none."""
    slice_voxel: Annotated[float, CELL] = 0.02
    """Edge of a pixel of the slices, metres."""
    seed: Annotated[int, SEED] = 0
    """Of all random points."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a value out of its range."""
        check_numbers(self)
        edges = [0.0, *self.bands]
        if sorted(set(edges)) != edges:
            raise ConfigError(f"bands {list(self.bands)} must be positive and rise (metres): correct them")
