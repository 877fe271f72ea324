"""The fused kernel by Triton's interpreter, its twin, and both against numpy run layer by layer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from oracles import FUNCTIONS, Array, array, draw, randomise
from plan_networks import (
    ENCODED,
    FUSED,
    LAUNCHES,
    ROWS,
    arguments,
    encodings_of,
    functions_packed,
    inputs_of,
    joined_packed,
    network,
    packed_of,
    pairs,
    sample_inputs,
    truth,
    truth_of,
)

from eugen_nerf.core import (
    CollapsedGraph,
    ConfigError,
    DenseLinear,
    EUGenConfig,
    EUGenLinear,
    FeatureLayer,
    LayerGraph,
    NeRFShape,
    Replacement,
    build_variant,
)
from eugen_nerf.core.inference.fused import (
    ALIGNMENT,
    Launch,
    aligned_rows,
    check_fused,
    default_launch,
    kernel_unavailable_reason,
    program_count,
    run_twin,
)
from eugen_nerf.core.inference.packed_format import FUSED_FUNCTIONS, FUSED_PRECISIONS, FusedPrecision
from eugen_nerf.core.inference.packing import pack, unsupported_reason
from eugen_nerf.core.inference.sinusoids import as_sinusoids
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.core.layers.stage import Affine

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
TOLERANCE = {"float32": 1e-5, "tf32": 1e-5, "float16": 0.01, "bfloat16": 0.06}
"""Of the largest output; tf32 is float32 without a device."""


HELPERS = Path(__file__).parents[1]
"""Folder of what tests of core share."""


def _python(*arguments: str, **variables: str) -> None:
    """Another process: triton decides on import whether it interprets."""
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Array]:
    """What the kernel gave, by name."""
    path = tmp_path_factory.mktemp("kernel") / "results.npz"
    _python(str(HELPERS / "plan_networks.py"), str(path), TRITON_INTERPRET="1")
    return np.load(path)


def _near(ours: Array, truth: Array, tolerance: float) -> None:
    assert ours.shape == truth.shape
    assert ours.dtype == np.float32
    assert np.abs(ours - truth).max() <= tolerance * np.abs(truth).max()


@pytest.mark.processor
@pytest.mark.parametrize("precision", FUSED_PRECISIONS)
@pytest.mark.parametrize("name", [*FUSED, *ENCODED])
def test_the_twin_gives_what_the_layers_give(name: str, precision: FusedPrecision) -> None:
    for y, exact in zip(run_twin(packed_of(name, precision), *sample_inputs(name)), truth(name), strict=True):
        _near(y.numpy(), exact, TOLERANCE[precision])


@needs_triton
@pytest.mark.parametrize("precision", FUSED_PRECISIONS)
@pytest.mark.parametrize("name", [*FUSED, *ENCODED])
def test_the_kernel_gives_what_its_twin_gives(
    name: str, precision: FusedPrecision, interpreted: Mapping[str, Array]
) -> None:
    twin = run_twin(packed_of(name, precision), *sample_inputs(name))
    # the interpreter cuts bfloat16 off where torch and devices round it, so that there they differ as from the truth
    tolerance = {"float16": 2e-3, "bfloat16": 0.06}.get(precision, 3e-6)
    for i, (y, exact) in enumerate(zip(twin, truth(name), strict=True)):
        found = interpreted[f"{name}/{precision}/{i}"]
        _near(found, y.numpy(), tolerance)
        _near(found, exact, TOLERANCE[precision] * (2 if precision == "bfloat16" else 1))


@needs_triton
@pytest.mark.parametrize("function", FUSED_FUNCTIONS)
def test_functions(function: str, interpreted: Mapping[str, Array]) -> None:
    """Of numbers up to 90 in float32, against numpy; what is not a number stays so."""
    x = array(arguments())
    extra = {
        "silu": lambda z: z / (1 + np.exp(-z)),
        "gelu_tanh": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    }
    exact = {**FUNCTIONS, **extra}[function](x)
    found = interpreted[f"{function}/0"]
    (twin,) = run_twin(functions_packed(function), arguments())
    assert np.isnan(found[-1]).all()
    assert np.isnan(twin.numpy()[-1]).all()
    # 90 radians are known to 4e-6 in float32, and so are the turns that they are
    for y in (found, twin.numpy()):
        assert np.abs(y - exact)[:-1].max() <= (8e-6 if function in ("sin", "cos") else 2e-7 * np.abs(exact[:-1]).max())


@needs_triton
@pytest.mark.parametrize("product", PRODUCTS)
def test_products(product: str, interpreted: Mapping[str, Array]) -> None:
    x = array(pairs())
    exact = np.vectorize(oracles.PRODUCTS[product])(x[:, :3], x[:, 3:])
    (twin,) = run_twin(joined_packed(product), pairs())
    for y in (interpreted[f"joined {product}/0"], twin.numpy()):
        assert np.array_equal(y[:, :3], x[:, :3])
        assert np.abs(y[:, 3:] - exact).max() <= 3e-7 * np.abs(exact).max()


@needs_triton
@pytest.mark.parametrize("launch", LAUNCHES)
def test_the_launch_changes_rounding_alone(launch: Launch, interpreted: Mapping[str, Array]) -> None:
    for i, exact in enumerate(truth("encoded norm degree 2")):
        _near(interpreted[f"{launch}/{i}"], exact, 1e-5)
        _near(interpreted[f"strided points/{i}"], exact, 1e-5)


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
def test_a_plan_has_points_encoded_by_the_kernel(interpreted: Mapping[str, Array]) -> None:
    exact = truth("encoded")
    for i, y in enumerate(exact):
        _near(interpreted[f"plan of points/{i}"], y, 1e-5)
    _near(interpreted["part of points/0"], exact[0], 1e-5)
    assert str(interpreted["statement of points"]).startswith("triton, float32, one launch, within ")
    assert str(interpreted["statement of points"]).endswith("; encodes points itself")


@needs_triton
def test_the_kernel_compiles_for_cuda_without_a_device() -> None:
    """For the tensor cores of compute capability 9.0; the interpreter forgives what the compiler does not."""
    _python("-c", COMPILE)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from plan_networks import functions_packed, joined_packed, packed_of
from eugen_nerf.core.inference.fused import Launch, kernel_constants
from eugen_nerf.core.inference.fused_kernel import fused_kernel
from eugen_nerf.core.inference.packed_format import FUSED_FUNCTIONS
from eugen_nerf.core.layers.products import PRODUCTS

def compiled(packed):
    constants = kernel_constants(packed, Launch(64, 4))
    weights = {"bfloat16": "*bf16", "float16": "*fp16"}.get(packed.precision, "*fp32")
    types = {"weights": weights, "stride0": "i64", "stride1": "i64", "count": "i32"}
    names = fused_kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in names}
    source = triton.compiler.ASTSource(
        fn=fused_kernel, signature=signature, constexprs={(names.index(n),): v for n, v in constants.items()}
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True}).asm["ptx"]

assert "bf16" in compiled(packed_of("unshared", "bfloat16"))
assert "wgmma" in compiled(packed_of("encoded norm degree 2", "float16"))
assert "tf32" in compiled(packed_of("nerf", "tf32"))
assert "rsqrt" in compiled(packed_of("harmonic degree 2", "bfloat16"))
for product in PRODUCTS:
    compiled(joined_packed(product))
for function in FUSED_FUNCTIONS:
    compiled(functions_packed(function))
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
def test_widths_are_padded_to_a_multiple_of_the_smallest_chunk(width: int) -> None:
    graph = build_variant(NeRFShape(width, 5, 2, width, (), 0, 0, 0), "dense", Replacement())
    for precision, least in (("float32", 32), ("bfloat16", 16)):
        packed = pack(graph.collapse(), [width], precision)  # type: ignore[arg-type]
        padded = -(-width // least) * least
        assert packed.weights.numel() == padded * padded * 2 + padded * least
        assert sum(n * k for n, k in packed.tiles) == packed.weights.numel()
        # columns of a tile in bytes: what the devices' products step by, or whole lines of shared memory
        assert {k * packed.weights.element_size() for _, k in packed.tiles} <= {32, 128, 256}


def test_a_kernel_that_was_compiled_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, inputs = packed_of("nerf", "bfloat16"), sample_inputs("nerf")
    right = run_twin(packed, *inputs)
    monkeypatch.setattr("eugen_nerf.core.inference.fused.run_fused", lambda *_: (right[0], right[1] * 1.2))
    with pytest.raises(RuntimeError, match="output 1 of the kernel differs by"):
        check_fused(packed, *inputs)
    monkeypatch.setattr("eugen_nerf.core.inference.fused.run_fused", lambda *_: (right[0] + torch.nan, right[1]))
    with pytest.raises(RuntimeError, match="output 0 of the kernel differs by nan"):
        check_fused(packed, *inputs)
    monkeypatch.setattr("eugen_nerf.core.inference.fused.run_fused", lambda *_: (right[0] * 1.01, right[1]))
    check_fused(packed, *inputs)


# ---- refusals


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("monarch", "step 0 of the collapsed network has diagonal blocks"),
        ("leaky", "step 0 .* has the function leaky_relu.0.2., the fused kernel knows identity, relu, softplus"),
        ("degree", "step 0 .* has degree 3, the fused kernel knows 1 and 2"),
    ],
)
def test_networks_that_are_refused(name: str, reason: str) -> None:
    layers: dict[str, FeatureLayer] = {
        "leaky": DenseLinear(9, 4, "leaky_relu(0.2)"),
        "degree": EUGenLinear(9, 4, EUGenConfig(degree=3, num_features=4)),
    }
    graph = LayerGraph({"a": layers[name]}, {"a": [0]}, [9], ["a"]) if name in layers else network(name)
    with pytest.raises(ConfigError, match=f"{reason}.*: take the backend eager or compile"):
        pack(graph.collapse(), graph.input_widths)
    assert "\n" not in str(unsupported_reason(graph.collapse(), graph.input_widths))


def test_shapes_that_are_refused() -> None:
    def reason(*, width: int = 16, inputs: int = 1, wide_input: int = 8, wide_output: int = 3) -> str:
        layers = {"a": DenseLinear(inputs * wide_input, width), "b": DenseLinear(width, wide_output, "identity")}
        graph = LayerGraph(layers, {"a": list(range(inputs)), "b": ["a"]}, [wide_input] * inputs, ["b"])
        return unsupported_reason(graph.collapse(), graph.input_widths) or ""

    assert reason() == reason(inputs=2) == ""
    assert reason(inputs=3) == "the network has 3 inputs, the fused kernel takes 1 or 2"
    assert "step 0 of the collapsed network has 300 features, the fused kernel takes 1 to 256" in reason(width=300)
    assert "input 0 is 1025 wide" in reason(wide_input=1025)
    assert "output 0 is 257 wide" in reason(wide_output=257)
    assert "output 0 is input 0 itself" in str(unsupported_reason(CollapsedGraph((), ((0, Affine()),)), [4]))
    with pytest.raises(ConfigError, match=r"encodings make inputs of widths \[63, 27\]; the network takes \[9, 5\]"):
        pack(network("nerf").collapse(), (9, 5), "float32", [as_sinusoids(e) for e in encodings_of("encoded")])
    with pytest.raises(ConfigError, match="'float8' is unknown; choose one of float32, tf32, bfloat16, float16"):
        pack(network("nerf").collapse(), (9, 5), "float8")  # type: ignore[arg-type]


def test_weights_stay_in_shared_memory_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, cpu = packed_of("nerf", "bfloat16"), torch.device("cpu")
    weights = packed.weights.numel() * 2
    staging = 16 * 4 * 256  # 9 inputs are a chunk of 16; each of 256 rows in float32
    for room, launch in (
        (weights + staging + 1024, Launch(256, 8, len(packed.tiles))),
        (weights + staging, Launch(128, 8, len(packed.tiles))),
        (weights, Launch(128, 8, 2)),
        (0, Launch(128, 8, 2)),
    ):
        monkeypatch.setattr("eugen_nerf.core.inference.fused._shared_bytes", lambda device, room=room: room)
        assert default_launch(packed, cpu) == launch
    assert program_count(packed, Launch(64, 4, 1), 129, cpu) == 3


@pytest.mark.parametrize(("width", "degree", "rows"), [(32, 1, 256), (16, 2, 256), (48, 1, 128), (32, 2, 128)])
def test_256_rows_are_for_networks_whose_columns_fit_into_registers(
    width: int, degree: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 columns of inputs, what is read later and what is made do; 160 do not always."""
    monkeypatch.setattr("eugen_nerf.core.inference.fused._shared_bytes", lambda device: 232_448)
    replacement = Replacement(("trunk_.*",), (width,), EUGenConfig(degree=degree, norm=False))
    graph = build_variant(NeRFShape(head_width=0), "eugen", replacement).collapse()
    packed = pack(graph, (63,), "bfloat16")
    assert default_launch(packed, torch.device("cpu")) == Launch(rows, 8, len(packed.tiles))
    assert default_launch(pack(graph, (63,), "tf32"), torch.device("cpu")).rows == 64


