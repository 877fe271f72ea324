"""The deformation and the canonical field on hash grids: what they are at time 0, outside the box, and to gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.data.scene_box import SceneBox

from eugen_nerf.core.errors import RunError
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.fields.deformation import (
    DeformationField,
    DeformationFieldConfig,
    DeformedGraphField,
    displaced,
)
from eugen_nerf.fields.hash import HashField, HashFieldConfig
from eugen_nerf.fields.nerf import NeRFField, NeRFFieldConfig

TINY = DeformationFieldConfig(
    trunk_layers=3,
    trunk_width=16,
    skips=(2,),
    position_frequencies=3,
    position_max_exponent=2.0,
    time_frequencies=2,
    time_max_exponent=1.0,
    num_features=(6,),
)
BOX = SceneBox(torch.tensor([[-1.0, -2.0, -1.5], [1.0, 2.0, 1.5]]))


def make_samples(times: torch.Tensor | float | None, count: int = 7, scale: float = 1.0) -> RaySamples:
    """Samples `[count, 3]` along random rays."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(count, 1, 3, generator=generator).expand(-1, 3, -1) * scale
    directions = torch.nn.functional.normalize(torch.randn(count, 1, 3, generator=generator), dim=-1).expand(-1, 3, -1)
    starts = torch.tensor([0.1, 0.2, 0.4])[None, :, None].expand(count, -1, -1)
    if isinstance(times, float):
        times = torch.full((count, 3, 1), times)
    frustums = Frustums(origins, directions, starts, starts + 0.1, torch.ones_like(starts))
    return RaySamples(frustums=frustums, deltas=torch.full_like(starts, 0.1), times=times)


def make_deformation(variant: str = "eugen", **changes) -> DeformationField:
    torch.manual_seed(0)
    return DeformationField(replace(TINY, **changes), variant)  # type: ignore[arg-type]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_moves_at_time_zero(variant: str, training: bool) -> None:
    field = make_deformation(variant).train(training)
    with torch.set_grad_enabled(training):
        assert torch.equal(field(make_samples(0.0)), torch.zeros(7, 3, 3))
        assert field(make_samples(0.5)).abs().min() > 0


def test_anchored_is_time_times_what_stock_would_say() -> None:
    field, stock = make_deformation(), make_deformation(anchored=False)
    stock.load_state_dict(field.state_dict())
    times = torch.rand(7, 3, 1, generator=torch.Generator().manual_seed(1))
    samples = make_samples(times)
    torch.testing.assert_close(field(samples), times * stock(samples))
    assert stock(make_samples(0.0)).abs().min() > 0


def test_the_network_is_asked_of_positions_and_times() -> None:
    """As nerfstudio's own: both encoded with their inputs, positions first."""
    field = make_deformation()
    times = torch.rand(7, 3, 1, generator=torch.Generator().manual_seed(1))
    samples = make_samples(times)
    (found,) = field.encode(samples)
    positions = samples.frustums.get_positions().double().numpy()
    # nerfstudio's order: sines of all coordinates, each at all frequencies, cosines, then the input itself
    scaled = (2 * np.pi * positions[..., None] * np.array([1.0, 2.0, 4.0])).reshape(7, 3, -1)
    expected = [np.sin(scaled), np.cos(scaled), positions]
    turns = 2 * np.pi * times.double().numpy() * np.array([1.0, 2.0])
    expected += [np.sin(turns), np.cos(turns), times.double().numpy()]
    np.testing.assert_allclose(found.numpy(), np.concatenate(expected, axis=-1), atol=1e-5)
    assert found.shape[-1] == field.network.input_widths[0]


