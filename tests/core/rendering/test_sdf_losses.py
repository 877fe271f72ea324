"""Bounds and losses of signed distance against loops over samples in float64 numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.rendering.sdf_losses import (
    distance_loss,
    eikonal_loss,
    free_space_loss,
    gradient_loss,
    sdf_bounds,
)


def rays(count: int = 12, samples: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rays with surfaces, and samples in front of and behind them; the first sample is the surface."""
    rng = np.random.default_rng(seed)
    origins = rng.normal(size=(count, 3))
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    depth = rng.uniform(1.0, 3.0, count)
    t = np.concatenate([depth[:, None], rng.uniform(0.1, 3.4, (count, samples - 1))], axis=1)
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals *= -np.sign((normals * directions).sum(-1, keepdims=True))
    normals[3] = np.nan
    found = {
        "points": origins[:, None] + t[..., None] * directions[:, None],
        "t": t,
        "depth": depth,
        "directions": directions,
        "normals": normals,
    }
    return {k: torch.from_numpy(v) for k, v in found.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batch_bounds_against_brute_force(dtype: torch.dtype) -> None:
    given = rays()
    bound, direction = sdf_bounds("batch", **{k: v.to(dtype) for k, v in given.items()}, reach=0.3)
    p, t, depth, d = (given[k].numpy() for k in ("points", "t", "depth", "directions"))
    surface = p - (t - depth[:, None])[..., None] * d[:, None]
    for r in range(len(p)):
        for s in range(p.shape[1]):
            away = p[r, s] - surface[:, 0]
            lengths = np.linalg.norm(away, axis=-1)
            sign = -1.0 if t[r, s] > depth[r] else 1.0
            # float32 searches among squares: off by a millimetre at most, and near the minimum only
            assert bound[r, s].item() == pytest.approx(
                sign * lengths.min(), abs=1e-9 if dtype == torch.float64 else 1e-3
            )
            if s and dtype == torch.float64:
                nearest = lengths.argmin()
                np.testing.assert_allclose(direction[r, s].numpy(), sign * away[nearest] / lengths[nearest], atol=1e-7)
    assert (bound[:, 0].abs() < 1e-6).all()


def test_batch_bounds_never_exceed_those_of_the_ray() -> None:
    given = {k: v.float() for k, v in rays(200, 9, seed=1).items()}
    batch, ray = (sdf_bounds(method, **given, reach=0.3).distance for method in ("batch", "ray"))
    assert (batch.abs() <= ray.abs() + 1e-6).all()
    assert (batch.sign() * ray.sign() >= 0).all()


def test_ray_bounds() -> None:
    given = rays()
    bound, direction = sdf_bounds("ray", **given, reach=0.3)
    for r in range(12):
        for s in range(7):
            surface = given["points"][r, s] + (given["depth"][r] - given["t"][r, s]) * given["directions"][r]
            length = (given["points"][r, s] - surface).norm()
            assert bound[r, s].abs().item() == pytest.approx(length.item(), abs=1e-12)
            assert (bound[r, s] < 0) == (given["t"][r, s] > given["depth"][r])
            torch.testing.assert_close(direction[r, s], -given["directions"][r])


def test_normal_bounds_are_distances_to_the_tangent_plane_near_the_surface() -> None:
    given = rays()
    bound, direction = sdf_bounds("normal", **given, reach=0.3)
    for r in range(12):
        known = not given["normals"][r].isnan().any()
        normal = given["normals"][r] if known else -given["directions"][r]
        point = given["points"][r, 0]
        cosine = abs(float(normal @ given["directions"][r]))
        torch.testing.assert_close(direction[r, 2], normal)
        for s in range(7):
            along = float(given["depth"][r] - given["t"][r, s])
            plane = float((given["points"][r, s] - point) @ normal)
            expected = plane if along < 0.3 else along - 0.3 * (1 - cosine)
            assert bound[r, s].item() == pytest.approx(expected, abs=1e-12)


def test_unknown_bounds() -> None:
    with pytest.raises(ConfigError, match="bounds 'plane' are unknown; choose one of ray, normal, batch"):
        sdf_bounds("plane", **rays(), reach=0.3)  # type: ignore[arg-type]


def test_losses_against_loops() -> None:
    rng = np.random.default_rng(2)
    d, bound = rng.normal(scale=0.5, size=(6, 5)), rng.normal(0.2, 0.5, size=(6, 5))
    gradient, direction = rng.normal(size=(6, 5, 3)), rng.normal(size=(6, 5, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    free, near = distance_loss(torch.from_numpy(d), torch.from_numpy(bound), 0.29, 5.0)
    eikonal = eikonal_loss(torch.from_numpy(gradient), torch.from_numpy(bound), 0.1)
    turned = gradient_loss(torch.from_numpy(gradient), torch.from_numpy(direction))
    for i in np.ndindex(6, 5):
        hinge = max(0.0, math.exp(-5.0 * d[i]) - 1, d[i] - bound[i])
        assert free[i].item() == pytest.approx(hinge if bound[i] > 0.29 else 0.0, abs=1e-12)
        assert near[i].item() == pytest.approx(0.0 if bound[i] > 0.29 else abs(d[i] - bound[i]), abs=1e-12)
        length = math.sqrt(sum(g * g for g in gradient[i]))
        assert eikonal[i].item() == pytest.approx(0.0 if bound[i] < 0.1 else abs(length - 1), abs=1e-12)
        assert turned[i].item() == pytest.approx(1 - float(gradient[i] @ direction[i]) / length, abs=1e-12)


def test_losses_vanish_for_the_true_distance_and_have_finite_gradients() -> None:
    """A plane seen straight on: the ray's bound is the distance."""
    t = torch.tensor([[2.0, 0.5, 1.9, 2.05]])
    true = 2.0 - t
    free, near = distance_loss(true, true, 0.3, 5.0)
    assert free.sum() == 0
    assert near.sum() == 0
    d = torch.tensor([-3.0, 0.0, 2.0], requires_grad=True)
    free_space_loss(d, torch.tensor([1.0, 1.0, 1.0]), 5.0).sum().backward()
    assert d.grad is not None
    assert d.grad.isfinite().all()
    flat = torch.zeros(2, 3, requires_grad=True)
    (eikonal_loss(flat, torch.ones(2), 0.1) + gradient_loss(flat, torch.eye(3)[:2])).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
