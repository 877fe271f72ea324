"""What a run costs besides time: parameters, multiply-adds, memory; and what the numbers were taken on."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.graph_model import GraphModel

PEAK_MEMORY_NOTES = {
    "cuda": "CUDA: rise of torch.cuda.max_memory_allocated while rendering one view, in bytes",
    "cpu": (
        "CPU: highest sum of the bytes of live tensors made while rendering one view, counted operation by operation; "
        "weights, and scratch memory inside an operation, are not in it. Resident memory is not used: it depends on "
        "what ran before in the process"
    ),
}


def count_parameters(module: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of parameter values of a module."""
    return sum(value.numel() for value in module.parameters() if value.requires_grad or not trainable_only)


def inference_parameters(field: nn.Module) -> int:
    """Numbers that evaluation needs: a field's own count of its collapsed network, else its parameters."""
    own = getattr(field, "inference_parameters", None)
    return int(own()) if callable(own) else count_parameters(field)


def fit_seconds(config_path: Path) -> float | None:
    """Seconds that training took, or conversion and calibration, where a record beside the config says so.

    Null there is not known.

    Raises:
        RunError: a record that says no number of seconds.
    """
    for name in ("training.json", "distill.json"):
        path = config_path.with_name(name)
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf8"))
                calibration = record.get("calibration", {"seconds": 0.0})["seconds"]
                seconds = None if record["seconds"] is None else float(record["seconds"]) + float(calibration)
            except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                raise RunError(f"{path} is damaged: copy it again, or remove it to compare without it") from error
            if seconds is not None and not 0 <= seconds < math.inf:
                raise RunError(f"{path} is damaged, as it says {seconds} seconds: remove it to compare without it")
            return seconds
    return None


def peak_memory(render: Callable[[], Any], device: str | torch.device) -> int:
    """Peak memory of one call in bytes, beyond what was held before; `PEAK_MEMORY_NOTES` says what is counted."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        render()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveTensorBytes() as tracker:
        render()
    return tracker.peak


class _LiveTensorBytes(TorchDispatchMode):
    """Follows the bytes of tensor storages that operations allocate under it, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = [leaf.untyped_storage() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        inputs = {id(storage) for storage in known}
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage(), inputs)
        return output

    def _add(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        # A view or an in-place result shares its input's storage: nothing new is allocated.
        if id(storage) in inputs or self._seen.get(id(storage)) is storage:
            return
        size = storage.nbytes()
        self._seen[id(storage)] = storage
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size).atexit = False

    def _release(self, size: int) -> None:
        self.live -= size


def environment(device: str | torch.device, dtypes: list[str]) -> dict[str, Any]:
    """What the numbers were taken on: device, dtype, threads, versions, git revision."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "device_name": name,
        "dtype": dtypes[0] if len(dtypes) == 1 else dtypes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_revision": git_revision(),
        "peak_memory": PEAK_MEMORY_NOTES.get(device.type, PEAK_MEMORY_NOTES["cpu"]),
    }


def tf32_note(models: Mapping[str, nn.Module], device: torch.device) -> list[str]:
    """A line that says whose networks multiply in TF32 on a device, where some do: others' times are of float32.

    Args:
        models: by name.
        device: that they run on.
    """
    if device.type != "cuda":
        return []
    fast = [n for n, m in models.items() if isinstance(m, GraphModel) and m.config.arithmetic != "exact"]
    exact = [name for name in models if name not in fast]
    if not fast:
        return []
    others = f", those of {', '.join(exact)} in float32: their speeds are not alike" if exact else ""
    return [f"networks of {', '.join(fast)} multiply in TF32 where no plan says otherwise (arithmetic fast){others}"]


def git_revision() -> str | None:
    """Revision of the checkout that this package lies in, with "-dirty" where files differ; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
