"""GPUs that WebGPU reaches from Python: which there are, and which is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from eugen_nerf.core.errors import ConfigError, EugenError

WGPU = "wgpu"
"""What `--device` is for rendering by WebGPU."""
PACKAGES = {"wgpu": "wgpu", "py_mini_racer": "mini-racer"}
"""Modules that are needed, and the packages that hold them."""
KINDS = ("DiscreteGPU", "IntegratedGPU", "Unknown", "CPU")
"""Types of adapters, the best first; one of the processor imitates a GPU."""
APIS = ("Metal", "Vulkan", "D3D12")
"""Interfaces of drivers by which adapters are reached."""


class GpuError(EugenError):
    """The engine cannot run on this machine's GPU, or not this scene; the message says what to do."""


@dataclass(frozen=True)
class GpuAdapter:
    """One of the machine's adapters."""

    name: str
    """As its driver calls it."""
    kind: str
    """One of `KINDS`."""
    api: str
    """One of `APIS`."""
    handle: Any
    """wgpu's own object."""

    @property
    def software(self) -> bool:
        """Whether it is the processor."""
        return self.kind == "CPU"

    def __str__(self) -> str:
        """One line to print."""
        kinds = {"DiscreteGPU": "a GPU", "IntegratedGPU": "a GPU on the processor's chip", "CPU": "software"}
        return f"{self.name} by {self.api}, {kinds.get(self.kind, 'of an unknown type')}"


def missing_packages_reason() -> str | None:
    """What has to be installed; None where all is there."""
    absent = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if not absent:
        return None
    return f"{' and '.join(absent)} not installed: pip install 'eugen_nerf[wgpu]' (Python 3.11 or later)"


def machine_adapters() -> list[GpuAdapter]:
    """The machine's adapters, the best first; none where a package is missing or no driver is found."""
    if missing_packages_reason() is not None:
        return []
    import wgpu

    with suppress(ImportError):  # Mesa's drivers bring an LLVM, beside which triton's crashes if it is loaded later
        import_module("triton")
    try:
        with _quiet_mesa():
            handles = wgpu.gpu.enumerate_adapters_sync()
    except Exception:  # whatever a driver raises: then there is no adapter
        return []
    found = [_described(handle) for handle in handles]
    return sorted((each for each in found if each.api in APIS), key=lambda each: KINDS.index(each.kind))


def choose_adapter() -> GpuAdapter:
    """The best adapter: a card of its own before the processor's GPU before the processor itself.

    Raises:
        GpuError: a package is missing, or there is no adapter.
    """
    if (reason := missing_packages_reason()) is not None:
        raise GpuError(f"rendering by WebGPU needs packages: {reason}")
    adapters = machine_adapters()
    if not adapters:
        raise GpuError(
            f"WebGPU finds no adapter here: install the GPU's driver for {' or '.join(APIS)}, or on Linux Mesa's "
            "(mesa-vulkan-drivers), which has one in software too; or render with --device cpu"
        )
    return adapters[0]


def adapter_for(device: str | None, *, exact: bool) -> GpuAdapter | None:
    """The adapter that a command's `--device` means; None where PyTorch renders.

    Args:
        device: `WGPU` for the best adapter, of the processor too; None for a GPU where torch has no CUDA.
        exact: whether `--exact` was given, which the engine cannot do.

    Raises:
        ConfigError: `WGPU` and exact.
        GpuError: as `choose_adapter`, for `WGPU`.
    """
    if device == WGPU:
        if exact:
            raise ConfigError(f"--device {WGPU} renders by the fast renderer: leave out --exact, or use --device cpu")
        return choose_adapter()
    if exact or device is not None or torch.cuda.is_available():
        return None
    return next((each for each in machine_adapters() if not each.software), None)


@contextmanager
def _quiet_mesa() -> Iterator[None]:
    """Mesa's Vulkan looks for a display, and prints a line for each adapter where no variable says where it would be:
    so one says that there is none."""
    if "XDG_RUNTIME_DIR" in os.environ:
        yield
        return
    os.environ["XDG_RUNTIME_DIR"] = os.devnull
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]


def _described(handle: Any) -> GpuAdapter:
    info = handle.info
    kind = info["adapter_type"] if info["adapter_type"] in KINDS else "Unknown"
    return GpuAdapter(info["device"] or info["vendor"] or "a GPU without a name", kind, info["backend_type"], handle)
