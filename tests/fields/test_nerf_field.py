"""The NeRF field: the stock field's numbers with the stock field's weights, gradients everywhere, one network twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nerfstudio.cameras.rays import Frustums, RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from eugen_nerf.conversion.teachers.graph_runs import graph_model
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.fields.nerf import NeRFField, NeRFFieldConfig
from eugen_nerf.methods.runs.loading import load_run

TINY = NeRFFieldConfig(
    trunk_layers=4,
    trunk_width=32,
    skips=(2,),
    head_layers=2,
    head_width=16,
    position_frequencies=4,
    position_max_exponent=3.0,
    direction_frequencies=2,
    layers=("trunk_.*", "head_0"),
    num_features=(12,),
)
SETTINGS = {
    "plain": TINY,
    "norm": replace(TINY, norm=True),
    "degree 2": replace(TINY, degree=2),
    "norm and degree 2": replace(TINY, norm=True, degree=2, num_features=(9,)),
}
BOTH = (FieldHeadNames.DENSITY, FieldHeadNames.RGB)


def ray_samples(rays: int = 5, samples: int = 7, seed: int = 0) -> RaySamples:
    """Random samples `[rays, samples]` along rays through the unit ball."""
    generator = torch.Generator().manual_seed(seed)

    def shared(tensor: Tensor) -> Tensor:
        return tensor[:, None].expand(rays, samples, 3)

    origins = torch.randn(rays, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1)
    edges = torch.rand(rays, samples + 1, generator=generator).sort(dim=-1).values * 2
    frustums = Frustums(
        origins=shared(origins),
        directions=shared(directions),
        starts=edges[:, :-1, None],
        ends=edges[:, 1:, None],
        pixel_area=torch.ones(rays, samples, 1),
    )
    return RaySamples(frustums=frustums, deltas=edges.diff(dim=-1)[..., None])


def make_field(config: NeRFFieldConfig, variant: str) -> NeRFField:
    torch.manual_seed(0)
    return NeRFField(config, variant)


def backward(field: NeRFField) -> None:
    """A loss with another weight on each output, so that nothing cancels."""
    outputs = field(ray_samples())
    loss = sum((outputs[key] * torch.arange(1, outputs[key].numel() + 1).view_as(outputs[key])).sum() for key in BOTH)
    loss.backward()


@pytest.mark.parametrize("which", ["field_coarse", "field_fine"])
@pytest.mark.parametrize("training", [True, False])
def test_stock_weights_give_stock_density_and_colour(tiny_stock_run: Path, which: str, training: bool) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    _, model = graph_model(run)
    ours, stock = getattr(model, which), getattr(run.model, which)
    samples = ray_samples(rays=16)
    with torch.set_grad_enabled(training):
        found, expected = ours(samples), stock(samples)
    for key in BOTH:
        assert found[key].std() > 1e-4, "an output that does not depend on the sample would prove nothing"
        torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5)


def test_coarse_and_fine_weights_are_not_mixed_up(tiny_stock_run: Path) -> None:
    _, model = graph_model(load_run(tiny_stock_run, device="cpu"))
    with torch.no_grad():
        coarse, fine = model.field_coarse(ray_samples()), model.field_fine(ray_samples())
    assert not torch.allclose(coarse[FieldHeadNames.RGB], fine[FieldHeadNames.RGB], atol=1e-3)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter(variant: str, settings: str) -> None:
    field = make_field(SETTINGS[settings], variant).train()
    backward(field)
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_equals_training(variant: str, settings: str) -> None:
    field = make_field(SETTINGS[settings], variant)
    # after a step: the norm's columns start at zero, and a plan of before must not survive
    with torch.no_grad():
        field.eval()(ray_samples())
    field.train()
    optimizer = torch.optim.Adam(field.parameters(), lr=0.05)
    backward(field)
    optimizer.step()
    in_training = field(ray_samples())
    with torch.no_grad():
        in_evaluation = field.eval()(ray_samples())
    for key in BOTH:
        torch.testing.assert_close(in_evaluation[key], in_training[key].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_is_for_training_alone(variant: str) -> None:
    full = make_field(TINY, variant).train()
    half = make_field(replace(TINY, train_precision="bfloat16"), variant).train()
    half.load_state_dict(full.state_dict())
    expected, found = full(ray_samples()), half(ray_samples())
    for key in BOTH:
        assert found[key].dtype == torch.float32
        assert not torch.equal(found[key], expected[key]), "bfloat16 was not used"
        torch.testing.assert_close(found[key], expected[key], rtol=0.1, atol=0.1)
    backward(half)
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in half.parameters())
    with torch.no_grad():
        expected, found = full.eval()(ray_samples()), half.eval()(ray_samples())
    for key in BOTH:
        assert torch.equal(found[key], expected[key])


@pytest.mark.parametrize("settings", ["plain", "norm and degree 2"])
def test_fixed_projections_stay_as_they_were_drawn(settings: str) -> None:
    field = make_field(replace(SETTINGS[settings], train_projection=False), "eugen").train()
    before = {name: value.clone() for name, value in field.state_dict().items()}
    projections = {name for name in before if ".projection" in name}
    assert len(projections) == 5 * (3 if "norm" in settings else 2)
    assert not projections & {name for name, _ in field.named_parameters()}
    backward(field)
    torch.optim.Adam(field.parameters(), lr=0.1).step()
    after = field.state_dict()
    assert all(after[name].grad is None and torch.equal(after[name], before[name]) for name in projections)
    assert not torch.equal(after["network.layers.trunk_1.weight"], before["network.layers.trunk_1.weight"])


def test_outputs_of_any_leading_shape_are_those_of_the_flat_ones() -> None:
    field: Callable[[RaySamples], dict[FieldHeadNames, Tensor]] = make_field(TINY, "eugen").eval()
    samples = ray_samples(rays=3, samples=4)
    with torch.no_grad():
        grid, flat = field(samples), field(samples.flatten())
    assert grid[FieldHeadNames.DENSITY].shape == (3, 4, 1)
    assert grid[FieldHeadNames.RGB].shape == (3, 4, 3)
    for key in BOTH:
        torch.testing.assert_close(grid[key].flatten(0, 1), flat[key], rtol=1e-5, atol=1e-6)