def test_networks_of_very_many_tiles_are_refused() -> None:
    graph = build_variant(NeRFShape(), "dense", Replacement()).collapse()
    assert len(pack(graph, [63, 27], "tf32").tiles) <= 256
    with pytest.raises(ConfigError, match="products in float32, it takes at most 256: take a smaller dtype"):
        pack(graph, [63, 27], "float32")


def test_why_the_kernel_cannot_be_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "triton has no kernels for cpu" in str(kernel_unavailable_reason(torch.device("cpu")))
    assert kernel_unavailable_reason(torch.device("cuda")) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert kernel_unavailable_reason(torch.device("cuda")) == "triton is not installed (pip install triton)"


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


@pytest.mark.parametrize("rows", [lambda x: x[1:], lambda x: x.T, lambda x: x[:, ::2], lambda x: x[3:3]])
def test_rows_are_given_to_the_kernel_in_one_way_of_lying_in_memory(
    rows: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    sample_inputs = rows(draw(9, 7, seed=3).float())
    found = aligned_rows(sample_inputs)
    assert torch.equal(found, sample_inputs)
    assert found.stride(-1) == 1
    assert found.data_ptr() % ALIGNMENT == 0


def test_rows_that_lie_so_already_are_not_copied() -> None:
    wide = torch.zeros(9, 8)
    assert aligned_rows(wide).data_ptr() == wide.data_ptr()
    assert aligned_rows(wide[:, :3]).data_ptr() == wide.data_ptr()
