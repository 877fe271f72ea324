"""The fused kernel by Triton's interpreter, its twin, and both against numpy run layer by layer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import Array, array, randomise
from plan_networks import FUSED, ROWS, inputs_of, network, truth_of

from eugen_nerf.core import ConfigError, DenseLinear, LayerGraph, NeRFShape, Replacement, build_variant
from eugen_nerf.core.fused import kernel_problem, run_twin
from eugen_nerf.core.graph import CollapsedGraph
from eugen_nerf.core.packed import FUSED_PRECISIONS, pack, why_not
from eugen_nerf.core.stage import Affine

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
TOLERANCE = {"float32": 1e-5, "tf32": 1e-5, "float16": 0.01, "bfloat16": 0.06}
"""Of the largest output; tf32 is float32 without a device."""


def _python(*arguments: str, **variables: str) -> None:
    """Another process: triton decides on import whether it interprets."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Array]:
    """What the kernel gave, by name."""
    path = tmp_path_factory.mktemp("kernel") / "results.npz"
    _python(str(Path(__file__).with_name("plan_networks.py")), str(path), TRITON_INTERPRET="1")
    return np.load(path)


def _near(ours: Array, truth: Array, tolerance: float) -> None:
    assert ours.shape == truth.shape
    assert ours.dtype == np.float32
    assert np.abs(ours - truth).max() <= tolerance * np.abs(truth).max()


@pytest.mark.parametrize("precision", FUSED_PRECISIONS)
@pytest.mark.parametrize("name", FUSED)
def test_the_twin_gives_what_the_layers_give(name: str, precision: str) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    packed = pack(graph.collapse(), graph.input_widths, precision)  # type: ignore[arg-type]
    for y, truth in zip(run_twin(packed, *inputs), truth_of(graph, inputs), strict=True):
        _near(y.numpy(), truth, TOLERANCE[precision])


@needs_triton
@pytest.mark.parametrize("precision", FUSED_PRECISIONS)
@pytest.mark.parametrize("name", FUSED)
def test_the_kernel_gives_what_its_twin_gives(name: str, precision: str, interpreted: Mapping[str, Array]) -> None:
    graph = network(name)
    inputs = inputs_of(graph)
    packed = pack(graph.collapse(), graph.input_widths, precision)  # type: ignore[arg-type]
    twin, truth = run_twin(packed, *inputs), truth_of(graph, inputs)
    # the interpreter cuts bfloat16 off where torch and devices round it, so that there they differ as from the truth
    tolerance = {"float16": 2e-3, "bfloat16": 0.06}.get(precision, 3e-6)
    for i, (y, exact) in enumerate(zip(twin, truth, strict=True)):
        found = interpreted[f"{name}/{precision}/{i}"]
        _near(found, y.numpy(), tolerance)
        _near(found, exact, TOLERANCE[precision] * (2 if precision == "bfloat16" else 1))


@needs_triton
def test_any_number_of_rows_and_any_strides(interpreted: Mapping[str, Array]) -> None:
    graph = network("degree 2")
    inputs = inputs_of(graph)
    truth = truth_of(graph, inputs)
    for count in (0, 1, 64):
        for i, exact in enumerate(truth):
            found = interpreted[f"rows/{count}/{i}"]
            assert found.shape == (count, exact.shape[1])
            assert np.abs(found - exact[:count]).max(initial=0.0) <= 1e-5 * np.abs(exact).max()
    one = truth_of(graph, [inputs[0], inputs[1][:1].repeat(ROWS, 1)])
    for i, exact in enumerate(truth):
        _near(interpreted[f"strided/{i}"], exact, 1e-5)
        _near(interpreted[f"one direction/{i}"], one[i], 1e-5)


@needs_triton
def test_what_is_not_a_number_stays_in_its_row(interpreted: Mapping[str, Array]) -> None:
    for i in range(2):
        bad = np.isnan(interpreted[f"nan/{i}"])
        assert bad[3].all()
        assert not np.delete(bad, 3, axis=0).any()


@needs_triton
def test_a_plan_by_the_kernel(interpreted: Mapping[str, Array]) -> None:
    graph = network("degree 2")
    for i, exact in enumerate(truth_of(graph, inputs_of(graph))):
        _near(interpreted[f"plan/{i}"].reshape(ROWS, -1), exact, 1e-5)
    assert str(interpreted["statement"]).startswith("triton, float32, one launch, within ")
    assert ";" not in str(interpreted["statement"])
    assert 0 < float(interpreted["deviation"]) < 1e-4


@needs_triton
def test_the_kernel_compiles_for_cuda_without_a_device() -> None:
    """For the tensor cores of compute capability 8.0; the interpreter forgives what the compiler does not."""
    _python("-c", COMPILE, TRITON_DEFAULT_FP_FUSION="1")


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from plan_networks import network
from eugen_nerf.core.fused_kernel import fused_kernel
from eugen_nerf.core.packed import pack

