"""Volume rendering in one compiled pass, against PyTorch's operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eugen_nerf.core.layers.loop_threads import COMPILES
from eugen_nerf.core.marching.ray_spans import Spans
from eugen_nerf.core.rendering import compositing
from eugen_nerf.core.rendering.compiled_compositing import can_composite
from eugen_nerf.core.rendering.compositing import Composite, composite

pytestmark = pytest.mark.skipif(not COMPILES, reason="numba is not installed")
Given = tuple[Spans, Tensor, Tensor]


def drawn(rays: int, most: int, channels: int = 3, seed: int = 0) -> Given:
    """Spans with gaps, of which some rays have none; densities from thin air to walls, and colours."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, most, (rays,), generator=generator)
    counts[::3] = 0
    ray = torch.arange(rays).repeat_interleave(counts)
    length = 0.01 + torch.rand(len(ray), generator=generator) * 0.1
    start = (length * 1.5).cumsum(0)
    density = torch.rand(len(ray), generator=generator).pow(6) * 80
    return Spans(ray, start, start + length, rays), density, torch.rand(len(ray), channels, generator=generator)


def by_operations(given: Given, monkeypatch: pytest.MonkeyPatch) -> Composite:
    with monkeypatch.context() as patch:
        patch.setattr(compositing, "can_composite", lambda *_: False)
        return composite(*given)


@pytest.mark.parametrize(("most", "channels"), [(6, 3), (40, 1), (300, 5)])
def test_the_loop_sums_up_what_the_operations_do(most: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = drawn(500, most, channels)
    assert can_composite(*given)
    found, expected = composite(*given), by_operations(given, monkeypatch)
    for name in ("colour", "accumulation", "last_colour"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-6, rtol=1e-5)
    # half of a ray's opacity may be reached a rounding earlier
    assert float((found.depth == expected.depth).float().mean()) > 0.99
    assert float(found.accumulation.max()) > 0.99
    assert [x.shape for x in found] == [x.shape for x in expected]


def test_rays_without_spans_are_black() -> None:
    nothing = Spans(torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0), 4)
    for part in composite(nothing, torch.zeros(0), torch.zeros(0, 3)):
        assert part.shape[0] == 4
        assert not part.any()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    given, before, found = drawn(20_000, 8), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(composite(*given))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_what_is_not_a_number_stays_on_its_ray() -> None:
    spans, density, colour = drawn(60, 5)
    clean, ray = composite(spans, density, colour).colour, int(spans.ray[7])
    found = composite(spans, torch.where(spans.ray == ray, float("nan"), density), colour).colour
    assert found.isnan().all(dim=1).nonzero().flatten().tolist() == [ray]
    others = torch.arange(60) != ray
    assert torch.equal(found[others], clean[others])


def test_gradients_and_other_dtypes_are_left_to_the_operations() -> None:
    spans, density, colour = drawn(10, 5)
    assert not can_composite(spans, density.clone().requires_grad_(), colour)
    assert not can_composite(spans, density.double(), colour)
    thick = density.clone().requires_grad_()
    (slope,) = torch.autograd.grad(composite(spans, thick, colour).accumulation.sum(), thick)
    assert slope.abs().max() > 0
