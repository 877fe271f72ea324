"""The compiled loop of multisamples against PyTorch's operations in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.encodings import frustum_points
from eugen_nerf.core.encodings.compiled_multisamples import can_place
from eugen_nerf.core.encodings.frustum_points import alternating_hexagons, frustum_multisamples
from eugen_nerf.core.layers.loop_threads import COMPILES
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums

RAYS, SAMPLES = 40, 9


def cones(seed: int = 0, *, expanded: bool = False) -> ConeFrustums:
    """From inside the unit ball to far beyond it; the first frustum of each ray is as short as floats can tell."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.randn(RAYS, 1, 3, generator=generator) * 0.5
    directions = torch.nn.functional.normalize(torch.randn(RAYS, 1, 3, generator=generator), dim=-1)
    directions[:3, 0] = torch.eye(3)
    edges = torch.rand(RAYS, SAMPLES + 1, generator=generator).cumsum(dim=1) * torch.logspace(-2, 2, SAMPLES + 1)
    edges[:, 1] = edges[:, 0] * (1 + 1e-6)
    radius = torch.full((RAYS, 1), 0.003)
    if expanded:
        origins, directions = (v.expand(RAYS, SAMPLES, 3) for v in (origins, directions))
        radius = radius.expand(RAYS, SAMPLES)
    return ConeFrustums(origins, directions, edges[:, :-1], edges[:, 1:], radius)


def turned(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(RAYS, SAMPLES, generator=generator) * 2 * math.pi
    return angle, torch.rand(RAYS, SAMPLES, generator=generator) < 0.5


@pytest.mark.skipif(not COMPILES, reason="numba is not installed")
@pytest.mark.parametrize("thinned", [False, True])
@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize("expanded", [False, True])
def test_it_is_what_the_operations_compute(
    thinned: bool, at_random: bool, expanded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frustums = cones(expanded=expanded)
    angle, mirror = turned() if at_random else alternating_hexagons(frustums.starts)
    assert can_place(frustums, angle, mirror)
    exact = frustum_multisamples(frustums.to(torch.float64), angle.double(), mirror, thinned=thinned)
    calls = []
    monkeypatch.setattr(frustum_points, "contract", lambda points: calls.append(points))
    points, widths = frustum_multisamples(frustums, angle, mirror, thinned=thinned)
    assert not calls, "the operations ran"
    assert points.shape == (RAYS, SAMPLES, 2 if thinned else 6, 3)
    assert points.movedim(-1, 0).is_contiguous()
    torch.testing.assert_close(points.double(), exact[0], atol=2e-6, rtol=0)
    torch.testing.assert_close(widths.double(), exact[1], atol=0, rtol=3e-6)
    assert (points.norm(dim=-1) < 2).all()
    assert (points.norm(dim=-1) < 1).any()


def test_gradients_and_other_dtypes_are_left_to_the_operations() -> None:
    frustums = cones()
    angle, mirror = turned()
    assert not can_place(frustums.to(torch.float64), angle, mirror)
    frustums.origins.requires_grad_()
    assert not can_place(frustums, angle, mirror)
    points, widths = frustum_multisamples(frustums, angle, mirror, thinned=False)
    (points.square().sum() + widths.sum()).backward()
    assert frustums.origins.grad is not None
    assert frustums.origins.grad.abs().sum() > 0


def test_what_differs_along_a_ray_is_left_to_the_operations() -> None:
    """A ray may bend, or its cones widen: a value for every frustum, and the same formulas."""
    frustums, (angle, mirror) = cones(expanded=True), turned()
    bent = ConeFrustums(
        frustums.origins.clone(), frustums.directions.clone(), frustums.starts, frustums.ends, frustums.radius.clone()
    )
    assert not can_place(bent, angle, mirror)
    for mine, other in zip(
        frustum_multisamples(bent, angle, mirror, thinned=False),
        frustum_multisamples(frustums, angle, mirror, thinned=False),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=2e-6, rtol=5e-6)