graph = network("unshared")
packed = pack(graph.collapse(), graph.input_widths, "bfloat16")
constants = {
    "INPUTS": tuple(map(tuple, packed.inputs)),
    "STEPS": tuple(map(tuple, packed.steps)),
    "OUTPUTS": tuple((o.chunk, o.start, o.valid, 3, 0) for o in packed.outputs),
    "PRECISION": "ieee",
    "WIDEN": False,
    "ROWS": 64,
}
types = {"weights": "*bf16", "stride0": "i64", "stride1": "i64", "count": "i32"}
names = fused_kernel.arg_names
signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in names}
source = triton.compiler.ASTSource(
    fn=fused_kernel, signature=signature, constexprs={(names.index(n),): v for n, v in constants.items()}
)
ptx = triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
assert "mma.sync" in ptx
"""


# ---- the twin's arithmetic and the packed form


@pytest.mark.parametrize(("precision", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_factors_are_rounded_and_sums_are_not(precision: str, bits: int) -> None:
    """One linear layer, against numpy's rounding to so many bits of the same numbers."""
    graph = LayerGraph({"a": DenseLinear(40, 7, "identity")}, {"a": [0]}, [40], ["a"])
    randomise(graph, 2)
    x = inputs_of(graph)[0]

    def rounded(values: Array) -> Array:
        scale = 2.0 ** (np.floor(np.log2(np.abs(values))) + 1 - bits)
        return np.round(values / scale) * scale

    layer = graph.layer("a")
    exact = rounded(array(x)) @ rounded(array(layer.weight)).T + array(layer.bias)
    (y,) = run_twin(pack(graph.collapse(), [40], precision), x)  # type: ignore[arg-type]
    _near(y.numpy(), exact, 1e-6)


@pytest.mark.parametrize("width", [1, 15, 16, 17, 63, 96, 112, 240, 256])
def test_widths_are_padded_to_multiples_of_16_and_no_further(width: int) -> None:
    graph = build_variant(NeRFShape(width, 5, 2, width, (), 0, 0, 0), "dense", Replacement())
    packed = pack(graph.collapse(), [width])
    padded = (width + 15) // 16 * 16
    assert packed.weights.numel() == padded * padded * 2 + padded * 16
    assert {c.size for c in packed.inputs} <= {16, 32, 64}


# ---- refusals


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("norm", "step 0 of the collapsed network reads the norm of its input, .* train with norm off for it"),
        ("monarch", "step 0 .* has diagonal blocks"),
        ("softplus", "step 0 .* has the function softplus, the fused kernel knows identity and relu"),
    ],
)
def test_networks_that_are_refused(name: str, reason: str) -> None:
    graph = network(name)
    with pytest.raises(ConfigError, match=f"{reason}.*: take the backend eager or compile"):
        pack(graph.collapse(), graph.input_widths)
    assert "\n" not in str(why_not(graph.collapse(), graph.input_widths))


def test_shapes_that_are_refused() -> None:
    def reason(*, width: int = 16, inputs: int = 1, wide_input: int = 8, wide_output: int = 3) -> str:
        layers = {"a": DenseLinear(inputs * wide_input, width), "b": DenseLinear(width, wide_output, "identity")}
        graph = LayerGraph(layers, {"a": list(range(inputs)), "b": ["a"]}, [wide_input] * inputs, ["b"])
        return why_not(graph.collapse(), graph.input_widths) or ""

    assert reason() == reason(inputs=2) == ""
    assert reason(inputs=3) == "the network has 3 inputs, the fused kernel takes 1 or 2"
    assert "step 0 of the collapsed network has 300 features, the fused kernel takes 1 to 256" in reason(width=300)
    assert "input 0 is 257 wide" in reason(wide_input=257)
    assert "output 0 is 257 wide" in reason(wide_output=257)
    assert "output 0 is input 0 itself" in str(why_not(CollapsedGraph((), ((0, Affine()),)), [4]))
    with pytest.raises(ConfigError, match="'float8' is unknown; choose one of float32, tf32, bfloat16, float16"):
        pack(network("nerf").collapse(), (9, 5), "float8")  # type: ignore[arg-type]


def test_why_the_kernel_cannot_be_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "triton has no kernels for cpu" in str(kernel_problem(torch.device("cpu")))
    assert kernel_problem(torch.device("cuda")) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert kernel_problem(torch.device("cuda")) == "triton is not installed (pip install triton)"


def test_without_triton_a_plan_says_so() -> None:
    _python("-c", WITHOUT_TRITON)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from eugen_nerf.core import make_plan
from plan_networks import inputs_of, network

graph = network("nerf")
plan = make_plan(graph, inputs_of(graph), backend="triton")
assert plan.backend == "eager"
assert plan.fallback == "not triton: triton is not installed (pip install triton)", plan.fallback
"""
