"""Networks in less precise arithmetic, against numpy's rounding of the same numbers."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from oracles import array, draw, randomise

from eugen_nerf.core import (
    ConfigError,
    EUGenConfig,
    LayerGraph,
    MonarchLinear,
    NeRFShape,
    Replacement,
    build_variant,
    reduce_precision,
)
from eugen_nerf.core.inference.int8 import exact_int8
from eugen_nerf.core.inference.quantized import PRECISIONS, ReducedGraph
from eugen_nerf.core.layers.products import PRODUCTS

pytestmark = pytest.mark.processor
ENGINES = [engine for engine in torch.backends.quantized.supported_engines if engine != "none"]

SHAPE = NeRFShape(9, 5, 3, 16, (2,), 0, 1, 8)


def network(variant: str = "eugen") -> LayerGraph:
    homogeneous = {"phi": "identity", "product": variant} if variant in PRODUCTS else {}
    eugen = EUGenConfig(degree=2, **homogeneous)  # type: ignore[arg-type]
    graph = build_variant(SHAPE, "eugen" if homogeneous else variant, Replacement(num_features=(6,), eugen=eugen))
    randomise(graph, 3, spread=0.3)
    return graph


def inputs() -> list[torch.Tensor]:
    return [draw(40, 9).float(), draw(40, 5, seed=1).float()]


@pytest.mark.parametrize("variant", ["dense", "eugen", "lowrank", "harmonic", "minimum"])
@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.03), ("int8", 0.12)])
def test_outputs_are_near_those_of_float32_and_not_the_same(variant: str, precision: str, tolerance: float) -> None:
    graph = network(variant)  # inputs have 7 bits where 8 would overflow
    reduced = ReducedGraph(graph, precision)  # type: ignore[arg-type]
    with torch.no_grad():
        for y, exact in zip(reduced(*inputs()), graph(*inputs()), strict=True):
            assert y.dtype == torch.float32
            error = float((y - exact).norm() / exact.norm())
            assert 1e-5 < error < tolerance


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """torch's engine of int8 products, as long as a test runs."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = request.param
    yield request.param
    torch.backends.quantized.engine = before


def test_int8_is_rounding_of_rows_and_of_inputs(engine: str) -> None:
    """One linear layer: weights on 255 levels a row, inputs on 256 (or 128) between their least (or 0) and largest."""
    graph = build_variant(NeRFShape(6, 5, 1, 16, (), 0, 0, 0), "dense", Replacement())
    randomise(graph, 1)
    first, last = graph.layer("trunk_0"), graph.layer("density")
    x = draw(50, 6).numpy()
    bits = exact_int8(torch.device("cpu")).bits

    def product(values: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
        weight = array(layer.weight)
        scale = np.abs(weight).max(axis=1, keepdims=True) / 127
        low, high = min(values.min(), 0.0), max(values.max(), 0.0)
        step = (high - low) / (2**bits - 1)
        rounded = np.round((values - np.round(low / step) * step) / step) * step + np.round(low / step) * step
        return rounded @ (np.round(weight / scale) * scale).T + array(layer.bias)

    expected = product(np.maximum(product(x, first), 0), last)
    reduced = ReducedGraph(graph, "int8")
    with torch.no_grad():
        (found,) = reduced(torch.from_numpy(x).float())
    spread = np.abs(expected).max()
    assert np.abs(array(found) - expected).max() < 0.003 * spread, "one level of an input, where rounding falls apart"
    assert f"inputs in {bits} bits" in reduced.statement
    assert torch.backends.quantized.engine == engine, "the engine is the user's own"


def test_int8_is_near_float32_by_every_engine(engine: str) -> None:
    """Weights and inputs at the ends of their ranges, of one sign: what 16 bits cannot add."""
    graph = build_variant(NeRFShape(64, 5, 1, 32, (), 0, 0, 0), "dense", Replacement())
    x = torch.rand(20, 64, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.9
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.uniform_(0.9, 1.0, generator=torch.Generator().manual_seed(1))
        (found,), (exact,) = ReducedGraph(graph, "int8")(x), graph(x)
    assert float((found - exact).abs().max()) < 0.01 * float(exact.max()), engine


def test_gradients_and_training_stay_in_float32() -> None:
    graph, x = network(), inputs()
    with torch.no_grad():
        exact = graph(*x)[0]
    for precision in PRECISIONS:
        reduce_precision(graph, precision)
        with torch.no_grad():
            assert not torch.equal(graph(*x)[0], exact)
            assert graph(x[0][:0], x[1][:0])[0].shape == (0, 1)
        torch.testing.assert_close(graph(*x)[0], exact, rtol=1e-4, atol=1e-5)
    graph.plan = None
    with torch.no_grad():
        assert torch.equal(graph(*x)[0], exact)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="'float8' is unknown; choose one of bfloat16, int8"):
        ReducedGraph(network(), "float8")  # type: ignore[arg-type]
    blocks = LayerGraph({"a": MonarchLinear(8, 8, 8)}, {"a": [0]}, [8], ["a"])
    with pytest.raises(ConfigError, match="diagonal blocks are not in torch"):
        ReducedGraph(blocks, "int8")
    with torch.no_grad():
        x = draw(4, 8).float()
        torch.testing.assert_close(ReducedGraph(blocks, "bfloat16")(x)[0], blocks(x)[0], rtol=0.05, atol=0.05)
