"""Samples along rays, and first zero crossings against closed forms."""

from __future__ import annotations

import torch
from torch import Tensor

from eugen_nerf.core.rendering.sphere_tracing import first_crossing, surface_samples


def test_samples_lie_where_they_should() -> None:
    near, depth = torch.full((500,), 0.1), torch.linspace(0.5, 4.0, 500)
    generator = torch.Generator().manual_seed(0)
    t = surface_samples(near, depth, stratified=10, around=6, margin=0.2, spread=0.1, generator=generator)
    assert t.shape == (500, 16)
    torch.testing.assert_close(t[:, 0], depth)
    assert (t >= near[:, None]).all()
    assert (t <= depth[:, None] + 0.2 + 1e-6).all()
    bins = (t[:, 6:] - near[:, None]) / ((depth + 0.2 - near)[:, None] / 10)
    torch.testing.assert_close(bins.floor(), torch.arange(10.0).expand(500, 10), atol=1e-3, rtol=0)
    around = (t[:, 1:6] - depth[:, None])[(depth > 1.0)]
    assert abs(around.std().item() - 0.1) < 0.01  # cut off at two deviations on one side: a little less
    assert abs(around.mean().item()) < 0.01


def test_samples_are_those_of_the_generator() -> None:
    near, depth = torch.zeros(4), torch.ones(4)

    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return surface_samples(near, depth, stratified=3, around=2, margin=0.1, spread=0.1, generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_first_crossing_of_a_sphere() -> None:
    """Against the quadratic formula; rays that miss count as misses, and nothing is queried behind a surface."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(400, 3, generator=generator)
    origins = 3 * origins / origins.norm(dim=-1, keepdim=True)
    directions = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator) * 0.9 - origins, dim=-1)
    queried = []

    def sphere(points: Tensor) -> Tensor:
        queried.append(len(points))
        return points.norm(dim=-1) - 1

    b = (origins * directions).sum(-1)
    root = b * b - 8.0
    clear = root.abs() > 0.05  # grazing rays are decided by the step's length
    expected = -b - root.clamp_min(0).sqrt()
    t, hit = first_crossing(sphere, origins, directions, torch.zeros(400), torch.full((400,), 8.0))
    assert torch.equal(hit[clear], root[clear] > 0)
    assert 50 < int(hit.sum()) < 350
    torch.testing.assert_close(t[hit & clear], expected[hit & clear], atol=1e-3, rtol=0)
    assert (t[~hit] == 8.0).all()
    assert sum(queried) < 400 * 40


def test_the_nearer_of_two_surfaces_is_found() -> None:
    def slabs(points: Tensor) -> Tensor:
        z = points[:, 2]
        return torch.minimum((z - 1.0).abs() - 0.1, (z - 2.0).abs() - 0.1)

    origins, directions = torch.zeros(3, 3), torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, -1]])
    near, far = torch.tensor([0.0, 1.2, 0.0]), torch.full((3,), 5.0)
    t, hit = first_crossing(slabs, origins, directions, near, far)
    torch.testing.assert_close(t, torch.tensor([0.9, 1.9, 5.0]), atol=1e-4, rtol=0)
    assert hit.tolist() == [True, True, False]


def test_a_ray_that_begins_inside_stops_there() -> None:
    t, hit = first_crossing(
        lambda p: p.norm(dim=-1) - 1, torch.zeros(1, 3), torch.eye(3)[:1], torch.tensor([0.2]), torch.tensor([4.0])
    )
    assert hit.item()
    torch.testing.assert_close(t, torch.tensor([0.2]))
