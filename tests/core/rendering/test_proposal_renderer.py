"""Rendering by proposals, against volume rendering as the formula is written; quantiles against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.marching.ray_spans import RayBatch, Spans
from eugen_nerf.core.rendering.plain_renderer import render_plainly
from eugen_nerf.core.rendering.proposal_renderer import ConeFrustums, ProposalRenderer, draw_edges


def ball(points: Tensor) -> Tensor:
    return 60 * torch.sigmoid(40 * (0.6 - points.norm(dim=-1)))


def colours(points: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.sin(3 * points)


def middles(frustums: ConeFrustums) -> Tensor:
    return frustums.origins + ((frustums.starts + frustums.ends) / 2)[..., None] * frustums.directions


@pytest.mark.parametrize("exponent", [None, -1.5])
def test_a_ball_is_rendered_as_by_many_samples(exponent: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    origins = torch.tensor([[0.0, 0.0, -2.0]]).expand(20, 3)
    towards = torch.randn(20, 3, generator=generator) * 0.4
    directions = torch.nn.functional.normalize(towards - origins, dim=-1)
    near, far, areas = (torch.full((20,), value) for value in (0.2, 50.0, 1e-4))
    rays = RayBatch(origins, directions, near, far, areas=areas)

    def field(frustums: ConeFrustums) -> tuple[Tensor, Tensor]:
        points = middles(frustums)
        return ball(points), colours(points)

    def plain(rays: RayBatch, spans: Spans) -> tuple[Tensor, Tensor]:
        points = rays.origins[spans.ray] + spans.middle[:, None] * rays.directions[spans.ray]
        return ball(points), colours(points)

    renderer = ProposalRenderer((128, 128, 96), exponent, padding=1e-4)
    found = renderer([lambda frustums: ball(middles(frustums))], field, rays)
    expected = render_plainly(plain, RayBatch(origins, directions, near, far / 12.5), 4000)
    assert 0.2 < (expected.accumulation > 0.5).float().mean() < 1
    torch.testing.assert_close(found.colour, expected.colour, atol=0.03, rtol=0)
    torch.testing.assert_close(found.accumulation, expected.accumulation, atol=0.03, rtol=0)
    solid = expected.accumulation[:, 0] > 0.9
    torch.testing.assert_close(found.depth[solid], expected.depth[solid], atol=0.05, rtol=0)
    assert found.last_colour.shape == (20, 3)


def test_edges_are_quantiles() -> None:
    """The weight between two new edges is the same for all, by the step function's own integral."""
    generator = torch.Generator().manual_seed(0)
    s = torch.rand(5, 9, generator=generator).sort(dim=-1).values
    weights = torch.rand(5, 8, generator=generator) + 0.01
    edges = draw_edges(s, weights, 12)
    assert edges.shape == (5, 13)
    total = weights.sum(dim=-1)
    for row in range(5):
        below = [
            float((weights[row] * ((edge - s[row, :-1]) / (s[row, 1:] - s[row, :-1])).clamp(0, 1)).sum() / total[row])
            for edge in edges[row]
        ]
        torch.testing.assert_close(torch.tensor(below), (torch.arange(13) + 0.5) / 13, atol=1e-4, rtol=0)


def test_without_weights_edges_are_spread() -> None:
    edges = draw_edges(torch.linspace(0, 1, 5)[None], torch.zeros(1, 4), 4)
    torch.testing.assert_close(edges[0], (torch.arange(5) + 0.5) / 5, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"counts": (4,)},
        {"counts": (4, 1)},
        {"counts": (4, 999)},
        {"exponent": 1.0},
        {"multiplier": 0},
        {"padding": -1},
    ],
)
def test_settings_that_sample_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="got"):
        ProposalRenderer(**{"counts": (4, 4), "exponent": None, **settings})  # type: ignore[arg-type]
