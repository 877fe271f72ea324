"""Inference plans: how a trained network answers where no gradients are asked for, decided once and stated.

A plan holds a copy of the collapsed network in one dtype and says by what it is run and in chunks of how many rows; it
measures how far that is from float32. What a plan was asked for and cannot have is replaced by what it states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.chunks import chunk_rows
from eugen_nerf.core.inference.fused import MAX_RELATIVE_DIFFERENCE, check_fused, kernel_unavailable_reason, run_fused
from eugen_nerf.core.inference.norm_folding import FoldedNorms, fold_norms
from eugen_nerf.core.inference.onednn import OneDNNGraph, has_onednn
from eugen_nerf.core.inference.packing import pack, unsupported_reason
from eugen_nerf.core.inference.sinusoids import as_sinusoids
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.core.networks.layer_graph import LayerGraph

Backend = Literal["eager", "compile", "triton"]
BACKENDS: tuple[Backend, ...] = ("eager", "compile", "triton")
PlanDtype = Literal["float32", "bfloat16"]
PLAN_DTYPES: tuple[PlanDtype, ...] = ("float32", "bfloat16")
Run = Callable[..., tuple[Tensor, ...]]
Encodings = tuple[Encoding | None, ...]


@dataclass(frozen=True)
class InferencePlan:
    """A network as it is run for inference; made by `make_plan`.

    It does not follow later changes of the network's weights. Set as the `plan` of a `LayerGraph`, it runs in inference
    mode in place of the collapsed network.
    """

    backend: Backend
    """What runs it, which is not what was asked for where `fallback` is set."""
    dtype: PlanDtype
    """Of weights, features and products."""
    chunk: int | None
    """Rows that are computed at a time; None where all go in one launch."""
    deviation: float
    """Largest absolute deviation of an output from the collapsed network in float32, on the sample inputs; infinite
    where an output is not a number."""
    samples: int
    """Rows of the sample inputs."""
    fallback: str | None
    """Why the backend is not the one that was asked for."""
    input_widths: tuple[int, ...]
    run: Run
    """Outputs `[n, width]` for inputs `[n, d_i]`, `n` at most the chunk; exactly it where `backend` is compile."""
    output_widths: tuple[int, ...]
    make_part: Callable[[tuple[int, ...]], InferencePlan] = field(repr=False, compare=False)
    encodes: bool = False
    """Whether it is asked with points, which it encodes itself, and not with what the network reads."""
    norms: tuple[int, int] = (0, 0)
    """Steps whose norm was left out (`core/inference/norm_folding.py`), and steps that had one."""
    parts: dict[tuple[int, ...], InferencePlan] = field(default_factory=dict, repr=False, compare=False)
    """Plans of some outputs alone, made when they are first asked for (`part`)."""

    def part(self, outputs: tuple[int, ...]) -> InferencePlan:
        """The plan of some outputs alone, whose inputs are those that they depend on; made and measured alike.

        Raises:
            ConfigError: no outputs, or one that there is not.
        """
        if outputs not in self.parts:
            self.parts[outputs] = self.make_part(outputs)
        return self.parts[outputs]

    def __call__(self, *inputs: Tensor, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Outputs `[..., width]`, float32, for inputs `[..., d_i]` of any floating point dtype and any strides.

        Inputs share their leading shape, which may be empty of rows. Where `backend` is compile, whole chunks are
        computed, the last one filled with zeros, so that one shape is compiled. With `outputs`, `part` answers.

        Raises:
            ConfigError: another number of inputs, other widths or leading shapes, or inputs that ask for gradients.
        """
        if outputs is not None:
            return self.part(outputs)(*inputs)
        leading = _leading_shape(inputs, self.input_widths)
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            raise ConfigError("a plan gives no gradients: call the network itself, or the plan under torch.no_grad()")
        with torch.no_grad():
            rows = [x.reshape(-1, width) for x, width in zip(inputs, self.input_widths, strict=True)]
            found = _in_chunks(self, rows)
        return tuple(y.view(*leading, y.shape[1]) for y in found)

    def __str__(self) -> str:
        """Backend, dtype, chunk, deviation, and why the backend is not the one asked for, in one line."""
        chunk = "one launch" if self.chunk is None else f"chunks of {self.chunk:,} rows"
        text = (
            f"{self.backend}, {self.dtype}, {chunk}, within {self.deviation:.1e} of float32 on {self.samples:,} samples"
        )
        if self.encodes:
            text += "; encodes points itself"
        if self.norms[0]:
            text += f"; no norm in {self.norms[0]} of the {self.norms[1]} steps that had one"
        return text if self.fallback is None else f"{text}; {self.fallback}"


