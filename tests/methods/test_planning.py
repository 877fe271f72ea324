"""Plans for all networks of a model, of all five methods: they stay within what they state, and step aside."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.field_components.field_heads import FieldHeadNames
from tiny_models import make_model, make_rays
from tiny_runs import shrink_dnerf

from eugen_nerf.core import EvaluationMode
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.fields.radiance_field import Selection
from eugen_nerf.methods.dnerf import EugenDNerfModelConfig
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.isdf import ISDFModel, ISDFModelConfig
from eugen_nerf.methods.nerf import EugenNerfModelConfig
from eugen_nerf.methods.rendering import planning
from eugen_nerf.methods.rendering.planning import plan_model, unplan_model

INFERENCE = EvaluationMode.INFERENCE
METHODS = ("nerf", "dnerf", "mip", "zip", "isdf")
NORM = {"nerf": True}  # of all, one with the norm


def model_of(method: str, **changes: Any) -> GraphModel:
    if method in ("mip", "zip"):
        return make_model(method, **changes).eval()
    torch.manual_seed(0)
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    config: Any = {"nerf": EugenNerfModelConfig, "dnerf": EugenDNerfModelConfig, "isdf": ISDFModelConfig}[method]()
    if method == "isdf":
        config.network.trunk_width, config.network.num_features = 24, (10,)
    else:
        config.num_coarse_samples, config.num_importance_samples, config.background_color = 8, 8, "white"
        config.network.trunk_width, config.network.head_width, config.network.num_features = 24, 16, (10,)
        config.network.norm = NORM.get(method, False)
        if method == "dnerf":
            shrink_dnerf(config)
    for name, value in changes.items():
        setattr(config, name, value)
    model: GraphModel = config.setup(scene_box=box, num_train_data=1)
    return model.eval()


def rays_of(method: str, count: int = 7):
    rays = make_rays(count)
    if method in ("nerf", "dnerf"):
        rays.fars = torch.full((count, 1), 3.0)
    if method == "isdf":
        rays.fars = torch.full((count, 1), 4.0)
    if method == "dnerf":
        rays.times = torch.linspace(0, 1, count)[:, None]
    return rays


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_networks_answer_within_what_their_plans_state(method: str, dtype: str) -> None:
    model, rays = model_of(method), rays_of(method)
    with torch.no_grad():
        queried = {name: model.field_samples(rays, name)[0] for name in model.graph_fields()}
        expected = {name: field.network(*queried[name]) for name, field in model.graph_fields().items()}
    plans = plan_model(model, rays, dtype=dtype, chunk=32)  # type: ignore[arg-type]
    assert plans.keys() == model.graph_fields().keys()
    for name, field in model.graph_fields().items():
        assert plans[name].dtype == dtype
        with torch.inference_mode():
            found = field.network(*queried[name])
            empty = field.network(*(x[:0] for x in queried[name]))
            single = field.network(*(x[0] for x in queried[name]))
            spread = field.network(*(torch.stack([x, x], dim=-1)[..., 0] for x in queried[name]))
        for y, own, none, one, strided in zip(found, expected[name], empty, single, spread, strict=True):
            rounding = 1e-5 * float(own.abs().max()) + 1e-6
            assert float((y - own).abs().max()) <= plans[name].deviation + rounding
            assert none.shape == (0, own.shape[1])
            assert float((one - y[0]).abs().max()) <= plans[name].deviation + rounding
            assert torch.equal(strided, y)


@pytest.mark.parametrize("backend", ["eager", "triton", "wgpu"])
@pytest.mark.parametrize("method", METHODS)
def test_renderings_are_the_same_but_for_rounding(method: str, backend: str) -> None:
    """Without a device plans by triton and wgpu run eagerly, but take points where the kernel could encode them."""
    model, rays = model_of(method), rays_of(method)
    with torch.no_grad():
        before = model(rays)
        plans = plan_model(model, rays, backend=backend, chunk=32)  # type: ignore[arg-type]
        encode = backend != "eager" and method in ("nerf", "dnerf")
        assert any(plan.encodes for plan in plans.values()) == encode
        planned = model(rays)
        unplan_model(model)
        after = model(rays)
    assert planned.keys() == before.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value)
        assert planned[key].shape == value.shape
        if method != "isdf":  # where a ray grazes a surface, rounding decides
            torch.testing.assert_close(planned[key], value, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_plans_step_aside_where_gradients_are_needed(method: str) -> None:
    """First and second derivatives are those of the network without a plan."""
    model, rays = model_of(method), rays_of(method)
    name = list(model.graph_fields())[-1]
    network = model.graph_fields()[name].network
    with torch.no_grad():
        inputs = [x.detach().clone() for x in model.field_samples(rays, name)[0]]

    def derivatives() -> list[torch.Tensor]:
        first = inputs[0].clone().requires_grad_()
        output = network(first, *inputs[1:])[0]
        (slope,) = torch.autograd.grad(output.sum(), first, create_graph=True)
        twice = torch.autograd.grad(slope.square().sum(), list(network.parameters()), allow_unused=True)
        return [slope, *(g for g in twice if g is not None)]

    expected = derivatives()
    plan_model(model, rays, dtype="bfloat16")
    assert all(torch.equal(a, b) for a, b in zip(derivatives(), expected, strict=True))


def test_a_distance_with_its_gradient_is_as_without_a_plan() -> None:
    model, rays = model_of("isdf"), rays_of("isdf")
    assert isinstance(model, ISDFModel)
    points = torch.randn(20, 3)
    distance, gradient = model.field.distance_and_gradient(points)
    with torch.no_grad():
        alone = model.field.distance(points)
    plan_model(model, rays, dtype="bfloat16")
    again, slope = model.field.distance_and_gradient(points)
    assert torch.equal(again, distance)
    assert torch.equal(slope, gradient)
    with torch.no_grad():
        planned = model.field.distance(points)
    plan = model.field.network.plan
    assert plan is not None
    assert 0 < float((planned - alone).abs().max()) <= 2 * model.field.output_scale * plan.deviation  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["nerf", "mip", "zip"])
def test_many_samples_are_encoded_where_a_plan_takes_few(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rays = model_of(method), rays_of(method, 40)
    plans, encoded = plan_model(model, rays, chunk=16), list[int]()
    assert all(plan.chunk == 16 for plan in plans.values())

    def record(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        encoded.append(inputs[0].shape[:-1].numel())

    for field in model.graph_fields().values():
        field.network.register_forward_pre_hook(record)
    with torch.no_grad():
        whole = model(rays)["rgb"]
        assert min(encoded) > 16
        monkeypatch.setattr(planning, "FEWEST_ROWS", 1)
        plan_model(model, rays, chunk=16)
        torch.testing.assert_close(model(rays)["rgb"], whole, atol=1e-5, rtol=0)


def test_a_rays_direction_is_encoded_once_and_no_result_depends_on_it() -> None:
    model, rays = model_of("nerf"), rays_of("nerf", 5)
    with torch.no_grad():
        samples, _, weights = model.sample_coarse(rays, INFERENCE)
        whole = model.field_fine(samples)
        shapes = []
        model.field_fine.direction_encoding.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
        model.field_fine.inference_rows = 13
        found = model.field_fine(samples)
        assert shapes == [(5, 3)]
        density = model.field_fine.evaluate(samples, INFERENCE, density_only=True)
        assert density.keys() == {FieldHeadNames.DENSITY}
        assert len(shapes) == 1
        mask = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0)) < 0.4
        selection = Selection(mask.nonzero(as_tuple=True), samples.frustums.get_positions())
        assert len(selection) == mask.sum()
        masked = model.field_fine.evaluate(samples, INFERENCE, selection=selection)
    for key, value in whole.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(masked[key], value[mask], rtol=1e-5, atol=1e-6)
    expected = whole[FieldHeadNames.DENSITY]
    torch.testing.assert_close(density[FieldHeadNames.DENSITY], expected, rtol=1e-5, atol=1e-6)
    assert math.isfinite(float(weights.sum()))


def test_refusals() -> None:
    model, rays = model_of("nerf"), rays_of("nerf")
    with pytest.raises(ConfigError, match="backend 'onnx' is unknown"):
        plan_model(model, rays, backend="onnx")  # type: ignore[arg-type]
    assert all(f.network.plan is None for f in model.graph_fields().values())
