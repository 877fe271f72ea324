"""The backend `wgpu` of inference plans, against numpy and PyTorch, by whatever adapter WebGPU finds here."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import array, draw
from plan_networks import (
    ENCODED,
    FUSED,
    arguments,
    encodings_of,
    inputs_of,
    network,
    points_of,
    strided,
    truth,
    truth_of,
)
from torch import Tensor

from eugen_nerf.core import BundledGraph, ConfigError, InferencePlan, make_plan
from eugen_nerf.core.encodings.cube_encodings import SphericalEncoding
from eugen_nerf.core.inference import plan_backends
from eugen_nerf.core.layers import activations
from eugen_nerf.core.layers.activations import activation
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.web.native import adapters, network_plans, network_shader
from eugen_nerf.web.native.adapters import GpuAdapter, machine_adapters
from eugen_nerf.web.native.network_plans import GpuNetwork

SMALL = {"max-compute-workgroup-storage-size": 16352, "max-storage-buffer-binding-size": 1 << 27}
"""Limits of an adapter, bytes."""


@pytest.fixture(autouse=True)
def packages() -> None:
    if (reason := adapters.missing_packages_reason()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def adapter() -> GpuAdapter:
    """The machine's best."""
    found = machine_adapters()
    if not found:
        pytest.skip("WebGPU finds no adapter here: apt-get install mesa-vulkan-drivers")
    return found[0]


def near(plan: InferencePlan, inputs: list[Tensor], expected: list[np.ndarray], tolerance: float) -> None:
    for y, exact in zip(plan(*inputs), expected, strict=True):
        assert y.dtype == torch.float32
        assert y.shape == exact.shape
        assert np.abs(array(y) - exact).max() <= tolerance * np.abs(exact).max()


def planned(graph: CollapsedGraph, inputs: list[Tensor], **options: Any) -> InferencePlan:
    """By wgpu, or the test fails with the reason."""
    bundled = BundledGraph(graph, [x.shape[1] for x in inputs])
    plan = make_plan(bundled, inputs, backend="wgpu", **options)
    assert (plan.backend, plan.fallback) == ("wgpu", None)
    return plan


def layer(phi: str, columns: int, rows: int, degree: int = 1, **form: Any) -> CollapsedGraph:
    """One layer, and one output of all its features."""
    weight = draw(rows, columns, seed=7).float() / columns**0.5
    stage = MergedStage(weight, draw(rows, seed=8).float(), None, degree, True, phi, **form)
    return CollapsedGraph(((stage, (0,)),), ((1, Affine()),))


def small(largest: int, shared: int = SMALL["max-compute-workgroup-storage-size"]) -> GpuAdapter:
    """An adapter that no device can be opened on: what it is too small for is refused before."""
    limits = {**SMALL, "max-compute-workgroup-storage-size": shared, "max-buffer-size": largest}
    return GpuAdapter("Tiny", "IntegratedGPU", "Vulkan", SimpleNamespace(limits=limits))


# ---- what it computes


@pytest.mark.parametrize("name", FUSED)
def test_a_plan_gives_what_the_layers_give(adapter: GpuAdapter, name: str) -> None:
    graph = network(name)
    inputs, expected = inputs_of(graph), truth_of(graph, inputs_of(graph))
    plan = make_plan(graph, inputs, backend="wgpu")
    assert (plan.backend, plan.dtype, plan.fallback) == ("wgpu", "float32", None)
    near(plan, inputs, expected, 1e-5)
    largest = max(np.abs(exact).max() for exact in expected)
    for y, exact in zip(plan(*inputs), expected, strict=True):
        assert np.abs(array(y) - exact).max() <= plan.deviation + 1e-5 * largest