def make_plan(
    network: LayerGraph | BundledGraph,
    sample_inputs: Sequence[Tensor],
    *,
    backend: Backend = "eager",
    dtype: PlanDtype = "float32",
    chunk: int | None = None,
    drop_norm: float = 0.0,
    encodings: Sequence[Encoding | None] | None = None,
) -> InferencePlan:
    """Decides how a network is run, and measures what that changes. The network stays as it is.

    Where the kernel cannot run the network, the plan falls back to compile on CUDA and to eager elsewhere; where it
    cannot be compiled, or what is compiled gives other outputs, to eager. `fallback` says so.

    Args:
        network: trained network on the device that it is to run on.
        sample_inputs: `[..., d_i]` each, at least one row, as the network will be asked: deviations depend on them.
        backend: eager, compile (torch.compile) or triton (`core/inference/fused.py`).
        dtype: float32 or bfloat16, for weights, features and products.
        chunk: rows that are computed at a time; from the size of the second-level cache where None. Of no effect on
            results but for rounding; triton does all rows in one launch.
        drop_norm: largest change of an output, over the largest output, for which norms of inputs may be taken for
            constant (`core/inference/norm_folding.py`); 0 keeps them all, but for columns of zeros.
        encodings: for each input the encoding that makes it, or None. The plan, and `sample_inputs`, then take points
            in its place, and the plan encodes them: within the kernel where triton runs it, else before the network.

    Raises:
        ConfigError: an unknown backend or dtype, a chunk below 1, sample inputs without rows or of other widths,
            encodings of other widths.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if dtype not in PLAN_DTYPES:
        raise ConfigError(f"dtype {dtype!r} is unknown; choose one of {', '.join(PLAN_DTYPES)}")
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk is {chunk}; give at least 1 row, or leave it out for a size from the cache")
    if not isinstance(network, LayerGraph | BundledGraph):
        raise ConfigError(
            "a plan is of a LayerGraph or of a bundle's network (field.network, asked with encoded inputs), "
            f"and not of a {type(network).__name__}"
        )
    widths = network.input_widths
    makers: Encodings = (None,) * len(widths) if encodings is None else tuple(encodings)
    made = [w if e is None else e.out_features for e, w in zip(makers, widths, strict=False)]
    if len(makers) != len(widths) or made != list(widths):
        raise ConfigError(f"encodings make inputs of widths {made}; the network takes {list(widths)}")
    if any(e is not None and e.takes_scale for e in makers):
        raise ConfigError(
            "a plan encodes points alone, and one of the encodings asks for a scale too: encode before it"
        )
    asked = list(widths)
    for i, (e, x) in enumerate(zip(makers, sample_inputs, strict=False)):
        asked[i] = widths[i] if e is None else x.shape[-1]
    if not math.prod(_leading_shape(sample_inputs, asked)):
        raise ConfigError("sample_inputs have no rows: give some that the network will be asked, to measure deviation")
    points = [x.detach().reshape(-1, x.shape[-1]) for x in sample_inputs]
    whole = network.collapse() if isinstance(network, LayerGraph) else network.graph
    left = fold_norms(whole, _encoded(makers, points), drop_norm)
    return _decide(left, whole, widths, points, makers, backend, dtype, chunk)


def _decide(
    left: FoldedNorms,
    reference: CollapsedGraph,
    widths: tuple[int, ...],
    samples: Sequence[Tensor],
    encodings: Encodings,
    backend: Backend,
    dtype: PlanDtype,
    chunk: int | None,
) -> InferencePlan:
    graph, device = left.graph, samples[0].device
    reasons: list[str] = []
    rows = chunk or chunk_rows(graph, widths, getattr(torch, dtype), device)

    def part(outputs: tuple[int, ...]) -> InferencePlan:
        small, used = graph.pruned(len(widths), outputs)
        truth, read = reference.pruned(len(widths), outputs)[0], tuple(widths[v] for v in used)
        asked, makers = [samples[v] for v in used], tuple(encodings[v] for v in used)
        return _decide(replace(left, graph=small), truth, read, asked, makers, backend, dtype, chunk)

    def attempt(kind: Backend) -> InferencePlan:
        plan = InferencePlan(
            backend=kind,
            dtype=dtype,
            chunk=None if kind == "triton" else rows,
            deviation=0.0,
            samples=len(samples[0]),
            fallback="; ".join(reasons) or None,
            input_widths=tuple(x.shape[1] for x in samples),
            run=_runner(graph, widths, kind, dtype, samples, encodings),
            output_widths=_output_widths(graph, widths),
            make_part=part,
            encodes=any(e is not None for e in encodings),
            norms=(left.dropped, left.total),
        )
        return replace(plan, deviation=_deviation(plan, reference, samples, encodings))

    if backend == "triton":
        reason = kernel_unavailable_reason(device) or unsupported_reason(graph, widths)
        if reason is None:
            try:
                return attempt("triton")
            except Exception as error:  # whatever a compiler or a driver raises: it is stated, not hidden
                reason = _first_line(error)
        reasons.append(f"not triton: {reason}")
    if backend == "compile" or (reasons and device.type == "cuda"):
        try:
            plan = attempt("compile")
            _check_compiled(plan, attempt("eager"), samples)
            return plan
        except Exception as error:  # likewise
            reasons.append(f"not compile: {_first_line(error)}")
    return attempt("eager")


def _runner(
    graph: CollapsedGraph,
    widths: Sequence[int],
    backend: Backend,
    dtype: PlanDtype,
    samples: Sequence[Tensor],
    encodings: Encodings,
) -> Run:
    if backend == "triton":
        waves = [None if e is None else as_sinusoids(e) for e in encodings]
        for e, table in zip(encodings, waves, strict=True):
            if e is not None and table is None:
                raise ConfigError(f"the fused kernel computes no {e.kind} encoding")
        packed = pack(graph, widths, dtype, waves)
        check_fused(packed, *samples)
        return lambda *inputs: run_fused(packed, *inputs)
    precise = getattr(torch, dtype)
    cast = graph.cast(precise)
    answers = OneDNNGraph(cast) if backend == "eager" and has_onednn(samples[0].device, precise) else cast

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return answers(*(x.to(precise) for x in _encoded(encodings, inputs)))

    if backend == "compile":
        run.__code__ = run.__code__.replace()  # one plan is no recompilation of another, which torch counts and ends
        return torch.compile(run, dynamic=False)
    return run


def _in_chunks(plan: InferencePlan, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Outputs `[n, width]`, float32, for inputs `[n, d_i]`."""
    count, chunk = len(rows[0]), plan.chunk
    if chunk is None:
        return plan.run(*rows)
    outputs = tuple(rows[0].new_empty(count, width, dtype=torch.float32) for width in plan.output_widths)
    for start in range(0, count, chunk):
        parts = [x[start : start + chunk] for x in rows]
        here = len(parts[0])
        if plan.backend == "compile":
            parts = [F.pad(x, (0, 0, 0, chunk - here)).contiguous() for x in parts]
        for y, found in zip(outputs, plan.run(*parts), strict=True):
            y[start : start + here] = found[:here]
    return outputs


