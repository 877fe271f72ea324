"""Some outputs of a network alone: bit for bit those of the whole, and nothing else is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import array
from plan_networks import NETWORKS, inputs_of, network, truth_of

from eugen_nerf.core import (
    ConfigError,
    EUGenConfig,
    LayerGraph,
    NeRFShape,
    Replacement,
    build_variant,
    make_plan,
    reduce_precision,
)
from eugen_nerf.core.inference.onednn import DTYPES, OneDNNGraph, has_onednn

CPU = torch.device("cpu")

pytestmark = pytest.mark.processor


def _two_outputs() -> list[str]:
    return [name for name in NETWORKS if len(network(name).outputs) == 2]


@pytest.mark.parametrize("name", _two_outputs())
def test_the_first_output_alone_is_that_of_the_whole(name: str) -> None:
    graph = network(name)
    position, direction = inputs_of(graph)
    with torch.no_grad():
        density, _ = graph(position, direction)
        (alone,) = graph(position, outputs=(0,))
        _, colour = graph(position, direction, outputs=(0, 1))
        (second,) = graph(position, direction, outputs=(1,))
    assert torch.equal(alone, density)
    assert torch.equal(colour, second)
    whole, used = graph.collapse().pruned(2, (0, 1)), graph.collapse().pruned(2, (0,))
    assert whole[1] == (0, 1)
    assert used[1] == (0,) == graph.needed_inputs((0,))
    assert used[0].multiply_adds() < whole[0].multiply_adds() == graph.multiply_adds()


def test_parts_follow_the_weights() -> None:
    graph = network("degree 1")
    position, direction = inputs_of(graph)
    with torch.no_grad():
        before = graph(position, outputs=(0,))[0]
        next(graph.layer("trunk_0").parameters()).mul_(1.5)
        after = graph(position, outputs=(0,))[0]
        assert not torch.equal(before, after)
        assert torch.equal(after, graph(position, direction)[0])


@pytest.mark.parametrize("name", ["nerf", "degree 2", "norm"])
def test_a_part_has_the_gradients_of_the_whole(name: str) -> None:
    graph = network(name)
    position, direction = inputs_of(graph)
    whole = torch.autograd.grad(
        graph(position, direction)[0].square().sum(), graph.layers.parameters(), allow_unused=True
    )
    part = torch.autograd.grad(
        graph(position, outputs=(0,))[0].square().sum(), graph.layers.parameters(), allow_unused=True
    )
    for a, b in zip(whole, part, strict=True):
        assert (a is None) == (b is None) or float((b if a is None else a).abs().max()) == 0  # type: ignore[union-attr]
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["nerf", "eugen bottleneck", "norm degree 2", "monarch"])
def test_a_plan_of_a_part_stays_within_what_it_states(name: str, dtype: str) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, dtype=dtype, chunk=16)  # type: ignore[arg-type]
    (alone,) = plan(inputs[0], outputs=(0,))
    part = plan.part((0,))
    assert part is plan.part((0,))
    assert part.input_widths == graph.input_widths[:1]
    truth = truth_of(graph, inputs)[0]
    assert np.abs(array(alone) - truth).max() <= part.deviation + 1e-5 * np.abs(truth).max()
    graph.plan = plan
    with torch.inference_mode():
        assert torch.equal(graph(inputs[0], outputs=(0,))[0], alone)
        assert graph(inputs[0][:0], outputs=(0,))[0].shape == (0, 1)
    assert graph(inputs[0], outputs=(0,))[0].requires_grad


def test_a_reduced_graph_has_parts() -> None:
    graph = network("nerf")
    position, direction = inputs_of(graph)
    reduce_precision(graph, "bfloat16")
    with torch.no_grad():
        assert torch.equal(graph(position, outputs=(0,))[0], graph(position, direction)[0])


def test_refusals() -> None:
    graph = network("nerf")
    position, direction = inputs_of(graph)
    for outputs in ((), (2,), (-1,)):
        with pytest.raises(ConfigError, match="of a network that has 2"):
            graph(position, outputs=outputs)
        with pytest.raises(ConfigError, match="of a network that has 2"):
            graph.collapse().pruned(2, outputs)
    with pytest.raises(ConfigError, match=r"expected \[9\]"):
        graph(position, direction, outputs=(0,))


# ---- oneDNN's products


def _large(norm: bool, degree: int) -> LayerGraph:
    torch.manual_seed(0)
    config = EUGenConfig(norm=norm, degree=degree)
    return build_variant(NeRFShape(63, 27, 3, 64, (1,)), "eugen", Replacement(num_features=(32,), eugen=config))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("norm", "degree"), [(False, 1), (True, 1), (False, 2), (True, 2)])
def test_onednn_computes_what_the_graph_does(dtype: torch.dtype, norm: bool, degree: int) -> None:
    if not has_onednn(CPU, dtype):
        pytest.skip(f"torch has no oneDNN products in {dtype} here")
    graph = _large(norm, degree).collapse().cast(dtype)
    inputs = [torch.randn(50, width).to(dtype) for width in (63, 27)]
    with torch.no_grad():
        for y, plain in zip(OneDNNGraph(graph)(*inputs), graph(*inputs), strict=True):
            tolerance = 1e-5 if dtype == torch.float32 else 0.05
            assert y.dtype == dtype
            assert float((y - plain).abs().max()) <= tolerance * float(plain.abs().max())


def test_what_is_not_a_number_is_passed_on() -> None:
    """oneDNN's own ReLU would make 0 of it."""
    graph = network("nerf")
    inputs = inputs_of(graph)
    inputs[0][3, 2] = torch.nan
    plan = make_plan(graph, inputs_of(graph))
    density, colour = plan(*inputs)
    assert density[3].isnan().all()
    assert colour[3].isnan().all()
    assert density[4:].isfinite().all()
    with torch.no_grad():
        dict(graph.layer("trunk_1").named_parameters())["weight"][0, 0] = torch.inf
    broken, expected = make_plan(graph, inputs_of(graph))(*inputs_of(graph)), graph(*inputs_of(graph))
    for y, own in zip(broken, expected, strict=True):
        assert torch.equal(y.isnan(), own.isnan())
