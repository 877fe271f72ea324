"""Inference plans, against numpy run layer by layer and against the networks themselves."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from oracles import array
from plan_networks import ENCODED, NETWORKS, encodings_of, inputs_of, network, points_of, strided, truth, truth_of

from eugen_nerf.core import BundledGraph, ConfigError, InferencePlan, make_plan
from eugen_nerf.core.encodings.point_encodings import ContractedEncoding
from eugen_nerf.core.inference.chunks import chunk_rows

pytestmark = pytest.mark.processor
CPU = torch.device("cpu")
PHASES = 5e-4
"""Of the largest output, what encodings make of it that count phases of 2^9 turns in float32, as the reference does."""


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests with Triton's interpreter chosen."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def _near(plan: InferencePlan, inputs: list[torch.Tensor], truth: list[np.ndarray], tolerance: float) -> None:
    for y, exact in zip(plan(*inputs), truth, strict=True):
        assert y.dtype == torch.float32
        assert y.shape == exact.shape
        assert np.abs(array(y) - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.06)])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_plan_gives_what_the_layers_give_within_what_it_states(name: str, dtype: str, tolerance: float) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, dtype=dtype, chunk=32)  # type: ignore[arg-type]
    truth = truth_of(graph, inputs)
    _near(plan, inputs, truth, tolerance)
    with torch.no_grad():
        network_gives = graph(*inputs)
    # two float32 sums of the same numbers in another order, and what the plan states
    largest = max(np.abs(exact).max() for exact in truth)
    for y, own, exact in zip(plan(*inputs), network_gives, truth, strict=True):
        assert float((y - own).abs().max()) <= plan.deviation + 1e-6 * largest
        assert np.abs(array(y) - exact).max() <= plan.deviation + 1e-5 * largest
    if dtype == "bfloat16":
        differences = [float((y - own).abs().max()) for y, own in zip(plan(*inputs), network_gives, strict=True)]
        assert plan.deviation == pytest.approx(max(differences), rel=1e-3)
        assert plan.deviation > 1e-4 * largest


@pytest.mark.parametrize("name", ["nerf", "proposal", "norm degree 2"])
def test_inputs_of_any_shape_and_strides(name: str) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    truth = truth_of(graph, inputs)
    plan = make_plan(graph, inputs)
    _near(plan, strided(inputs), truth, 1e-5)
    shaped = plan(*(x.view(2, 5, 7, -1) for x in inputs))
    empty = plan(*(x[:0].view(0, 3, x.shape[1]) for x in inputs))
    single = plan(*(x[4] for x in inputs))
    for y, none, one, exact in zip(shaped, empty, single, truth, strict=True):
        assert np.abs(array(y).reshape(exact.shape) - exact).max() <= 1e-5 * np.abs(exact).max()
        assert none.shape == (0, 3, exact.shape[1])
        assert one.shape == exact.shape[1:]
        assert np.abs(array(one) - exact[4]).max() <= 1e-5 * np.abs(exact).max()
    _near(plan, [x.double() for x in inputs], truth, 1e-5)


def test_made_and_asked_in_inference_mode() -> None:
    graph = network("norm")
    inputs = inputs_of(graph)
    truth = truth_of(graph, inputs)
    with torch.inference_mode():
        _near(make_plan(graph, inputs), inputs, truth, 1e-5)
    _near(make_plan(graph, inputs), inputs, truth, 1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 64, 1000])
def test_chunks_change_rounding_alone(chunk: int) -> None:
    graph = network("degree 2")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, chunk=chunk)
    assert plan.chunk == chunk
    _near(plan, inputs, truth_of(graph, inputs), 1e-5)


def test_the_network_stays_and_the_plan_does_not_follow_it() -> None:
    graph = network("norm degree 2")
    inputs = inputs_of(graph)
    before, truth = copy.deepcopy(graph.state_dict()), truth_of(graph, inputs)
    plans = [make_plan(graph, inputs), make_plan(BundledGraph(graph.collapse(), graph.input_widths), inputs)]
    assert graph.plan is None
    assert all(torch.equal(before[key], value) for key, value in graph.state_dict().items())
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    for plan in plans:
        _near(plan, inputs, truth, 1e-5)


def test_a_bundled_network_is_copied_too() -> None:
    graph = network("norm")
    inputs = inputs_of(graph)
    bundled = BundledGraph(graph.collapse(), graph.input_widths)
    plan = make_plan(bundled, inputs)
    for buffer in bundled.buffers():
        buffer.zero_()
    _near(plan, inputs, truth_of(graph, inputs), 1e-5)


def test_a_network_runs_its_plan() -> None:
    graph = network("degree 1")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, dtype="bfloat16")
    graph.plan = plan
    with torch.no_grad():
        for y, planned in zip(graph(*inputs), plan(*inputs), strict=True):
            assert torch.equal(y, planned)
    assert all(y.requires_grad for y in graph(*inputs))


def test_no_plan_of_former_weights_stays() -> None:
    graph = network("degree 1")
    plan = make_plan(graph, inputs_of(graph))
    name = graph.names[0]
    changes = {
        "a layer is replaced": lambda: graph.replace_layer(name, copy.deepcopy(graph.layer(name))),
        "weights are loaded": lambda: graph.load_state_dict(graph.state_dict()),
        "weights of a model around it are loaded": lambda: torch.nn.ModuleList([graph]).load_state_dict(
            {f"0.{key}": value for key, value in graph.state_dict().items()}
        ),
    }
    for what, change in changes.items():
        graph.plan = plan
        change()
        assert graph.plan is None, what
    graph.plan = plan
    assert copy.deepcopy(graph).plan is None
    assert pickle.loads(pickle.dumps(graph)).plan is None
    assert graph.plan is plan


def test_the_former_name_of_a_networks_plan_works_and_warns() -> None:
    graph = network("degree 1")
    plan = make_plan(graph, inputs_of(graph))
    with pytest.warns(DeprecationWarning, match=r"LayerGraph\.evaluation is called LayerGraph\.plan now"):
        graph.evaluation = plan
    assert graph.plan is plan
    with pytest.warns(DeprecationWarning, match="is called"):
        assert graph.evaluation is plan


def test_what_is_not_a_number_is_stated_as_infinite() -> None:
    graph = network("proposal")
    with torch.no_grad():
        graph.layer("trunk_1").bias[0] = torch.inf  # type: ignore[index,operator]
        graph.layer("trunk_2").weight[0, 0] = 0.0  # type: ignore[index,operator]
    assert make_plan(graph, inputs_of(graph)).deviation == float("inf")


def test_compiled_plans_are_not_taken_for_recompilations(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch runs what was recompiled too often without a compiler, and all plans have one source."""
    # torch counts before a backend gets the captured graph: this one needs no compiler
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for name in ("degree 1", "proposal"):
            graph = network(name)
            plan = make_plan(graph, inputs_of(graph), backend="compile", dtype="bfloat16")
            assert (plan.backend, plan.fallback) == ("compile", None)
            _near(plan, inputs_of(graph), truth_of(graph, inputs_of(graph)), 0.05)


