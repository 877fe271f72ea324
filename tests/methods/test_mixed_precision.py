"""Training steps of every preset under nerfstudio's mixed precision: networks multiply in half, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import reduce
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from tiny_runs import shrink_dnerf, shrink_unbounded
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eugen_nerf.methods.graph_model import GraphModel

PRESETS = sorted(name for name in all_methods if name.startswith("eugen-"))
HALVES = (torch.float16, torch.bfloat16)
SCALE = 2.0**7
"""Of the loss under float16: a GradScaler would come down to it."""


class Products(TorchDispatchMode):
    """Notes the dtypes of all matrix products that run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.dtypes.add(args[-1].dtype)
        return func(*args, **(kwargs or {}))


def shrink(settings: Any) -> None:
    """Makes any preset's model tiny."""
    if hasattr(settings, "deformation"):
        shrink_dnerf(settings)
    elif hasattr(settings, "proposal"):
        shrink_unbounded(settings)
    else:
        settings.network.trunk_width = 32
        settings.network.num_features = (12,) * len(settings.network.num_features)
        if hasattr(settings, "num_coarse_samples"):
            settings.num_coarse_samples = settings.num_importance_samples = 8
            settings.network.head_width = 16


def networks_of(settings: Any) -> list[Any]:
    """The settings of all networks of a model."""
    return [getattr(settings, name) for name in ("network", "proposal", "deformation") if hasattr(settings, name)]


def make_model(method: str, change: Callable[[Any], None] = lambda settings: None, **network: Any) -> GraphModel:
    """A preset's model, tiny, in training mode, whose grids hold something."""
    settings = deepcopy(all_methods[method].pipeline.model)
    shrink(settings)
    for part in networks_of(settings):
        for name, value in network.items():
            setattr(part, name, value)
    change(settings)
    torch.manual_seed(0)
    box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model: GraphModel = settings.setup(scene_box=box, num_train_data=1, metadata={})
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("grid.table"):
                value.normal_(std=0.05)
    return model.train()


def make_rays(count: int = 16) -> RayBundle:
    """Rays at a time through the scene box, with a surface that was measured along them."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3
    targets = torch.rand(count, 3, generator=generator) - 0.5
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    return RayBundle(
        origins=origins,
        directions=directions,
        pixel_area=torch.full((count, 1), 1e-4),
        camera_indices=torch.zeros(count, 1, dtype=torch.long),
        times=torch.rand(count, 1, generator=generator),
        metadata={"directions_norm": torch.ones(count, 1)},
    )


def step(model: GraphModel, dtype: torch.dtype | None, *, scale: float = 1.0) -> tuple[dict[str, Tensor], set[Any]]:
    """A training step under an autocast outside, as nerfstudio's trainer makes it; gradients are kept.

    Returns losses and outputs, and the dtypes of the matrix products of the forward pass.
    """
    rays = make_rays()
    if "isdf" in type(model).__name__.lower():
        normals = -rays.directions
        rays.metadata |= {
            "surface_distance": torch.full((len(rays), 1), 2.0),
            "surface_normals": normals,
            "frame": torch.zeros(len(rays), 1, dtype=torch.long),
        }
    batch = {"image": torch.rand(len(rays), 3, generator=torch.Generator().manual_seed(1))}
    torch.manual_seed(0)
    model.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None), Products() as products:
        outputs = model(rays)
        losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
        loss = reduce(torch.add, losses.values())
    (scale * loss).backward()
    found = {**losses, **{k: v for k, v in outputs.items() if isinstance(v, Tensor)}}
    return {k: v.detach() for k, v in found.items()}, products.dtypes


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", PRESETS)
def test_nothing_but_networks_runs_in_half(method: str, dtype: torch.dtype) -> None:
    """Where the networks are set to float32, a whole step equals one without mixed precision, bit for bit."""
    model = make_model(method, train_precision="float32")
    expected, _ = step(model, None)
    expected_gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    found, products = step(model, dtype)
    assert products == {torch.float32}
    assert found.keys() == expected.keys()
    for key in expected:
        assert torch.equal(found[key], expected[key]), key
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(map(torch.equal, gradients, expected_gradients))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", PRESETS)
def test_networks_take_up_the_autocast_outside(method: str, dtype: torch.dtype) -> None:
    model = make_model(method)
    inputs: list[Tensor] = []
    for field in model.graph_fields().values():
        field.network.register_forward_pre_hook(lambda _, given: inputs.extend(given))
    exact, _ = step(model, None)
    encoded, inputs[:] = inputs[0], []
    found, products = step(model, dtype, scale=SCALE)
    assert dtype in products
    assert all(x.dtype == torch.float32 for x in inputs), "an encoding is in half"
    assert torch.equal(inputs[0], encoded), "the first network's inputs do not depend on any network"
    for key, value in found.items():
        assert value.dtype == exact[key].dtype, key
        assert not value.is_floating_point() or value.isfinite().all(), key
    losses = [
        sum(float(v) for k, v in values.items() if k.endswith(("loss", "fine", "coarse")) and v.ndim == 0)
        for values in (found, exact)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", [name for name in PRESETS if name.endswith("-small")])
def test_norm_and_degree_2_have_finite_gradients_in_half(method: str, dtype: torch.dtype) -> None:
    # the other start squares its numbers in each of eight layers, beyond what float16 holds
    model = make_model(method, norm=True, degree=2, start="linear")
    _, products = step(model, dtype, scale=SCALE)
    assert dtype in products
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert any(n.endswith("projection_norm") for n in gradients) or "hash" in method
    assert all(g.isfinite().all() for g in gradients.values())


@pytest.mark.parametrize("method", [name for name in PRESETS if name.endswith("-small")])
def test_the_arithmetic_of_a_model_is_that_of_its_networks(method: str) -> None:
    """bfloat16 needs no autocast outside and wins over one, exact takes none, a network's own setting wins."""

    def products(arithmetic: str, outside: torch.dtype | None, **network: Any) -> set[torch.dtype]:
        return step(make_model(method, lambda s: setattr(s, "arithmetic", arithmetic), **network), outside)[1]

    half = products("bfloat16", None)
    assert torch.bfloat16 in half
    assert products("bfloat16", torch.float16) == half
    assert products("exact", torch.float16) == {torch.float32}
    assert products("bfloat16", None, train_precision="float32") == {torch.float32}
    assert products("exact", None, train_precision="bfloat16") == half