@pytest.mark.parametrize("name", ["nerf", "norm degree 2", "wide norm", "harmonic degree 2"])
def test_float16_is_of_matrices(adapter: GpuAdapter, name: str) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, backend="wgpu", dtype="float16")
    assert (plan.backend, plan.dtype, plan.fallback) == ("wgpu", "float16", None)
    near(plan, inputs, truth_of(graph, inputs), 0.01)
    assert plan.deviation > 1e-5, "matrices are rounded"
    rounded = graph.collapse()
    for matrix in (*(s.weight for s, _ in rounded.steps), *(f[0] for s, _ in rounded.steps for f in s.factors if f)):
        matrix.copy_(matrix.half().float())
    for _, affine in rounded.outputs:
        if affine.weight is not None:
            affine.weight.copy_(affine.weight.half().float())
    near(plan, inputs, [array(y) for y in rounded(*inputs)], 1e-5)


@pytest.mark.parametrize("name", ENCODED)
def test_points_are_encoded_by_the_shader(adapter: GpuAdapter, name: str) -> None:
    plan = make_plan(network(name), points_of(name), backend="wgpu", encodings=encodings_of(name))
    assert (plan.backend, plan.fallback) == ("wgpu", None)
    assert plan.encodes
    near(plan, points_of(name), truth(name), 1e-5)
    needed = network(name).needed_inputs((0,))
    (part,) = plan(*(points_of(name)[i] for i in needed), outputs=(0,))
    assert np.abs(array(part) - truth(name)[0]).max() <= 1e-5 * np.abs(truth(name)[0]).max()


def test_harmonics_are_the_shaders_and_a_third_point_is_encoded_before_it(adapter: GpuAdapter) -> None:
    sphere = SphericalEncoding(3)
    encodings = [sphere, sphere, sphere]
    assert network_shader.on_shader(encodings) == (sphere, sphere, None)
    points = [torch.nn.functional.normalize(draw(20, 3, seed=i).float(), dim=1) for i in range(3)]
    weight = draw(5, 27, seed=9).float()
    graph = CollapsedGraph(((MergedStage(weight, None, None, 1, True, "sin"), (0, 1, 2)),), ((3, Affine()),))
    network = BundledGraph(graph, (9, 9, 9))
    plan = make_plan(network, points, backend="wgpu", encodings=encodings)
    assert plan.fallback is None
    features = torch.cat([sphere(x, x[:, :1]) for x in points], dim=1)
    near(plan, points, [np.sin(array(features) @ array(weight).T)], 1e-5)


@pytest.mark.parametrize("function", [*activations.ACTIVATIONS, "silu", "gelu_tanh", "leaky_relu(0.2)", "elu"])
def test_functions_are_those_of_pytorch(adapter: GpuAdapter, function: str) -> None:
    x = arguments()[:-1]
    stage = MergedStage(torch.eye(3), None, None, 1, True, function)
    plan = planned(CollapsedGraph(((stage, (0,)),), ((1, Affine()),)), [x])
    exact = activation(function)(x.double())
    (y,) = plan(x)
    assert float((y - exact).abs().max()) <= 2e-5 * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize("product", PRODUCTS)
def test_products_of_degree_2(adapter: GpuAdapter, product: str) -> None:
    graph, x = layer("identity", 9, 14, 2, product=product), draw(33, 9, seed=1).float()
    near(planned(graph, [x]), [x], [array(y) for y in graph.cast(torch.float64)(x.double())], 1e-5)