def test_compiled() -> None:
    """One shape is compiled: whole chunks, whatever the number of rows."""
    graph = network("degree 1")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, backend="compile", chunk=32)
    if plan.fallback is not None:
        pytest.skip(plan.fallback)
    assert str(plan).startswith("compile, float32, chunks of 32 rows, within ")
    truth = truth_of(graph, inputs)
    _near(plan, inputs, truth, 1e-5)
    _near(plan, strided(inputs), truth, 1e-5)
    _near(plan, [x[:1] for x in inputs], [exact[:1] for exact in truth], 1e-4)
    assert plan(*(x[:0] for x in inputs))[0].shape == (0, 1)
    with torch.inference_mode():
        _near(plan, inputs, truth, 1e-5)


# ---- what a plan states, and what it falls back to


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", PHASES), ("bfloat16", 0.06)])
@pytest.mark.parametrize("name", ENCODED)
def test_a_plan_encodes_points(name: str, dtype: str, tolerance: float) -> None:
    points, exact = points_of(name), truth(name)
    plan = make_plan(network(name), points, dtype=dtype, chunk=32, encodings=encodings_of(name))  # type: ignore[arg-type]
    assert plan.encodes
    assert "; encodes points itself" in str(plan)
    _near(plan, points, exact, tolerance)
    largest = max(np.abs(y).max() for y in exact)
    for y, of_float64 in zip(plan(*points), exact, strict=True):
        assert np.abs(array(y) - of_float64).max() <= plan.deviation + PHASES * largest
    needed = network(name).needed_inputs((0,))
    (part,) = plan(*(points[i] for i in needed), outputs=(0,))
    assert np.abs(array(part) - exact[0]).max() <= plan.part((0,)).deviation + PHASES * largest
    assert plan.part((0,)).encodes


def test_a_network_that_answers_by_a_plan_of_points_is_asked_with_points() -> None:
    graph, points = network("encoded"), points_of("encoded")
    with torch.no_grad():
        expected = graph(*(e(x, x[:, :1]) for e, x in zip(encodings_of("encoded"), points, strict=True)))
        graph.plan = make_plan(graph, points, encodings=encodings_of("encoded"))
        for y, own in zip(graph(*points), expected, strict=True):
            assert float((y - own).abs().max()) <= 1e-6 * float(own.abs().max())
    with pytest.raises(ConfigError, match=r"inputs have widths \[3, 3\], expected \[63, 27\]"):
        graph(*points)  # with gradients the network itself is evaluated