@pytest.mark.parametrize("method", [name for name in PRESETS if name.endswith("-small")])
def test_evaluation_is_float32_whatever_training_was(method: str) -> None:
    fast = make_model(method).eval()
    half = make_model(method, lambda settings: setattr(settings, "arithmetic", "bfloat16")).eval()
    with torch.no_grad(), Products() as products:
        expected, found = fast(make_rays()), half(make_rays())
    assert products.dtypes <= {torch.float32, torch.float64}, "collapsing is in float64"
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


@pytest.mark.parametrize("dtype", HALVES)
def test_an_integrated_encoding_without_a_model_keeps_its_digits(dtype: torch.dtype) -> None:
    """At frequency 2^11 float16 leaves an error of 0.2 of a range of 2."""
    field = make_model(
        "eugen-mipnerf360-small", lambda s: setattr(s.network, "position_frequencies", 12)
    ).graph_fields()["field"]
    model = make_model("eugen-mipnerf360-small")
    collided = model.collider(make_rays())
    samples = model.sampler.first(collided, num_samples=8)
    expected = field.encode(samples)
    inputs: list[Tensor] = []
    field.network.register_forward_pre_hook(lambda _, given: inputs.extend(given))
    with torch.autocast("cpu", dtype), Products() as products:
        found = field.encode(samples)
        outputs = field(samples)
    assert dtype in products.dtypes
    for a, b in zip((*found, *inputs), (*expected, *expected), strict=True):
        assert torch.equal(a, b)
    assert all(value.dtype == torch.float32 for value in outputs.values())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_signed_distance_without_a_model(dtype: torch.dtype) -> None:
    field = make_model("eugen-isdf-small").graph_fields()["distance"]
    points = torch.rand(32, 3) * 4
    features = field.encoding(points)
    distance, gradient = field.eval().distance_and_gradient(points)
    with torch.autocast("cpu", dtype), Products() as products:
        assert torch.equal(field.encoding(points), features)
        half_distance, half_gradient = field.train().distance_and_gradient(points, create_graph=True)
        loss = half_distance.square().mean() + (half_gradient.norm(dim=-1) - 1).square().mean()
    assert dtype in products.dtypes
    loss.backward()
    assert half_distance.dtype == half_gradient.dtype == torch.float32
    torch.testing.assert_close(half_distance.detach(), distance, rtol=0.05, atol=0.02)
    # at most points: rounding takes a ReLU over its kink here and there
    errors = (half_gradient.detach() - gradient).norm(dim=-1) / gradient.norm(dim=-1)
    assert float(errors.median()) < 0.05
    assert all(p.grad is None or p.grad.isfinite().all() for p in field.parameters())
