"""Images of a signed distance, against a ball's closed form."""

from __future__ import annotations

import pytest
import torch

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch
from eugen_nerf.core.rendering.surface_renderer import AMBIENT, SurfaceRenderer


def test_a_ball_is_where_the_quadratic_formula_says() -> None:
    generator = torch.Generator().manual_seed(0)
    aim = torch.randn(300, 3, generator=generator)
    origins = 3 * torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=-1)
    directions = torch.nn.functional.normalize(0.8 * aim - origins, dim=-1)
    along = (origins * directions).sum(dim=-1).double()
    under = along.square() - (origins.double().square().sum(dim=-1) - 1)
    hit = (under > 0) & (-along - under.clamp_min(0).sqrt() > 0)
    rays = RayBatch(origins, directions, torch.zeros(300), torch.full((300,), 9.0))
    found = SurfaceRenderer(min_step=1e-3)(lambda p: p.norm(dim=-1) - 1, lambda p: (p.norm(dim=-1) - 1, 2 * p), rays)
    clear = (under.abs() > 0.01) & hit
    assert 50 < int(clear.sum()) < 290
    assert torch.equal(found.hit[clear], torch.ones_like(found.hit[clear]))
    depth = (-along - under.clamp_min(0).sqrt())[clear].float()
    torch.testing.assert_close(found.depth[clear, 0], depth, atol=1e-4, rtol=0)
    points = origins[clear] + depth[:, None] * directions[clear]
    torch.testing.assert_close(found.normals[clear], points, atol=1e-3, rtol=0)
    facing = (points * directions[clear]).sum(dim=-1).abs()
    torch.testing.assert_close(found.shade[clear, 0], AMBIENT + (1 - AMBIENT) * facing, atol=1e-3, rtol=0)
    missed = under < -0.01
    assert missed.any()
    assert not found.hit[missed].any()
    assert not found.normals[missed].any()
    assert not found.shade[missed].any()
    assert (found.depth[missed] == 9.0).all()


@pytest.mark.parametrize(
    "settings", [{"step_scale": 0}, {"min_step": 0}, {"max_steps": 0}, {"max_steps": 5000}, {"refinements": -1}]
)
def test_settings_that_find_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="sphere tracing takes"):
        SurfaceRenderer(**settings)