def test_the_kernel_is_not_asked_to_compute_other_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.core.inference.plan_backends.kernel_unavailable_reason", lambda device: None)
    monkeypatch.setattr("eugen_nerf.core.inference.plan_backends.as_sinusoids", lambda encoding: None)
    plan = make_plan(network("encoded"), points_of("encoded"), backend="triton", encodings=encodings_of("encoded"))
    assert (plan.backend, plan.fallback) == ("eager", "not triton: the fused kernel computes no frequency encoding")
    _near(plan, points_of("encoded"), truth("encoded"), PHASES)


def test_statement() -> None:
    graph = network("nerf")
    plan = make_plan(graph, inputs_of(graph), dtype="bfloat16", chunk=2048)
    assert str(plan) == f"eager, bfloat16, chunks of 2,048 rows, within {plan.deviation:.1e} of float32 on 70 samples"


def test_without_a_device_triton_falls_back_to_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    graph = network("nerf")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, backend="triton")
    assert plan.backend == "eager"
    assert "; not triton: triton has no kernels for cpu" in str(plan)
    assert "\n" not in str(plan)
    _near(plan, inputs, truth_of(graph, inputs), 1e-5)


def test_a_network_that_the_kernel_refuses_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.core.inference.plan_backends.kernel_unavailable_reason", lambda device: None)
    graph = network("monarch")
    plan = make_plan(graph, inputs_of(graph), backend="triton")
    assert plan.backend == "eager"
    assert str(plan.fallback).startswith("not triton: step 0 of the collapsed network has diagonal blocks")


def test_failures_while_a_backend_is_tried_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of registers\nsecond line")

    graph = network("nerf")
    monkeypatch.setattr("eugen_nerf.core.inference.plan_backends.kernel_unavailable_reason", lambda device: None)
    monkeypatch.setattr("eugen_nerf.core.inference.plan_backends.check_fused", fail)
    assert make_plan(graph, inputs_of(graph), backend="triton").fallback == "not triton: out of registers"
    monkeypatch.setattr(torch, "compile", fail)
    plan = make_plan(graph, inputs_of(graph), backend="compile")
    assert (plan.backend, plan.fallback) == ("eager", "not compile: out of registers")


def test_chunks_fit_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eugen_nerf.core.inference.chunks._cache_bytes", lambda device: 1 << 20)
    graph = network("nerf").collapse()  # the widest step reads 9 + 24 numbers and makes 24
    assert chunk_rows(graph, (9, 5), torch.float32, CPU) == 4096  # 57 numbers of 4 bytes: 4,599 rows
    assert chunk_rows(graph, (9, 5), torch.bfloat16, CPU) == 8192
    for size, expected in ((1, 256), (1 << 40, 1 << 16)):
        monkeypatch.setattr("eugen_nerf.core.inference.chunks._cache_bytes", lambda device, size=size: size)
        assert chunk_rows(graph, (9, 5), torch.float32, CPU) == expected


def test_refusals() -> None:
    graph = network("nerf")
    inputs = inputs_of(graph)
    with pytest.raises(ConfigError, match="and not of a Linear"):
        make_plan(torch.nn.Linear(9, 4), inputs)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'onnx' is unknown; choose one of eager, compile, triton, wgpu"):
        make_plan(graph, inputs, backend="onnx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'float16' is unknown to eager; choose one of float32, bfloat16"):
        make_plan(graph, inputs, dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="chunk is 0; give at least 1 row"):
        make_plan(graph, inputs, chunk=0)
    with pytest.raises(ConfigError, match="sample_inputs have no rows"):
        make_plan(graph, [x[:0] for x in inputs])
    with pytest.raises(ConfigError, match=r"last dimensions are \[9, 5\]"):
        make_plan(graph, inputs[:1])
    plan = make_plan(graph, inputs)
    with pytest.raises(ConfigError, match="all dimensions but the last must agree"):
        plan(inputs[0], inputs[1][:1])
    with pytest.raises(ConfigError, match="a plan gives no gradients: call the network itself"):
        plan(inputs[0].clone().requires_grad_(), inputs[1])
    points = points_of("encoded")
    with pytest.raises(ConfigError, match=r"encodings make inputs of widths \[63\]; the network takes \[63, 27\]"):
        make_plan(network("encoded"), points, encodings=encodings_of("encoded")[:1])
    scaled = [ContractedEncoding(torch.eye(9)[:, :3], 1), None]
    scaled[0].out_features = 9
    with pytest.raises(ConfigError, match="needs a scale too"):
        make_plan(graph, inputs, encodings=scaled)
