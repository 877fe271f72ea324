"""Inference plans: how a trained network is evaluated without gradients, decided once and reported.

A plan holds a copy of the collapsed network in one dtype, a backend, and the number of rows that are evaluated at a
time. It measures its deviation from float32. It falls back when a backend is unavailable, and records why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from eugen_nerf.core.bundles.bundled_network import BundledGraph
from eugen_nerf.core.choices import BACKENDS, Backend, PlanDtype
from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.fused import MAX_RELATIVE_DIFFERENCE
from eugen_nerf.core.inference.norm_folding import FoldedNorms, fold_norms
from eugen_nerf.core.inference.plan_backends import (
    Encodings,
    Run,
    encoded,
    leading_shape,
    make_runner,
    output_widths,
    refusal,
)
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.core.networks.layer_graph import LayerGraph


@dataclass(frozen=True)
class InferencePlan:
    """A network prepared for inference by `make_plan`.

    It does not follow later changes of the network's weights. Set as the `plan` of a `LayerGraph`, it runs in inference
    mode in place of the collapsed network.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import NeRFShape, build_nerf, make_plan
        >>> network = build_nerf(NeRFShape(27, trunk_width=16, head_width=0))
        >>> plan = make_plan(network, [torch.rand(100, 27)], chunk=64)
        >>> plan.backend, plan.dtype, plan.chunk, plan.input_widths, plan.output_widths
        ('eager', 'float32', 64, (27,), (1,))
        >>> print(plan)
        eager, float32, chunks of 64 rows, within ... of float32 on 100 samples
    """

    backend: Backend
    """The backend in use; another than the requested one where `fallback` is set."""
    dtype: PlanDtype
    """Dtype of weights, features and products."""
    chunk: int | None
    """Rows that are evaluated at a time; None where all go in one launch."""
    deviation: float
    """Largest absolute deviation of an output from the collapsed network in float32, on the sample inputs; infinite
    where an output is not a number."""
    samples: int
    """Number of rows of the sample inputs."""
    fallback: str | None
    """Why the requested backend is unavailable; None where it is in use."""
    input_widths: tuple[int, ...]
    run: Run
    """Outputs `[n, width]` for inputs `[n, d_i]`, `n` at most the chunk; exactly it where `backend` is compile."""
    output_widths: tuple[int, ...]
    make_part: Callable[[tuple[int, ...]], InferencePlan] = field(repr=False, compare=False)
    encodes: bool = False
    """Whether its inputs are points, which it encodes itself, instead of encoded points."""
    norms: tuple[int, int] = (0, 0)
    """Steps whose norm was left out (`core/inference/norm_folding.py`), and steps that had one."""
    parts: dict[tuple[int, ...], InferencePlan] = field(default_factory=dict, repr=False, compare=False)
    """Plans of some outputs alone, made on first use (`part`)."""

    def part(self, outputs: tuple[int, ...]) -> InferencePlan:
        """The plan of some outputs alone, whose inputs are those that they depend on; decided and measured likewise.

        Raises:
            ConfigError: no outputs, or a number beyond the last output.
        """
        if outputs not in self.parts:
            self.parts[outputs] = self.make_part(outputs)
        return self.parts[outputs]

    def __call__(self, *inputs: Tensor, outputs: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Outputs `[..., width]`, float32, for inputs `[..., d_i]` of any floating point dtype and any strides.

        Inputs share their leading shape, which may have no rows. Where `backend` is compile, whole chunks are
        evaluated, the last one padded with zeros, so that one shape is compiled.

        Args:
            inputs: one tensor for each of `input_widths`; with `outputs`, those that the outputs depend on.
            outputs: numbers of the outputs to evaluate, by `part`; all where None.

        Raises:
            ConfigError: another number of inputs, other widths or leading shapes, or inputs that require gradients.
        """
        if outputs is not None:
            return self.part(outputs)(*inputs)
        leading = leading_shape(inputs, self.input_widths)
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            raise ConfigError("a plan gives no gradients: call the network itself, or the plan under torch.no_grad()")
        with torch.no_grad():
            rows = [x.reshape(-1, width) for x, width in zip(inputs, self.input_widths, strict=True)]
            values = _in_chunks(self, rows)
        return tuple(y.view(*leading, y.shape[1]) for y in values)

    def __str__(self) -> str:
        """Backend, dtype, chunk, deviation, and the reason of a fallback, in one line."""
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
    """Decides how a network is evaluated, and measures the deviation. The network is not changed.

    Where the fused kernel or the GPU's shader cannot run the network, the plan falls back to compile on CUDA and to
    eager elsewhere. Where compilation fails or changes outputs, it falls back to eager. `InferencePlan.fallback`
    records why.

    Args:
        network: trained network on the device that it will run on.
        sample_inputs: `[..., d_i]` each, at least one row, typical of later inputs: deviations are measured on them.
        backend: eager, compile (torch.compile), triton (`core/inference/fused.py`), or wgpu: tensors on the CPU,
            evaluated by a GPU that torch cannot use, or by one in software (extra `wgpu`).
        dtype: float32 or bfloat16, for weights, features and products. wgpu has float32 and float16, which is of
            matrices alone.
        chunk: rows that are evaluated at a time; from the size of the second-level cache where None. It changes results
            by rounding alone; triton evaluates all rows in one launch, and wgpu at most as many as its buffers hold.
        drop_norm: largest change of an output, over the largest output, for which norms of inputs may be replaced by
            constants (`core/inference/norm_folding.py`); 0 drops columns of zeros alone.
        encodings: for each input its encoding, or None. The plan, and `sample_inputs`, then take points in place of
            encoded ones, and the plan encodes them: within the kernel with triton and wgpu, else before the network.

    Returns:
        The plan, which is called as the network is, and gives float32 outputs.

    Raises:
        ConfigError: an unknown backend, a dtype that it has not, a chunk below 1, sample inputs without rows or of
            other widths, encodings of other widths or of Gaussians.

    Examples:
        >>> import torch
        >>> from eugen_nerf.core import EUGenConfig, NeRFShape, Replacement, build_variant, make_plan
        >>> shape = NeRFShape(27, 15, trunk_layers=2, trunk_width=32, skips=(), head_width=16)
        >>> network = build_variant(shape, "eugen", Replacement(num_features=(8,)))
        >>> samples = [torch.rand(100, 27), torch.rand(100, 15)]
        >>> plan = make_plan(network, samples, dtype="bfloat16")
        >>> density, colour = plan(*samples)
        >>> density.shape, colour.dtype, plan.fallback
        (torch.Size([100, 1]), torch.float32, None)
        >>> network.plan = plan  # from now on, it runs in place of the network in inference mode
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if dtype not in BACKENDS[backend]:
        raise ConfigError(f"dtype {dtype!r} is unknown to {backend}; choose one of {', '.join(BACKENDS[backend])}")
    if chunk is not None and chunk < 1:
        raise ConfigError(f"chunk is {chunk}; give at least 1 row, or leave it out for a size from the cache")
    if not isinstance(network, LayerGraph | BundledGraph):
        raise ConfigError(
            "a plan is of a LayerGraph or of a bundle's network (field.network, which takes encoded inputs), "
            f"and not of a {type(network).__name__}"
        )
    widths = network.input_widths
    makers: Encodings = (None,) * len(widths) if encodings is None else tuple(encodings)
    made = [w if e is None else e.out_features for e, w in zip(makers, widths, strict=False)]
    if len(makers) != len(widths) or made != list(widths):
        raise ConfigError(f"encodings make inputs of widths {made}; the network takes {list(widths)}")
    if any(e is not None and e.takes_scale for e in makers):
        raise ConfigError("a plan encodes points alone, and one of the encodings needs a scale too: encode before it")
    given = list(widths)
    for i, (e, x) in enumerate(zip(makers, sample_inputs, strict=False)):
        given[i] = widths[i] if e is None else x.shape[-1]
    if not math.prod(leading_shape(sample_inputs, given)):
        raise ConfigError("sample_inputs have no rows: give typical inputs of the network, to measure deviation")
    points = [x.detach().reshape(-1, x.shape[-1]) for x in sample_inputs]
    whole = network.collapse() if isinstance(network, LayerGraph) else network.graph
    folded = fold_norms(whole, encoded(makers, points), drop_norm)
    return _decide(folded, whole, widths, points, makers, backend, dtype, chunk)


def _decide(
    folded: FoldedNorms,
    reference: CollapsedGraph,
    widths: tuple[int, ...],
    samples: Sequence[Tensor],
    encodings: Encodings,
    backend: Backend,
    dtype: PlanDtype,
    chunk: int | None,
) -> InferencePlan:
    graph, device = folded.graph, samples[0].device
    reasons: list[str] = []

    def part(outputs: tuple[int, ...]) -> InferencePlan:
        small, used = graph.pruned(len(widths), outputs)
        truth, read = reference.pruned(len(widths), outputs)[0], tuple(widths[v] for v in used)
        rows, makers = [samples[v] for v in used], tuple(encodings[v] for v in used)
        return _decide(replace(folded, graph=small), truth, read, rows, makers, backend, dtype, chunk)

    def attempt(kind: Backend) -> InferencePlan:
        known: PlanDtype = dtype if dtype in BACKENDS[kind] else "float32"
        run, rows = make_runner(graph, widths, kind, known, samples, encodings, chunk)
        plan = InferencePlan(
            backend=kind,
            dtype=known,
            chunk=rows,
            deviation=0.0,
            samples=len(samples[0]),
            fallback="; ".join(reasons) or None,
            input_widths=tuple(x.shape[1] for x in samples),
            run=run,
            output_widths=output_widths(graph, widths),
            make_part=part,
            encodes=any(e is not None for e in encodings),
            norms=(folded.dropped, folded.total),
        )
        return replace(plan, deviation=_deviation(plan, reference, samples, encodings))

    if backend in ("triton", "wgpu"):
        reason = refusal(backend, device, graph, widths)
        if reason is None:
            try:
                return attempt(backend)
            except Exception as error:  # whatever a compiler or a driver raises: `fallback` records it
                reason = _first_line(error)
        reasons.append(f"not {backend}: {reason}")
    if backend == "compile" or (reasons and device.type == "cuda"):
        try:
            plan = attempt("compile")
            _check_compiled(plan, attempt("eager"), samples)
            return plan
        except Exception as error:  # likewise
            reasons.append(f"not compile: {_first_line(error)}")
    return attempt("eager")


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
        for y, values in zip(outputs, plan.run(*parts), strict=True):
            y[start : start + here] = values[:here]
    return outputs


def _deviation(plan: InferencePlan, graph: CollapsedGraph, samples: Sequence[Tensor], encodings: Encodings) -> float:
    reference = graph.cast(torch.float32)
    with torch.no_grad():
        expected = reference(*encoded(encodings, [x.float() for x in samples]))
    worst = 0.0
    for y, truth in zip(plan(*samples), expected, strict=True):
        difference = float((y - truth).abs().max()) if y.numel() else 0.0
        worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst


def _check_compiled(plan: InferencePlan, eager: InferencePlan, samples: Sequence[Tensor]) -> None:
    """Compares compiled and eager outputs: torch's cache may hold code for another processor, which can be wrong.

    Raises:
        RuntimeError: the outputs differ by more than rounding does.
    """
    for i, (y, truth) in enumerate(zip(plan(*samples), eager(*samples), strict=True)):
        largest = float(truth.nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(y, truth, rtol=0, atol=MAX_RELATIVE_DIFFERENCE * largest, equal_nan=True):
            raise RuntimeError(
                f"output {i} of the compiled code is wrong: delete torch's cache of it (TORCHINDUCTOR_CACHE_DIR)"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
