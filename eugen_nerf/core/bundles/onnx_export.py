"""A collapsed network as an ONNX file, written node by node and checked against torch before it is saved."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core.bundle_schema import BundleError
from eugen_nerf.core.bundles.atomic_files import new_path
from eugen_nerf.core.layers.products import HARMONIC_EPSILON
from eugen_nerf.core.layers.stage import Affine, MergedStage
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph

OPSET = 17
"""Old enough for the runtimes of recent years, new enough for every operator used."""
TOLERANCE = 1e-4
"""Largest deviation from torch, over torch's largest output."""
CHECK_ROWS = (1, 33)
"""Batch sizes of the check; two, since the batch is dynamic."""


def export_onnx(graph: CollapsedGraph, input_widths: Sequence[int], path: str | Path) -> float:
    """Writes a collapsed network: `input_0` ... `[batch, d_i]` to `output_0` ... `[batch, width]`, float32.

    The inputs are encoded already, and the outputs are raw: no encoding and no activation of density or colour is in
    the file.

    Args:
        graph: a network of any dtype; it is written in float32.
        input_widths: d_i of each input.
        path: of a file that must not exist; its parents are created.

    Returns:
        The largest relative deviation from torch on random inputs, by onnxruntime where it is installed, else by ONNX's
        own reference evaluator.

    Raises:
        BundleError: the file exists or cannot be written, onnx is missing, or the file deviates from torch by more
            than 1e-4.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from eugen_nerf.core import NeRFShape, build_nerf, export_onnx
        >>> network = build_nerf(NeRFShape(27, trunk_width=16, head_width=0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     deviation = export_onnx(network.collapse(), network.input_widths, Path(folder) / "network.onnx")
        >>> deviation < 1e-4
        True
    """
    onnx = _onnx()
    single = graph.cast(torch.float32)
    model = _Writer(onnx, input_widths).write(single)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    deviation = _deviation(onnx, content, single, input_widths)
    if not deviation <= TOLERANCE:
        raise BundleError(
            f"the ONNX form of the network deviates from torch by {deviation:.1e} of its largest output, more than "
            f"{TOLERANCE:g}: nothing was written; leave ONNX out"
        )
    with new_path(Path(path)) as partial:
        partial.write_bytes(content)
    return deviation