@pytest.mark.parametrize("widths", [(1, 1), (3, 5), (97, 7), (131, 66), (33, 300)])
def test_widths_of_every_kind(adapter: GpuAdapter, widths: tuple[int, int]) -> None:
    """One number, odd ones, inputs that are read some at a time, outputs of many numbers with a matrix or without."""
    columns, features = widths
    graph, x = layer("relu", columns, features), draw(19, columns, seed=2).float()
    matrix = draw(features + 1, features, seed=3).float()
    both = CollapsedGraph(graph.steps, (*graph.outputs, (1, Affine(matrix, None)), (1, Affine(matrix[:2], None))))
    near(planned(both, [x]), [x], [array(y) for y in both.cast(torch.float64)(x.double())], 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_number_of_rows_in_any_chunks(adapter: GpuAdapter, dtype: str) -> None:
    graph = network("norm degree 2")
    inputs = inputs_of(graph, 1013)
    plan = make_plan(graph, inputs[:2], backend="wgpu", dtype=dtype, chunk=64)  # type: ignore[arg-type]
    assert plan.chunk == 64
    expected = truth_of(graph, inputs)
    tolerance = 1e-5 if dtype == "float32" else 0.01
    for count in (0, 1, 2, 63, 64, 65, 1013):
        rows = [x[:count] for x in inputs]
        if count:
            near(plan, rows, [y[:count] for y in expected], tolerance * 10)
        assert [y.shape for y in plan(*rows)] == [(count, y.shape[1]) for y in expected]
    near(plan, strided(inputs), expected, tolerance)
    near(plan, [x.double() for x in inputs], expected, tolerance)
    shaped = plan(*(x.view(1, 1013, -1) for x in inputs))
    assert [y.shape for y in shaped] == [(1, *y.shape) for y in expected]


def test_rows_beyond_one_launch(adapter: GpuAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_plans, "MOST_ROWS", 100)
    graph, x = layer("relu", 3, 5), draw(1001, 3, seed=4).float()
    plan = planned(graph, [x])
    assert plan.chunk == 100
    assert planned(graph, [x], chunk=1 << 20).chunk == 100
    near(plan, [x], [array(y) for y in graph(x)], 1e-5)


def test_what_is_not_a_number_stays_so(adapter: GpuAdapter) -> None:
    graph = network("nerf")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, backend="wgpu")
    inputs[0][3, 2] = torch.nan
    for y in plan(*inputs):
        assert y[3].isnan().all()
        assert not y[4].isnan().any()


# ---- what it is checked for, and what follows


def test_wrong_outputs_are_found_before_the_plan_is_used(adapter: GpuAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = GpuNetwork._evaluate
    monkeypatch.setattr(GpuNetwork, "_evaluate", lambda self, rows, count: 1.2 * evaluate(self, rows, count))
    graph = network("nerf")
    plan = make_plan(graph, inputs_of(graph), backend="wgpu", dtype="float16")
    assert (plan.backend, plan.dtype) == ("eager", "float32")
    assert str(plan.fallback).startswith("not wgpu: output 0 of the kernel differs by ")
    near(plan, inputs_of(graph), truth_of(graph, inputs_of(graph)), 1e-5)


def test_a_lost_gpu_is_replaced_by_pytorch(adapter: GpuAdapter) -> None:
    graph = network("nerf")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, backend="wgpu")
    assert isinstance(plan.run, GpuNetwork)
    plan.run.device.destroy()
    with pytest.warns(RuntimeWarning, match="was lost or cannot go on .*: PyTorch evaluates this network from now on"):
        near(plan, inputs, truth_of(graph, inputs), 1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near(plan, inputs, truth_of(graph, inputs), 1e-5)


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda module: None)
    graph = network("nerf")
    plan = make_plan(graph, inputs_of(graph), backend="wgpu")
    assert plan.backend == "eager"
    assert "not wgpu: wgpu and mini-racer not installed: pip install 'eugen_nerf[wgpu]'" in str(plan)


def test_without_the_package_above_it_core_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_backends, "ADAPTER_BACKEND", "eugen_nerf.web.absent.network_plans")
    graph = network("nerf")
    plan = make_plan(graph, inputs_of(graph), backend="wgpu")
    assert plan.fallback == "not wgpu: eugen_nerf.web.absent.network_plans is not installed"
    assert not plan_backends.has_other_gpu(torch.device("cpu"))


def test_without_an_adapter_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_plans, "machine_adapters", list)
    graph = network("nerf")
    plan = make_plan(graph, inputs_of(graph), backend="wgpu")
    assert str(plan.fallback).startswith("not wgpu: WebGPU finds no adapter here")
    assert network_plans.unavailable_reason(torch.device("meta")) == (
        "it takes tensors on the CPU, and these are on meta"
    )


