"""The pretence itself: `torch.cuda` says that there is a GPU, and the other parts are put in place."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from pretend.counts import Counts
from pretend.functions import function_patches
from pretend.operations import PretendedOperations
from pretend.tags import as_device, tag_storage

NAME = "pretended GPU"
FREE_BYTES, TOTAL_BYTES = 79 << 30, 80 << 30
PROPERTIES = types.SimpleNamespace(
    name=NAME,
    major=9,
    minor=0,
    L2_cache_size=50 << 20,
    multi_processor_count=132,
    shared_memory_per_block_optin=232_448,
    total_memory=TOTAL_BYTES,
)
ANSWERS: dict[str, Any] = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "is_current_stream_capturing": False,
    "get_device_properties": PROPERTIES,
    "get_device_name": NAME,
    "get_device_capability": (9, 0),
    "mem_get_info": (FREE_BYTES, TOTAL_BYTES),
    "is_bf16_supported": True,
    **dict.fromkeys(("max_memory_allocated", "memory_allocated", "memory_reserved", "max_memory_reserved"), 0),
    **dict.fromkeys(("set_device", "empty_cache", "reset_peak_memory_stats", "set_rng_state"), None),
    **dict.fromkeys(("manual_seed", "manual_seed_all"), None),
}
"""What functions of `torch.cuda` return, whatever they are given."""


@contextmanager
def pretend_cuda() -> Iterator[Counts]:
    """Within it there is one GPU, as far as devices go; gives what is counted.

    Not to be entered twice at a time. Tensors made within it keep their device afterwards, but nothing looks at it.
    """
    counts = Counts()
    with ExitStack() as stack:
        for patch in (*_library_patches(counts), *function_patches(counts)):
            stack.enter_context(patch)
        stack.enter_context(PretendedOperations(counts))
        yield counts


def _returning(answer: Any) -> Any:
    return lambda *_, **__: answer


def _library_patches(counts: Counts) -> Iterator[Any]:
    def synchronize(device: Any = None) -> None:
        counts.wait("torch.cuda.synchronize")

    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    for name, answer in ANSWERS.items():
        yield mock.patch.object(torch.cuda, name, _returning(answer))
    yield mock.patch.object(torch.cuda, "synchronize", synchronize)
    yield mock.patch.object(torch.cuda, "get_rng_state", get_rng_state)
    # looks for a capturing stream
    yield mock.patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", _returning(None))
    yield from _autocast_patches()
    yield from _serialization_patches()


def _autocast_patches() -> Iterator[Any]:
    """Mixed precision of the CPU, with CUDA's default type."""
    begin, real_enabled, real_dtype = torch.autocast.__init__, torch.is_autocast_enabled, torch.get_autocast_dtype

    def init(self: Any, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        begin(self, device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)

    def is_enabled(device_type: str = "cuda") -> bool:
        return real_enabled("cpu")

    def get_dtype(device_type: str) -> torch.dtype:
        return real_dtype("cpu")

    yield mock.patch.object(torch.autocast, "__init__", init)
    yield mock.patch.object(torch, "is_autocast_enabled", is_enabled)
    yield mock.patch.object(torch, "get_autocast_dtype", get_dtype)


def _serialization_patches() -> Iterator[Any]:
    """Files say where a tensor was, and are refused where there is no such device any more."""
    location, restore = torch.serialization.location_tag, torch.serialization.default_restore_location

    def location_tag(storage: Any) -> str:
        device = getattr(storage, "pretended", None)
        return location(storage) if device is None else "cpu" if device.type == "cpu" else str(device)

    def default_restore_location(storage: Any, where: str) -> Any:
        if not where.startswith("cuda"):
            return restore(storage, where)
        return tag_storage(storage, as_device(where))

    yield mock.patch.object(torch.serialization, "location_tag", location_tag)
    yield mock.patch.object(torch.serialization, "default_restore_location", default_restore_location)
