"""The settings of a comparison of signed distances; light, since the command line's help is made of them."""

from __future__ import annotations

from dataclasses import dataclass

from eugen_nerf.core.errors import ConfigError


@dataclass(frozen=True)
class SdfProtocol:
    """What is measured and how."""

    points: int = 100_000
    """Points of the volume."""
    rays: int = 2000
    """Held-out rays whose depth is compared."""
    samples_per_ray: int = 50
    """Points on each of them, where the room is known."""
    chamfer_points: int = 50_000
    """Points on the reference surface, and on each mesh."""
    voxel: float = 0.04
    """Edge of a cell of the meshes, metres."""
    bands: tuple[float, ...] = (0.1, 0.5)
    """Bounds of the bands of true distance that the volume's error is split by, metres."""
    timed_rays: int = 1000
    """Random rays of one timed forward pass."""
    timed_samples: int = 27
    """Points on each of them: 27 is iSDF's training batch."""
    warmup: int = 3
    """Untimed rounds before."""
    repeats: int = 20
    """Timed rounds; in each, the runs take turns."""
    train_iterations: int = 0
    """Training iterations to time as well, in memory, after everything else; 0 for none."""
    slice_voxel: float = 0.02
    """Edge of a pixel of the slices, metres."""
    seed: int = 0
    """Of all random points."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a value out of its range."""
        counts = ("points", "rays", "samples_per_ray", "chamfer_points", "timed_rays", "timed_samples", "repeats")
        for name in (*counts, "voxel", "slice_voxel"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}, but it must be positive: correct it")
        for name in ("warmup", "train_iterations", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, but it must be at least 0: correct it")
        edges = [0.0, *self.bands]
        if sorted(set(edges)) != edges:
            raise ConfigError(f"bands {list(self.bands)} must be positive and rise (metres): correct them")