def _encoded(encodings: Encodings, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What the network reads, of points where there are encodings: frequencies ignore the scale."""
    return [x if e is None else e(x, x[..., :1]) for e, x in zip(encodings, inputs, strict=True)]


def _deviation(plan: InferencePlan, graph: CollapsedGraph, samples: Sequence[Tensor], encodings: Encodings) -> float:
    reference = graph.cast(torch.float32)
    with torch.no_grad():
        expected = reference(*_encoded(encodings, [x.float() for x in samples]))
    worst = 0.0
    for y, truth in zip(plan(*samples), expected, strict=True):
        difference = float((y - truth).abs().max()) if y.numel() else 0.0
        worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst


def _check_compiled(plan: InferencePlan, eager: InferencePlan, samples: Sequence[Tensor]) -> None:
    """torch's cache gives code that was compiled for another processor, which has been seen to be wrong.

    Raises:
        RuntimeError: the outputs differ by more than rounding does.
    """
    for i, (y, truth) in enumerate(zip(plan(*samples), eager(*samples), strict=True)):
        largest = float(truth.nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(y, truth, rtol=0, atol=MAX_RELATIVE_DIFFERENCE * largest, equal_nan=True):
            raise RuntimeError(
                f"output {i} of the compiled code is wrong: delete torch's cache of it (TORCHINDUCTOR_CACHE_DIR)"
            )


def _output_widths(graph: CollapsedGraph, input_widths: Sequence[int]) -> tuple[int, ...]:
    widths = [*input_widths, *(stage.num_features for stage, _ in graph.steps)]
    return tuple(widths[v] if a.weight is None else a.weight.shape[0] for v, a in graph.outputs)


def _leading_shape(inputs: Sequence[Tensor], widths: Sequence[int]) -> tuple[int, ...]:
    """The shape that inputs share before their last dimension.

    Raises:
        ConfigError: another number of inputs, other widths, or several leading shapes.
    """
    shapes = [tuple(x.shape) for x in inputs]
    if [s[-1:] for s in shapes] != [(width,) for width in widths]:
        raise ConfigError(f"inputs have shapes {shapes}; give {len(widths)} whose last dimensions are {list(widths)}")
    leading = {s[:-1] for s in shapes}
    if len(leading) > 1:
        raise ConfigError(f"inputs have shapes {shapes}; all dimensions but the last must agree")
    return leading.pop()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
