"""The backend `wgpu` of inference plans: a network's queries on a GPU that torch cannot use.

`core/inference/plan_backends.py` looks this module up by its name and says what it must have (`AdapterBackend`).
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from eugen_nerf.core.choices import PlanDtype
from eugen_nerf.core.encodings.point_encodings import Encoding
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.inference.plan_backends import encoded, output_widths
from eugen_nerf.core.networks.collapsed_graph import CollapsedGraph
from eugen_nerf.web.native.adapters import GpuAdapter, choose_adapter, machine_adapters, missing_packages_reason
from eugen_nerf.web.native.network_shader import NetworkShader, network_shader, on_shader, shader_gap

MOST_ROWS = 1 << 17
"""Rows at a time: enough to pay for a launch, few enough to need little memory. A launch has at most 65,535 workgroups
of at least four rows."""
LIMITS = ("max-compute-workgroup-storage-size", "max-storage-buffer-binding-size", "max-buffer-size")
"""What of an adapter is requested beyond what WebGPU promises."""
NEXT = "take another GPU or the backend eager, or make the network narrower (eugen-distill)"


@cache
def has_gpu() -> bool:
    """Whether the machine has an adapter that is a GPU, and not the processor."""
    return any(not adapter.software for adapter in machine_adapters())


def unavailable_reason(device: torch.device) -> str | None:
    """One line that says why there is no such backend for tensors on a device; None where there is."""
    if device.type != "cpu":
        return f"it takes tensors on the CPU, and these are on {device.type}"
    if (reason := missing_packages_reason()) is not None:
        return reason
    return None if machine_adapters() else "WebGPU finds no adapter here (a GPU's driver, or mesa-vulkan-drivers)"


def unsupported_reason(graph: CollapsedGraph, input_widths: Sequence[int]) -> str | None:
    """One line that says why the shader cannot run a network; None where it can."""
    return shader_gap(graph, input_widths)


def prepare(
    graph: CollapsedGraph, input_widths: Sequence[int], dtype: PlanDtype, encodings: Sequence[Encoding | None]
) -> GpuNetwork:
    """A network on the machine's best adapter.

    Raises:
        ConfigError: it does not fit the adapter, or float16.
        GpuError: there is no adapter.
    """
    return GpuNetwork(choose_adapter(), graph, input_widths, dtype, encodings)


class GpuNetwork:
    """A network whose queries a GPU evaluates.

    Inputs that are not all finite are evaluated by PyTorch, which passes NaN on as the network does, and so is
    everything once the GPU is lost.

    Args:
        adapter: of the GPU.
        graph: the network; its tensors are copied.
        input_widths: width of each input, as the network reads it.
        dtype: of matrices, float32 or float16; all else is float32.
        encodings: for each input its encoding, or None.

    Raises:
        ConfigError: it does not fit the adapter, or float16.
    """

    def __init__(
        self,
        adapter: GpuAdapter,
        graph: CollapsedGraph,
        input_widths: Sequence[int],
        dtype: PlanDtype,
        encodings: Sequence[Encoding | None],
    ) -> None:
        self.adapter, self.encodings = adapter, tuple(encodings)
        self.plain = graph.cast(torch.float32)
        self.output_widths = output_widths(graph, input_widths)
        self.lost = False
        shaded = on_shader(encodings)
        # encoded before the shader, which reads them as they are
        self._before = tuple(None if s is not None else e for e, s in zip(encodings, shaded, strict=True))
        limits = adapter.handle.limits
        shader = network_shader(
            self.plain,
            input_widths,
            shaded,
            half=dtype == "float16",
            shared_bytes=limits[LIMITS[0]],
            software=adapter.software,
        )
        most = min(limits[name] for name in LIMITS[1:])
        largest = max(len(content) for content in shader[2:])
        if largest > most:
            raise ConfigError(f"its weights take {largest:,} bytes and {adapter.name} holds {most:,} at a time: {NEXT}")
        widest = max(*input_widths, sum(self.output_widths))
        self.rows = min(MOST_ROWS, most // (4 * widest))
        """Most rows at a time."""
        self._sound = all(bool(t.isfinite().all()) for t in graph.tensors())
        self._tile, self._lock = shader.rows, threading.Lock()
        self._inputs: list[Any] = [None] * len(input_widths)
        self._results: Any = None
        self._open(shader)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs `[n, width]`, float32, for inputs `[n, d_i]` on the CPU of any floating point dtype and any strides.

        Args:
            inputs: at most `rows` rows; points where they are encoded.
        """
        count = len(inputs[0])
        if not count:
            return tuple(torch.empty(0, width) for width in self.output_widths)
        rows = [x.float().contiguous() for x in encoded(self._before, inputs)]
        if self._sound and not self.lost and all(math.isfinite(float(x.sum())) for x in rows):
            try:
                with self._lock:
                    values = self._evaluate(rows, count)
                return tuple(values.split(self.output_widths, dim=1))
            except Exception as error:  # of a driver: wgpu has classes for some, and RuntimeError for others
                self.lost = True
                reason = " ".join(str(error).split())
                warnings.warn(
                    f"{self.adapter.name} was lost or cannot go on ({reason}): PyTorch evaluates this network from now "
                    "on; make its plan again to try the GPU again",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return self.plain(*encoded(self.encodings, [x.float() for x in inputs]))

    def _open(self, shader: NetworkShader) -> None:
        handle = self.adapter.handle
        self.device = handle.request_device_sync(required_limits={name: handle.limits[name] for name in LIMITS})
        code = self.device.create_shader_module(code=shader.code)
        compute = {"module": code, "entry_point": "main"}
        self._pipeline = self.device.create_compute_pipeline(layout="auto", compute=compute)
        self._constants = [self._buffer(len(content)) for content in shader[2:]]
        for buffer, content in zip(self._constants, shader[2:], strict=True):
            self.device.queue.write_buffer(buffer, 0, content)

    def _evaluate(self, rows: Sequence[Tensor], count: int) -> Tensor:
        """Outputs beside one another, `[n, sum of widths]`."""
        total = sum(self.output_widths)
        bound = [(buffer, buffer.size) for buffer in self._constants]
        self._results = self._at_least(self._results, 4 * total * count)
        bound.append((self._results, 4 * total * count))
        for i, x in enumerate(rows):
            self._inputs[i] = self._at_least(self._inputs[i], 4 * x.numel())
            self.device.queue.write_buffer(self._inputs[i], 0, x.numpy())
            bound.append((self._inputs[i], 4 * x.numel()))
        # the shader takes the number of rows from the size of what is bound
        entries = [
            {"binding": number, "resource": {"buffer": buffer, "offset": 0, "size": size}}
            for number, (buffer, size) in enumerate(bound)
        ]
        group = self.device.create_bind_group(layout=self._pipeline.get_bind_group_layout(0), entries=entries)
        encoder = self.device.create_command_encoder()
        current = encoder.begin_compute_pass()
        current.set_pipeline(self._pipeline)
        current.set_bind_group(0, group)
        current.dispatch_workgroups(-(-count // self._tile))
        current.end()
        self.device.queue.submit([encoder.finish()])
        content = self.device.queue.read_buffer(self._results, 0, 4 * total * count)
        return torch.frombuffer(content, dtype=torch.float32).view(count, total)

    def _at_least(self, buffer: Any, size: int) -> Any:
        """A buffer of at least so many bytes in place of one, which may be None."""
        if buffer is not None and buffer.size >= size:
            return buffer
        if buffer is not None:
            buffer.destroy()
        return self._buffer(size)

    def _buffer(self, size: int) -> Any:
        import wgpu

        usage = wgpu.BufferUsage
        return self.device.create_buffer(size=size, usage=usage.STORAGE | usage.COPY_SRC | usage.COPY_DST)
