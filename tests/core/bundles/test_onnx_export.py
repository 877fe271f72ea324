"""ONNX files of collapsed networks, against torch layer by layer and evaluated by two programs."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from oracles import randomise
from random_graphs import random_graph
from torch import Tensor

from eugen_nerf.core import BundleError, CollapsedGraph, EUGenConfig, EUGenLinear, LayerGraph, export_onnx
from eugen_nerf.core.bundles import onnx_export as module
from eugen_nerf.core.layers.activations import ACTIVATIONS, activation
from eugen_nerf.core.layers.products import PRODUCTS
from eugen_nerf.core.layers.stage import Affine, MergedStage

onnx = pytest.importorskip("onnx")


def evaluate(path: Path, inputs: list[Tensor], *, reference: bool = False) -> list[np.ndarray]:
    """By onnxruntime or by ONNX's own evaluator."""
    feeds = {f"input_{i}": x.float().numpy() for i, x in enumerate(inputs)}
    if reference:
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(str(path)).run(None, feeds))
    runtime = pytest.importorskip("onnxruntime")
    return list(runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds))


def agree(found: list[np.ndarray], truth: tuple[Tensor, ...], tolerance: float = 1e-5) -> None:
    assert len(found) == len(truth)
    for ours, expected in zip(found, truth, strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == expected.shape
        size = max(expected.abs().max().item(), 1e-30)
        assert np.abs(ours - expected.detach().double().numpy()).max() <= tolerance * size


FOUND = ("silu", "gelu_tanh", "leaky_relu", "leaky_relu(0.3)", "elu", "elu(0.5)")
"""Activations of networks that were found in other people's models."""


@pytest.mark.parametrize("name", [*sorted(ACTIVATIONS), *FOUND])
def test_every_activation(name: str, tmp_path: Path) -> None:
    """On numbers from -30 to 30, where a careless softplus overflows."""
    stage = MergedStage(torch.eye(1), None, None, 1, True, name)
    graph = CollapsedGraph(((stage, (0,)),), ((1, Affine()),))
    x = torch.linspace(-30, 30, 601)[:, None]
    assert export_onnx(graph, (1,), tmp_path / "a.onnx") < 1e-5
    for reference in (False, True):
        (found,) = evaluate(tmp_path / "a.onnx", [x], reference=reference)
        assert np.isfinite(found).all()
        agree([found], (activation(name)(x),))


@pytest.mark.parametrize(
    ("degree", "shared", "norm", "bias"),
    list(itertools.product([1, 2, 3, 4], [True, False], [True, False], [True, False])),
)
def test_every_kind_of_stage(degree: int, shared: bool, norm: bool, bias: bool, tmp_path: Path) -> None:
    """Two EUGen layers: the second reads the first's features, the norm by a QR factor."""
    config = EUGenConfig(3, degree, "tanh", shared=shared, norm=norm, bias=bias)
    layers = {"a": EUGenLinear(4, 7, config), "b": EUGenLinear(11, 2, config)}
    graph = LayerGraph(layers, {"a": [0], "b": [0, "a"]}, (4,), ("b", "a"))
    randomise(graph, degree)
    export_onnx(graph.collapse(), (4,), tmp_path / "a.onnx")
    for rows in (1, 6):
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
        values = graph.values(x)
        for reference in (False, True):
            agree(evaluate(tmp_path / "a.onnx", [x], reference=reference), (values["b"], values["a"]))


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product(product: str, tmp_path: Path) -> None:
    """On pairs of all signs and sizes, the origin among them."""
    stage = MergedStage(torch.eye(2), None, None, 2, True, "identity", product=product)
    graph = CollapsedGraph(((stage, (0,)),), ((1, Affine()),))
    sizes = torch.tensor([-30.0, -1.0, -0.3, -1e-4, 0.0, 1e-3, 0.9, 1.1, 20.0])
    x = torch.cartesian_prod(sizes, sizes)
    export_onnx(graph, (2,), tmp_path / "a.onnx")
    exact = [[a, oracles.PRODUCTS[product](a, b)] for a, b in x.tolist()]
    for reference in (False, True):
        agree(evaluate(tmp_path / "a.onnx", [x], reference=reference), (torch.tensor(exact).double(),))


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, tmp_path: Path) -> None:
    graph, _, inputs = random_graph(seed)
    graph.float()
    inputs = [x.float() for x in inputs]
    deviation = export_onnx(graph.collapse(), graph.input_widths, tmp_path / "a.onnx")
    assert 0 <= deviation <= 1e-4
    with torch.no_grad():
        agree(evaluate(tmp_path / "a.onnx", inputs), graph(*inputs), 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_written_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    graph = small().cast(dtype)
    export_onnx(graph, (3,), tmp_path / "a.onnx")
    x = torch.randn(5, 3)
    agree(evaluate(tmp_path / "a.onnx", [x]), graph.cast(torch.float32)(x))


def small() -> CollapsedGraph:
    graph = LayerGraph({"a": EUGenLinear(3, 2, EUGenConfig(4))}, {"a": [0]}, (3,), ("a",))
    return graph.collapse()


def test_an_output_that_is_an_input_or_read_twice(tmp_path: Path) -> None:
    step = small().steps[0]
    graph = CollapsedGraph((step,), ((1, Affine()), (0, Affine()), (1, Affine())))
    export_onnx(graph, (3,), tmp_path / "a.onnx")
    x = torch.randn(5, 3)
    agree(evaluate(tmp_path / "a.onnx", [x]), graph(x))


def test_the_check_refuses_what_deviates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._FUNCTIONS, "relu", module._FUNCTIONS["gelu"])
    with pytest.raises(BundleError, match=r"deviates from torch by .* more than 0.0001"):
        export_onnx(small(), (3,), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_it_is_checked_without_onnxruntime_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_onnx(small(), (3,), tmp_path / "a.onnx") < 1e-5
    monkeypatch.setitem(module._FUNCTIONS, "relu", module._FUNCTIONS["gelu"])
    with pytest.raises(BundleError, match="deviates from torch"):
        export_onnx(small(), (3,), tmp_path / "b.onnx")


def test_without_onnx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BundleError, match="pip install onnx"):
        export_onnx(small(), (3,), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"mine")
    with pytest.raises(BundleError, match="exists: choose another name"):
        export_onnx(small(), (3,), tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == b"mine"
