"""Frustums to encode, and their true moments in numpy."""

from __future__ import annotations

import math

import numpy as np
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from torch import Tensor

Array = np.ndarray


def unit(generator: np.random.Generator, n: int) -> Array:
    """Random directions `[n, 3]`."""
    v = generator.normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def random_samples(
    rays: int = 6, samples: int = 8, *, far: float = 6.0, area: float = 1e-3, seed: int = 0, double: bool = False
) -> RaySamples:
    """Frustums one behind another `[rays, samples]` along random rays from near the centre, up to a distance `far`."""
    generator = np.random.default_rng(seed)
    origins, directions = 0.3 * unit(generator, rays), unit(generator, rays)
    edges = np.sort(generator.uniform(0.02 * far, far, size=(rays, samples + 1)), axis=1)
    return make_samples(origins[:, None], directions[:, None], edges[:, :-1], edges[:, 1:], area, double=double)


def make_samples(
    origins: Array, directions: Array, starts: Array, ends: Array, area: float, *, double: bool = False
) -> RaySamples:
    """Samples of the shape of `starts` and `ends`; origins and directions are broadcast to it."""
    starts, ends = np.broadcast_arrays(np.asarray(starts, dtype=np.float64), np.asarray(ends, dtype=np.float64))

    def tensor(values: Array, channels: int) -> Tensor:
        full = np.ascontiguousarray(np.broadcast_to(values, (*starts.shape, channels)), dtype=np.float64)
        return torch.from_numpy(full).to(torch.float64 if double else torch.float32)

    frustums = Frustums(
        origins=tensor(origins, 3),
        directions=tensor(directions, 3),
        starts=tensor(starts[..., None], 1),
        ends=tensor(ends[..., None], 1),
        pixel_area=tensor(np.full((*starts.shape, 1), area), 1),
    )
    return RaySamples(frustums=frustums, deltas=tensor((ends - starts)[..., None], 1))


def true_moments(frustums: Frustums) -> tuple[Array, Array]:
    """Mean `[..., 3]` and covariance `[..., 3, 3]` of the points of round conical frustums, float64.

    A slice at distance t has an area in proportion to t^2, and its points a mean square of r^2 t^2 / 4 along either
    axis across; so all moments are ratios of integrals of powers of t.
    """
    start, end, area = (v[..., 0].double().numpy() for v in (frustums.starts, frustums.ends, frustums.pixel_area))
    axis, origin = frustums.directions.double().numpy(), frustums.origins.double().numpy()

    def power(k: int) -> Array:
        return (end ** (k + 3) - start ** (k + 3)) / (k + 3) / ((end**3 - start**3) / 3)

    mean = origin + axis * power(1)[..., None]
    along, across = power(2) - power(1) ** 2, area / math.pi * power(2) / 4
    outer = axis[..., :, None] * axis[..., None, :]
    return mean, along[..., None, None] * outer + across[..., None, None] * (np.eye(3) - outer)


def contract_numpy(x: Array) -> Array:
    """Eq. 10 of arXiv 2111.12077."""
    r = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.where(r <= 1, x, (2 - 1 / np.maximum(r, 1)) * x / np.maximum(r, 1e-300))


def jacobian(x: Array, step: float = 1e-5) -> Array:
    """Of the contraction at points `[..., 3]`: `[..., 3, 3]`, by central differences."""
    columns = []
    for k in range(3):
        shift = np.zeros(3)
        shift[k] = step
        columns.append((contract_numpy(x + shift) - contract_numpy(x - shift)) / (2 * step))
    return np.stack(columns, axis=-1)
