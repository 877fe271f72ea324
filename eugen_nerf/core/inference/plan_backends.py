"""The backends of inference plans: how each evaluates a collapsed network on rows of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from eugen_nerf.core.choices import Backend, PlanDtype
from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.chunks import chunk_rows
from eugen_nerf.core.inference.fused import check_fused, check_outputs, kernel_unavailable_reason, run_fused
from eugen_nerf.core.inference.onednn import OneDNNGraph, has_fast_bfloat16, has_onednn
from eugen_nerf.core.inference.packing import pack, unsupported_reason
from eugen_nerf.core.inference.sinusoids import as_sinusoids
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph

ADAPTER_BACKEND = "eugen_nerf.web.native.network_plans"
"""Module of the backend wgpu, an `AdapterBackend`. It needs the page's shaders, which stand above core: so it is looked
up by name when it is wanted, and core runs without it."""
Run = Callable[..., tuple[Tensor, ...]]
Encodings = tuple[Encoding | None, ...]


class AdapterNetwork(Protocol):
    """A network on a GPU that torch cannot use."""

    rows: int
    """Most rows at a time."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs `[n, width]`, float32, for inputs `[n, d_i]` on the CPU; points where they are encoded."""


class AdapterBackend(Protocol):
    """What the module of the backend wgpu has."""

    def has_gpu(self) -> bool:
        """Whether the machine has such a GPU; one that the processor imitates is none."""

    def unavailable_reason(self, device: torch.device) -> str | None:
        """One line that says why the backend takes no tensors of a device; None where it does."""

    def unsupported_reason(self, graph: CollapsedGraph, input_widths: Sequence[int]) -> str | None:
        """One line that says why it cannot run a network; None where it can."""

    def prepare(
        self, graph: CollapsedGraph, input_widths: Sequence[int], dtype: PlanDtype, encodings: Encodings
    ) -> AdapterNetwork:
        """The network, ready to be evaluated; raises `EugenError` where it does not fit the GPU."""


def adapter_backend() -> AdapterBackend | None:
    """The backend wgpu; None where core is used without the package that holds it."""
    try:
        return cast(AdapterBackend, import_module(ADAPTER_BACKEND))
    except ModuleNotFoundError as error:
        if error.name is None or not ADAPTER_BACKEND.startswith(error.name):
            raise
        return None


def machine_plan(device: torch.device) -> tuple[Backend, PlanDtype]:
    """The backend and dtype that are fastest on a device: bfloat16 where the processor multiplies it fast."""
    backend: Backend = "triton" if device.type == "cuda" else "eager"
    return backend, "bfloat16" if has_fast_bfloat16(device) else "float32"


def has_other_gpu(device: torch.device) -> bool:
    """Whether wgpu may be faster on a device: the CPU of a machine without CUDA that has a GPU, not in software."""
    if device.type != "cpu" or torch.cuda.is_available():
        return False
    found = adapter_backend()
    return found is not None and found.has_gpu()


def refusal(backend: Backend, device: torch.device, graph: CollapsedGraph, widths: Sequence[int]) -> str | None:
    """One line that says why a kernel cannot run a network; None where it can, and for backends without a kernel."""
    if backend == "triton":
        return kernel_unavailable_reason(device) or unsupported_reason(graph, widths)
    if backend == "wgpu":
        found = adapter_backend()
        if found is None:
            return f"{ADAPTER_BACKEND} is not installed"
        return found.unavailable_reason(device) or found.unsupported_reason(graph, widths)
    return None


def make_runner(
    graph: CollapsedGraph,
    widths: Sequence[int],
    backend: Backend,
    dtype: PlanDtype,
    samples: Sequence[Tensor],
    encodings: Encodings,
    chunk: int | None,
) -> tuple[Run, int | None]:
    """A function that evaluates a network by one backend.

    Args:
        graph: collapsed network.
        widths: of its inputs, encoded where they are.
        backend: eager, compile, triton or wgpu.
        dtype: of weights, features and products; float16 is of matrices alone.
        samples: `[n, d_i]`, typical inputs, on the device that it will run on; kernels are checked on them.
        encodings: for each input its encoding, or None.
        chunk: rows at a time that are wanted; None for those that suit the backend.

    Returns:
        A function of inputs `[n, d_i]` that returns outputs `[n, width]`, and how many rows it is to be given at a
        time; None where all go in one launch.

    Raises:
        ConfigError: a network or an encoding that the kernel cannot evaluate.
        RuntimeError: outputs of the kernel that are wrong.
    """
    if backend == "triton":
        waves = [None if e is None else as_sinusoids(e) for e in encodings]
        for e, table in zip(encodings, waves, strict=True):
            if e is not None and table is None:
                raise ConfigError(f"the fused kernel computes no {e.kind} encoding")
        packed = pack(graph, widths, dtype, waves)
        check_fused(packed, *samples)
        return lambda *inputs: run_fused(packed, *inputs), None
    if backend == "wgpu":
        found = adapter_backend()
        assert found is not None, "refusal was called before"
        network = found.prepare(graph, widths, dtype, encodings)
        parts = [x[: network.rows] for x in samples]
        twin = graph.cast(getattr(torch, dtype)).cast(torch.float32)
        check_outputs(network(*parts), twin(*encoded(encodings, [x.float() for x in parts])))
        return network, min(chunk or network.rows, network.rows)
    precise = getattr(torch, dtype)
    chunk = chunk or chunk_rows(graph, widths, precise, samples[0].device)
    cast_graph = graph.cast(precise)
    fused = backend == "eager" and has_onednn(samples[0].device, precise)
    prepared = OneDNNGraph(cast_graph) if fused else cast_graph

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return prepared(*(x.to(precise) for x in encoded(encodings, inputs)))

    if backend == "compile":
        run.__code__ = run.__code__.replace()  # one plan is no recompilation of another, which torch counts and ends
        return torch.compile(run, dynamic=False), chunk
    return run, chunk


def encoded(encodings: Encodings, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs as the network reads them, encoded where there are encodings; those ignore the scale."""
    return [x if e is None else e(x, x[..., :1]) for e, x in zip(encodings, inputs, strict=True)]


def output_widths(graph: CollapsedGraph, input_widths: Sequence[int]) -> tuple[int, ...]:
    """Width of each output of a network with inputs of these widths."""
    widths = [*input_widths, *(stage.num_features for stage, _ in graph.steps)]
    return tuple(widths[v] if a.weight is None else a.weight.shape[0] for v, a in graph.outputs)


def leading_shape(inputs: Sequence[Tensor], widths: Sequence[int]) -> tuple[int, ...]:
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