def test_software_is_never_taken_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for kinds, expected in (([], False), (["CPU"], False), (["IntegratedGPU", "CPU"], True)):
        found = [GpuAdapter("it", kind, "Vulkan", None) for kind in kinds]
        monkeypatch.setattr(network_plans, "machine_adapters", lambda found=found: found)
        network_plans.has_gpu.cache_clear()
        assert plan_backends.has_other_gpu(cpu) is expected
    assert not plan_backends.has_other_gpu(torch.device("meta"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not plan_backends.has_other_gpu(cpu)
    network_plans.has_gpu.cache_clear()


# ---- what it cannot run


def test_networks_that_it_does_not_know_are_refused_by_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gap(graph: CollapsedGraph, *widths: int) -> str | None:
        return network_plans.unsupported_reason(graph, widths)

    assert gap(layer("relu", 3, 5), 3) is None
    monkeypatch.setitem(activations._CONVERSION_ONLY, "mish", torch.nn.functional.mish)
    assert str(gap(layer("mish", 3, 5), 3)).startswith(
        "step 0 of the collapsed network has the function mish, the shader knows cos, elu, "
    )
    assert "has diagonal blocks (Monarch)" in str(gap(network("monarch").collapse(), 9, 5))
    assert "has degree 9 and 9 projections, the shader takes at most 8" in str(gap(layer("relu", 3, 9, 9), 3))
    assert gap(layer("relu", 3, 5000), 3) == "a value of the network is 5000 wide, the shader takes at most 4096"
    assert gap(layer("relu", 3, 5), *[1] * 5) == "the network has 5 inputs, the shader takes 1 to 4"
    through = CollapsedGraph(layer("relu", 3, 5).steps, ((0, Affine()),))
    assert gap(through, 3) == "output 0 is input 0 itself, the shader writes what layers make"


def test_outputs_that_are_affine_in_an_input(adapter: GpuAdapter) -> None:
    x, matrix = draw(9, 3, seed=5).float(), draw(6, 3, seed=6).float()
    steps = layer("relu", 3, 5).steps
    wide = CollapsedGraph(steps, ((0, Affine(matrix, None)), (1, Affine())))
    near(planned(wide, [x]), [x], [array(y) for y in wide(x)], 1e-5)
    narrow = CollapsedGraph(steps, ((0, Affine(matrix[:2], None)), (1, Affine())))
    near(planned(narrow, [x]), [x], [array(y) for y in narrow(x)], 1e-5)


def test_dtypes_of_other_backends_are_refused() -> None:
    graph = network("nerf")
    with pytest.raises(ConfigError, match="'bfloat16' is unknown to wgpu; choose one of float32, float16"):
        make_plan(graph, inputs_of(graph), backend="wgpu", dtype="bfloat16")


def test_a_weight_beyond_float16_is_named(adapter: GpuAdapter) -> None:
    graph = layer("relu", 3, 5)
    graph.steps[0][0].weight[1, 2] = 7e4
    bundled, x = BundledGraph(graph, (3,)), draw(9, 3, seed=5).float()
    plan = make_plan(bundled, [x], backend="wgpu", dtype="float16")
    assert plan.fallback == "not wgpu: a weight of 7e+04 does not fit float16: take float32"
    assert make_plan(bundled, [x], backend="wgpu").fallback is None


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (small(1 << 27, 2048), r"its layers take \d+ bytes that a workgroup shares, and this GPU has 2048: take"),
        (
            small(400),
            r"its weights take 64,000 bytes and Tiny holds 400 at a time: take another GPU or the backend eager",
        ),
    ],
)
def test_an_adapter_that_is_too_small_is_told_what_is_needed(limit: GpuAdapter, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GpuNetwork(limit, layer("relu", 100, 160), (100,), "float32", (None,))
