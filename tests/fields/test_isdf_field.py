"""The field of iSDF: encoding, distance, gradient, second derivatives, and all variants of its network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.fields.isdf import ISDFField, ISDFFieldConfig, OffAxisInputs

SMALL = ISDFFieldConfig(trunk_width=24, num_features=(10,), position_frequencies=3, input_scale=0.8)


def field(variant: str = "eugen", **changes: object) -> ISDFField:
    torch.manual_seed(0)
    box = SceneBox(torch.tensor([[-1.0, 0.0, 0.0], [2.0, 3.0, 1.0]]))
    return replace(SMALL, **changes).build(variant, box)  # type: ignore[arg-type]


def points(count: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def test_the_default_network_is_isdfs() -> None:
    config = ISDFFieldConfig()
    assert config.shape().position_width == 255
    dense = config.setup(variant="dense").network
    widths = {name: (dense.layer(name).in_features, dense.layer(name).out_features) for name in dense.names}
    assert widths == {
        "trunk_0": (255, 256),
        "trunk_1": (256, 256),
        "trunk_2": (511, 256),
        "trunk_3": (256, 256),
        "distance": (256, 1),
    }
    ours = config.setup(variant="eugen")
    assert [type(ours.network.layer(n)).__name__ for n in ("trunk_0", "trunk_1", "trunk_2", "trunk_3")] == [
        "DenseLinear",
        "EUGenLinear",
        "EUGenLinear",
        "DenseLinear",
    ]
    assert dense.multiply_adds() / ours.macs_per_query() > 1.8


def test_encoding_against_its_formula() -> None:
    encoding = OffAxisInputs(3, 0.8).double()
    encoding.centre.copy_(torch.tensor([0.5, 1.5, 0.5]))
    p = points().double()
    features = encoding(p).numpy()
    x = (p.numpy() - [0.5, 1.5, 0.5]) * 0.8
    directions = encoding.phases.numpy().T[:21]  # of the lowest frequency
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-6)
    apart = np.abs(directions @ directions.T) - np.eye(21)
    assert apart.max() < 0.9  # no two along one line
    phases = np.concatenate([2.0**k * (x @ directions.T) for k in range(3)], axis=-1)
    np.testing.assert_allclose(features, np.concatenate([x, np.sin(phases), np.cos(phases)], -1), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_against_finite_differences(variant: str) -> None:
    changes: dict[str, object] = {"function": "softplus100", "phi": "softplus100"} if variant != "snnk" else {}
    if variant == "snnk":
        changes = {"function": "sin"}  # an activation whose Fourier transform is a measure
    model = field(variant, **changes).double()
    p = points().double()
    distance, gradient = model.distance_and_gradient(p)
    assert distance.shape == (40,)
    assert gradient.shape == (40, 3)
    assert not distance.requires_grad
    step = 1e-5
    for k in range(3):
        shift = step * torch.eye(3, dtype=torch.float64)[k]
        # `distance` is float32
        slope = (raw(model, p + shift) - raw(model, p - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, k].double(), slope, atol=2e-5, rtol=1e-4)


def raw(model: ISDFField, p: Tensor) -> Tensor:
    """The distance in the network's own precision."""
    with torch.no_grad():
        return model.output_scale * model.network(model.encoding(p))[0][..., 0]


@pytest.mark.parametrize("variant", ["dense", "eugen"])
def test_with_and_without_a_graph_and_by_autograd(variant: str) -> None:
    model, p = field(variant), points()
    distance, gradient = model.distance_and_gradient(p)
    with_graph, gradient_with_graph = model.distance_and_gradient(p, create_graph=True)
    queried = p.clone().requires_grad_()
    (plain,) = torch.autograd.grad(model.distance(queried).sum(), queried)
    for other in (gradient_with_graph, plain):
        torch.testing.assert_close(gradient, other.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(distance, with_graph.detach(), atol=1e-6, rtol=1e-4)
    with torch.inference_mode():
        again = model.distance_and_gradient(points())
    torch.testing.assert_close(again[1].clone(), gradient)
    torch.testing.assert_close(model.forward_geonetwork(p)[:, 0].detach(), distance, atol=1e-6, rtol=1e-4)
    grid = model.distance_and_gradient(p.view(5, 8, 3))
    torch.testing.assert_close(grid[1].view(-1, 3), gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("variant", ["dense", "eugen"])
def test_second_derivatives_reach_the_weights_through_the_encoding(variant: str, norm: bool) -> None:
    """The pulled-back gradient has the derivatives in the weights that plain double backward has."""
    model = field(variant, function="softplus100", phi="softplus", norm=norm).double()
    p, direction = points(6).double(), points(6, seed=1).double()

    def loss(gradient: Tensor) -> Tensor:
        return (gradient.norm(dim=-1) - 1).abs().sum() + (gradient * direction).sum()

    parameters = [v for v in model.parameters() if v.requires_grad]
    pulled = torch.autograd.grad(
        loss(model.distance_and_gradient(p, create_graph=True)[1]), parameters, allow_unused=True
    )
    queried = p.clone().requires_grad_()
    plain_distance = model.output_scale * model.network(model.encoding(queried))[0].sum()
    (plain,) = torch.autograd.grad(plain_distance, queried, create_graph=True)
    expected = torch.autograd.grad(loss(plain), parameters, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in expected)
    for a, b in zip(pulled, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_scales_are_metres() -> None:
    """Shifting the scene shifts the field; the output's scale is a factor."""
    model = field()
    moved = field()
    moved.encoding.centre.add_(torch.tensor([5.0, -2.0, 1.0]))
    p = points()
    torch.testing.assert_close(
        moved.distance(p + torch.tensor([5.0, -2.0, 1.0])), model.distance(p), atol=1e-5, rtol=1e-4
    )
    wide = field(output_scale=0.28)
    torch.testing.assert_close(wide.distance(p), 2 * model.distance(p))


def test_the_centre_is_in_the_checkpoint() -> None:
    model, other = field(), SMALL.setup(variant="eugen")
    torch.testing.assert_close(model.encoding.centre, torch.tensor([0.5, 1.5, 0.5]))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.distance(points()), model.distance(points()))


def test_refusals() -> None:
    with pytest.raises(RunError, match="no density"):
        field().get_density(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'trunk_9' matches no layer; there are: trunk_0, trunk_1, trunk_2, trunk_3"):
        replace(SMALL, layers=("trunk_9",)).setup(variant="eugen")
