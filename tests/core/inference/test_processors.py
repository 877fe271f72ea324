"""What a processor or a machine lacks is found out when it is needed, replaced and stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from oracles import array
from plan_networks import inputs_of, network, truth_of

from eugen_nerf.benchmarks.hardware import matmul_peak
from eugen_nerf.core import make_plan
from eugen_nerf.core.inference import onednn
from eugen_nerf.core.inference.quantized import ReducedGraph
from eugen_nerf.core.layers import cpu_products

pytestmark = pytest.mark.processor
CPU = torch.device("cpu")


@pytest.fixture
def no_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor for which oneDNN has no products."""

    def lacking(*_: object) -> torch.Tensor:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(cpu_products, "onednn_linear", lacking)
    cpu_products.multiplies_by_onednn.cache_clear()
    yield
    cpu_products.multiplies_by_onednn.cache_clear()


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.06)])
def test_products_that_onednn_lacks_are_torchs_own(
    dtype: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not onednn.has_onednn(CPU, getattr(torch, dtype))
    assert not onednn.has_fast_bfloat16(CPU)
    graph = network("degree 1")
    inputs = inputs_of(graph)
    plan = make_plan(graph, inputs, dtype=dtype)  # type: ignore[arg-type]
    for y, exact in zip(plan(*inputs), truth_of(graph, inputs), strict=True):
        assert np.abs(array(y) - exact).max() <= tolerance * np.abs(exact).max()
    monkeypatch.setattr("eugen_nerf.benchmarks.hardware.SIDES", {"cpu": (8,)})
    assert matmul_peak(CPU, getattr(torch, dtype), repeats=1) > 0
    assert ReducedGraph(graph, "bfloat16").statement.endswith("(no products of this processor's own: slow here)")


def test_without_a_compiler_a_plan_is_eager_and_says_why() -> None:
    graph = network("proposal")
    inputs = inputs_of(graph)
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("/nonexistent",), "fx_graph_cache": False}):
        plan = make_plan(graph, inputs, backend="compile", chunk=48)
    assert plan.backend == "eager"
    assert str(plan.fallback).startswith("not compile: ")
    assert "compiler" in str(plan.fallback)
    for y, exact in zip(plan(*inputs), truth_of(graph, inputs), strict=True):
        assert np.abs(array(y) - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("wrong", [2.0, torch.nan])
def test_compiled_code_that_is_wrong_is_not_used(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch's cache can return, filled under AVX-512 and read under AVX2."""

    def other(run: Callable[..., tuple[torch.Tensor, ...]], **_: object) -> Callable[..., tuple[torch.Tensor, ...]]:
        return lambda *inputs: tuple(y * wrong for y in run(*inputs))

    monkeypatch.setattr(torch, "compile", other)
    graph = network("degree 1")
    plan = make_plan(graph, inputs_of(graph), backend="compile")
    assert plan.backend == "eager"
    assert str(plan.fallback).startswith("not compile: output 0 of the compiled code is wrong")
