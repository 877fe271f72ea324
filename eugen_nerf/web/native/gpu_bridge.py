"""Carries out on a device what the engine's JavaScript wrote down (assets/native/recorded_gpu.js)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from eugen_nerf.web.native.adapters import GpuAdapter

Command = Sequence[Any]
"""A word, and its values."""
LONGEST_MESSAGE = 400
"""Characters of what a driver says of a shader."""


class Settled(NamedTuple):
    """A request that the engine waits for, and how it ended."""

    number: int
    value: Any = None
    error: str | None = None


class GpuBridge:
    """A device and its objects, by the numbers that the engine gave them.

    Args:
        adapter: whose device is opened when the engine requests it.
        arrive: called with a buffer's number and its content when the engine reads it.
    """

    def __init__(self, adapter: GpuAdapter, arrive: Callable[[int, memoryview], None]) -> None:
        self.adapter, self.arrive = adapter, arrive
        self.device: Any = None
        self._buffers: dict[int, Any] = {}
        self._modules: dict[int, Any] = {}
        self._pipelines: dict[int, Any] = {}
        self._encoders: dict[int, Any] = {}
        self._passes: dict[int, Any] = {}

    def offer(self) -> dict[str, Any]:
        """The adapter as WebGPU describes it."""
        info = {"vendor": "", "architecture": "", "description": self.adapter.name}
        limits = {_camel(key): value for key, value in self.adapter.handle.limits.items()}
        return {"limits": limits, "info": {**info, "isFallbackAdapter": self.adapter.software}}

    def carry_out(self, commands: Sequence[Command], content: memoryview) -> list[Settled]:
        """Commands in their order.

        Args:
            commands: as the engine wrote them.
            content: bytes that they write to buffers, one after another.

        Returns:
            The requests among them.

        Raises:
            wgpu.GPUError: a driver refuses; a lost device is among the reasons.
        """
        settled, at = [], 0
        for word, *values in commands:
            if word == "write":
                buffer, offset, size = values
                self.device.queue.write_buffer(self._buffers[buffer], offset, content[at : at + size])
                at += size
            elif (ended := getattr(self, f"_{word}")(*values)) is not None:
                settled.append(ended)
        return settled

    def content(self, buffer: int, size: int) -> memoryview:
        """The first bytes of a buffer."""
        return self.device.queue.read_buffer(self._buffers[buffer], 0, size)

    def close(self) -> None:
        """Frees the device and all that is on it."""
        if self.device is not None:
            self.device.destroy()
        for objects in (self._buffers, self._modules, self._pipelines, self._encoders, self._passes):
            objects.clear()

    def _device(self, request: int, limits: dict[str, int]) -> Settled:
        wanted = {_kebab(key): value for key, value in limits.items()}
        self.device = self.adapter.handle.request_device_sync(required_limits=wanted)
        return Settled(request, {_camel(key): value for key, value in self.device.limits.items()})

    def _module(self, number: int, label: str, code: str) -> None:
        try:
            self._modules[number] = self.device.create_shader_module(label=label, code=code)
        except _refusals() as error:
            self._modules[number] = error

    def _pipeline(self, request: int, number: int, label: str, module: int) -> Settled:
        code = self._modules.pop(module)
        try:
            if isinstance(code, Exception):
                raise code
            compute = {"module": code, "entry_point": "main"}
            self._pipelines[number] = self.device.create_compute_pipeline(label=label, layout="auto", compute=compute)
        except _refusals() as error:
            return Settled(request, error=" ".join(str(error).split())[:LONGEST_MESSAGE])
        return Settled(request)

    def _buffer(self, number: int, label: str, size: int, usage: int) -> None:
        self._buffers[number] = self.device.create_buffer(label=label, size=size, usage=usage)

    def _destroy(self, number: int) -> None:
        if (buffer := self._buffers.pop(number, None)) is not None:
            buffer.destroy()

    def _map(self, request: int, number: int) -> Settled:
        buffer = self._buffers[number]
        buffer.map_sync("READ")
        self.arrive(number, buffer.read_mapped(copy=False))
        buffer.unmap()
        return Settled(request)

    def _encoder(self, number: int) -> None:
        self._encoders[number] = self.device.create_command_encoder()

    def _clear(self, encoder: int, buffer: int) -> None:
        self._encoders[encoder].clear_buffer(self._buffers[buffer])

    def _copy(self, encoder: int, source: int, start: int, target: int, to: int, size: int) -> None:
        buffers = self._buffers
        self._encoders[encoder].copy_buffer_to_buffer(buffers[source], start, buffers[target], to, size)

    def _pass(self, encoder: int) -> None:
        self._passes[encoder] = self._encoders[encoder].begin_compute_pass()

    def _dispatch(self, encoder: int, pipeline: int, group: list[list[int]], groups: list[int] | int) -> None:
        current, used = self._passes[encoder], self._pipelines[pipeline]
        entries = [{"binding": binding, "resource": {"buffer": self._buffers[number]}} for binding, number in group]
        current.set_pipeline(used)
        current.set_bind_group(0, self.device.create_bind_group(layout=used.get_bind_group_layout(0), entries=entries))
        if isinstance(groups, int):
            current.dispatch_workgroups_indirect(self._buffers[groups], 0)
        else:
            current.dispatch_workgroups(*groups)

    def _end(self, encoder: int) -> None:
        self._passes.pop(encoder).end()

    def _submit(self, encoder: int) -> None:
        self.device.queue.submit([self._encoders.pop(encoder).finish()])


def _refusals() -> type[Exception]:
    """What wgpu raises for a shader that a driver does not take."""
    import wgpu

    refusal: type[Exception] = wgpu.GPUError
    return refusal


def _camel(name: str) -> str:
    """`maxBufferSize` for `max-buffer-size`."""
    first, *others = name.split("-")
    return first + "".join(part.capitalize() for part in others)


def _kebab(name: str) -> str:
    """`max-buffer-size` for `maxBufferSize`."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