class _Writer:
    """Nodes and weights of one model; every method takes and returns the names of values."""

    def __init__(self, onnx: Any, input_widths: Sequence[int]) -> None:
        self.onnx, self.helper = onnx, onnx.helper
        self.widths = list(input_widths)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def write(self, graph: CollapsedGraph) -> Any:
        """The model of a graph."""
        values, widths = [f"input_{i}" for i in range(len(self.widths))], list(self.widths)
        for stage, reads in graph.ungrouped(self.widths).steps:
            values.append(self.stage(stage, [values[v] for v in reads]))
            widths.append(stage.num_features)
        outputs = []
        for i, (v, affine) in enumerate(graph.outputs):
            self.affine(values[v], affine, f"output_{i}")
            outputs.append(widths[v] if affine.weight is None else affine.weight.shape[0])
        made = self.helper.make_graph(
            self.nodes,
            "network",
            [self.port(f"input_{i}", w) for i, w in enumerate(self.widths)],
            [self.port(f"output_{i}", w) for i, w in enumerate(outputs)],
            self.weights,
        )
        opset = self.helper.make_opsetid("", OPSET)
        return self.helper.make_model(made, opset_imports=[opset], ir_version=8, producer_name="eugen_nerf")

    def port(self, name: str, width: int) -> Any:
        """An input or output of the model."""
        return self.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["batch", width])

    def node(self, kind: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """One operator; its first output."""
        names = list(outputs) or [f"value_{len(self.nodes)}"]
        self.nodes.append(self.helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def weight(self, tensor: Tensor) -> str:
        """A constant tensor."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name))
        return name

    def number(self, value: float) -> str:
        """A constant number."""
        return self.weight(torch.tensor(value, dtype=torch.float32))

    def affine(self, value: str, affine: Affine, name: str = "") -> str:
        """An affine map, or the identity."""
        outputs = (name,) if name else ()
        if affine.weight is None:
            return self.node("Identity", value, outputs=outputs)
        return self.linear(value, affine.weight, affine.bias, outputs)

    def linear(self, value: str, weight: Tensor, bias: Tensor | None, outputs: Sequence[str] = ()) -> str:
        """`x W^T + b`."""
        constants = [self.weight(weight), *([] if bias is None else [self.weight(bias)])]
        return self.node("Gemm", value, *constants, outputs=outputs, transB=1)

    def stage(self, stage: MergedStage, segments: list[str]) -> str:
        """A merged stage on the values that it reads."""
        joined = segments[0] if len(segments) == 1 else self.node("Concat", *segments, axis=1)
        u = self.linear(joined, stage.weight, stage.bias)
        if stage.norm is not None:
            u = self.node("Add", u, self.node("Mul", self.norm(stage, segments), self.weight(stage.norm)))
        return _function(stage.phi)(self, self.products(u, stage))

    def norm(self, stage: MergedStage, segments: list[str]) -> str:
        """The norm of the stage's input, `[batch, 1]`."""
        squares = [
            self.node("ReduceSumSquare", s if f is None else self.linear(s, *f), axes=[1], keepdims=1)
            for s, f in zip(segments, stage.factors, strict=True)
        ]
        return self.node("Sqrt", squares[0] if len(squares) == 1 else self.node("Sum", *squares))

    def products(self, u: str, stage: MergedStage) -> str:
        """The Hadamard products, as `hadamard_products` has them."""
        degree = stage.degree
        count = degree if stage.shared else degree * (degree + 1) // 2
        if degree == 1:
            return u
        blocks = [f"block_{len(self.nodes)}_{j}" for j in range(count)]
        sizes = self.weight(torch.full((count,), stage.weight.shape[0] // count, dtype=torch.int64))
        self.node("Split", u, sizes, outputs=blocks, axis=1)
        products: list[str] = []
        for i in range(1, degree + 1):
            factors = blocks[:i] if stage.shared else blocks[i * (i - 1) // 2 : i * (i + 1) // 2]
            product = factors[0]
            if stage.shared and products:  # degree i is degree i - 1 times one block more
                product, factors = products[-1], factors[-2:]
            for factor in factors[1:]:
                product = _joined(self, product, factor, stage.product)
            products.append(product)
        return self.node("Concat", *products, axis=1)


def _joined(w: _Writer, a: str, b: str, product: str) -> str:
    """The products of `core/layers/products.py`."""
    if product == "harmonic":
        square = w.node("Add", w.node("Mul", a, a), w.node("Mul", b, b))
        size = w.node("Sqrt", w.node("Add", square, w.number(HARMONIC_EPSILON)))
        return w.node("Div", w.node("Mul", a, b), size)
    if product == "minimum":
        least = w.node("Min", w.node("Abs", a), w.node("Abs", b))
        return w.node("Mul", least, w.node("Mul", w.node("Sign", a), w.node("Sign", b)))
    if product == "clamped":
        return w.node("Mul", a, w.node("Clip", b, w.number(-1.0), w.number(1.0)))
    return w.node("Mul", a, b)


def _softplus(w: _Writer, x: str, beta: float) -> str:
    # log(1 + exp(x)) overflows for large x, which is why it is max(x, 0) + log(1 + exp(-|x|))
    scaled = x if beta == 1 else w.node("Mul", x, w.number(beta))
    small = w.node("Exp", w.node("Neg", w.node("Abs", scaled)))
    y = w.node("Add", w.node("Relu", scaled), w.node("Log", w.node("Add", small, w.number(1.0))))
    return y if beta == 1 else w.node("Mul", y, w.number(1 / beta))


def _gelu(w: _Writer, x: str) -> str:
    erf = w.node("Erf", w.node("Mul", x, w.number(math.sqrt(0.5))))
    return w.node("Mul", w.node("Mul", x, w.number(0.5)), w.node("Add", erf, w.number(1.0)))


def _gaussian(w: _Writer, x: str) -> str:
    return w.node("Exp", w.node("Mul", w.node("Mul", x, x), w.number(-0.5)))


def _gelu_tanh(w: _Writer, x: str) -> str:
    cubic = w.node("Mul", w.node("Mul", x, w.node("Mul", x, x)), w.number(0.044715))
    inner = w.node("Mul", w.node("Add", x, cubic), w.number(math.sqrt(2 / math.pi)))
    return w.node("Mul", w.node("Mul", x, w.number(0.5)), w.node("Add", w.node("Tanh", inner), w.number(1.0)))


def _single(kind: str) -> Callable[[_Writer, str], str]:
    return lambda w, x: w.node(kind, x)


_FUNCTIONS: dict[str, Callable[[_Writer, str], str]] = {
    "identity": lambda w, x: x,
    "relu": _single("Relu"),
    "softplus": lambda w, x: _softplus(w, x, 1.0),
    "softplus100": lambda w, x: _softplus(w, x, 100.0),
    "gelu": _gelu,
    "sin": _single("Sin"),
    "cos": _single("Cos"),
    "tanh": _single("Tanh"),
    "sigmoid": _single("Sigmoid"),
    "gaussian": _gaussian,
    "silu": lambda w, x: w.node("Mul", x, w.node("Sigmoid", x)),
    "gelu_tanh": _gelu_tanh,
}
"""The activations of `core/layers/activations.py` in ONNX; those with a parameter are in `_function`."""
_WITH_PARAMETER = {"leaky_relu": ("LeakyRelu", 0.01), "elu": ("Elu", 1.0)}


def _function(name: str) -> Callable[[_Writer, str], str]:
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", name)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    if match is None or match[1] not in _WITH_PARAMETER:
        raise BundleError(f"activation {name!r} has no ONNX form here; leave ONNX out")
    kind, usual = _WITH_PARAMETER[match[1]]
    return lambda w, x: w.node(kind, x, alpha=usual if match[2] is None else float(match[2]))


def _deviation(onnx: Any, content: bytes, graph: CollapsedGraph, widths: Sequence[int]) -> float:
    run, worst = _runner(onnx, content), 0.0
    device = next((s.weight.device for s, _ in graph.steps), torch.device("cpu"))
    for rows in CHECK_ROWS:
        generator = torch.Generator().manual_seed(rows)
        inputs = [torch.randn(rows, w, generator=generator) for w in widths]
        with torch.no_grad():
            expected = graph(*(x.to(device) for x in inputs))
        outputs = run({f"input_{i}": x.numpy() for i, x in enumerate(inputs)})
        for truth, ours in zip(expected, outputs, strict=True):
            size = truth.abs().max().cpu().clamp_min(1e-30)
            difference = float((torch.from_numpy(ours) - truth.cpu()).abs().max() / size)
            worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst


def _runner(onnx: Any, content: bytes) -> Callable[[dict[str, Any]], list[Any]]:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(onnx.load_model_from_string(content))
        return lambda feeds: list(evaluator.run(None, feeds))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda feeds: list(session.run(None, feeds))


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise BundleError("an ONNX file needs the package onnx, which is not installed: pip install onnx") from error
    return onnx