@pytest.mark.parametrize("variant", ["eugen", "dense"])
def test_gradients_reach_every_layer_through_the_canonical_field(variant: str) -> None:
    deformation = make_deformation(variant)
    canonical = NeRFField(NeRFFieldConfig(trunk_layers=2, trunk_width=16, skips=(), head_width=8), "dense")
    samples = make_samples(0.7)
    outputs = canonical(displaced(samples, deformation(samples)))
    sum(value.square().sum() for value in outputs.values()).backward()
    silent = [n for n, p in deformation.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_displacing_leaves_the_samples_alone() -> None:
    samples = make_samples(0.3)
    before = samples.frustums.get_positions().clone()
    offsets = torch.randn(7, 3, 3, generator=torch.Generator().manual_seed(2))
    moved = displaced(samples, offsets)
    assert samples.frustums.offsets is None
    torch.testing.assert_close(moved.frustums.get_positions(), before + offsets)
    torch.testing.assert_close(samples.frustums.get_positions(), before)
    torch.testing.assert_close(displaced(moved, None).frustums.get_positions(), before)
    assert torch.equal(moved.deltas, samples.deltas)


def test_samples_without_times_are_refused() -> None:
    with pytest.raises(RunError, match=r"the rays have no time: .*`time`.*eugen-render"):
        make_deformation()(make_samples(None))


def test_a_query_costs_both_networks() -> None:
    deformation = make_deformation()
    canonical = NeRFField(NeRFFieldConfig(trunk_width=16, head_width=8, num_features=(5,)), "eugen")
    both = DeformedGraphField(deformation, canonical)
    # 3 layers of 6 features, a skip in the last: position 21 + time 5 wide
    by_hand = 26 * 6 + 6 * 6 + (26 + 6) * 6 + 6 * 3
    assert deformation.macs_per_query() == by_hand
    assert both.macs_per_query() == by_hand + canonical.macs_per_query()
    assert both.inference_parameters() == deformation.inference_parameters() + canonical.inference_parameters()
    samples = make_samples(0.4)
    with torch.no_grad():
        expected = canonical(displaced(samples, deformation(samples)))
        found = both(samples)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def make_hash(variant: str = "eugen") -> HashField:
    torch.manual_seed(0)
    config = HashFieldConfig(trunk_width=16, head_width=8, max_resolution=64, log2_table_size=9, num_features=(5,))
    field = config.build(variant, BOX)  # type: ignore[arg-type]
    assert isinstance(field, HashField)
    torch.nn.init.normal_(field.encoder.grid.table, std=0.05)
    return field.eval()


def test_there_is_nothing_outside_the_box() -> None:
    field = make_hash()
    samples = make_samples(0.0, count=64, scale=2.0)
    density, colour = field.get_density(samples)
    positions = samples.frustums.get_positions()
    inside = ((positions >= BOX.aabb[0]) & (positions <= BOX.aabb[1])).all(dim=-1)
    assert 0 < inside.float().mean() < 1
    assert torch.equal(density[..., 0] > 0, inside)
    assert colour is not None
    assert torch.isfinite(colour).all()


def test_grid_features_are_the_vertices_interpolated() -> None:
    """At the middles of vertices a level's feature is the vertex's own row, in the levels that are not hashed."""
    field = make_hash()
    grid = field.encoder.grid
    n = grid.resolutions[0]
    level = grid.table[: grid.sizes[0]].detach() * 10  # the precondition of the grid
    assert grid.hashed[0] or n**3 <= grid.sizes[0]
    rows = level if not grid.hashed[0] else None
    vertex = torch.tensor([3, 5, 7])
    unit = (vertex - 0.5) / (n - 1)  # tiny-cuda-nn's half cell
    point = unit * (BOX.aabb[1] - BOX.aabb[0]) + BOX.aabb[0]
    frustums = Frustums(point[None, None], torch.zeros(1, 1, 3), *([torch.zeros(1, 1, 1)] * 3))
    features = field.encoder(RaySamples(frustums=frustums))
    if rows is None:
        index = int((3 ^ (5 * 2654435761) ^ (7 * 805459861)) % grid.sizes[0])
        rows = level
    else:
        index = 3 + 5 * n + 7 * n * n
    torch.testing.assert_close(features[0, 0, : grid.features], rows[index], rtol=1e-4, atol=1e-4)
    assert features.shape[-1] == field.network.input_widths[0]


def test_offsets_move_what_the_grid_is_asked_and_get_gradients() -> None:
    field = make_hash()
    samples = make_samples(0.0, scale=0.2)
    offsets = torch.full((7, 3, 3), 0.05, requires_grad=True)
    density, _ = field.get_density(displaced(samples, offsets))
    frustums = replace(samples.frustums, origins=samples.frustums.origins + 0.05)
    expected, _ = field.get_density(replace(samples, frustums=frustums))
    torch.testing.assert_close(density, expected, rtol=1e-4, atol=1e-5)
    density.sum().backward()
    assert offsets.grad is not None
    assert offsets.grad.abs().max() > 0
