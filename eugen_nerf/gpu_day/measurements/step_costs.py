"""Where the time of nerfstudio's training step goes, and what it launches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nerfstudio.engine.trainer import Trainer

from eugen_nerf.core.timing import synchronise

STAGES = ("data", "forward", "backward", "optimizer")
LAUNCHES = ("LaunchKernel", "MemcpyAsync", "MemsetAsync")
"""What names of CUDA calls that put work on the device hold."""
SYNCHRONISATIONS = ("Synchronize",)
"""What names of CUDA calls that wait for the device hold."""


class StepClock:
    """Seconds of each stage of training steps; the device is waited for at every border.

    Within `attached`, a data manager's batches are "data", the rest of nerfstudio's `get_train_loss_dict` is "forward"
    (losses and metrics among it), the optimizers' and schedulers' steps are "optimizer", and what is left of a step is
    "backward" (callbacks among it).
    """

    def __init__(self, trainer: Trainer) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._trainer = trainer

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within it, the trainer's stages are timed."""
        trainer = self._trainer
        places = (
            (trainer.pipeline.datamanager, "next_train", "data"),
            (trainer.pipeline, "get_train_loss_dict", "forward"),
            (trainer.optimizers, "zero_grad_some", "optimizer"),
            (trainer.optimizers, "optimizer_scaler_step_some", "optimizer"),
            (trainer.optimizers, "scheduler_step_all", "optimizer"),
        )
        for owner, name, stage in places:
            setattr(owner, name, self._timed(getattr(owner, name), stage))
        try:
            yield
        finally:
            for owner, name, _ in places:
                delattr(owner, name)  # the class's own method is there again

    def _timed(self, method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            synchronise(self._trainer.device)
            began = time.perf_counter()
            result = method(*args, **kwargs)
            synchronise(self._trainer.device)
            self.seconds[stage] += time.perf_counter() - began
            return result

        return call

    def milliseconds(self, steps: int, total: float) -> dict[str, float]:
        """Of one step, by stage, where so many steps took `total` seconds."""
        data, optimizer = self.seconds["data"], self.seconds["optimizer"]
        forward = self.seconds["forward"] - data  # batches are drawn within it
        parts = {"data": data, "forward": forward, "backward": total - data - forward - optimizer}
        return {stage: 1e3 * seconds / steps for stage, seconds in {**parts, "optimizer": optimizer}.items()}


def split_step(trainer: Trainer, step: Callable[[], object], steps: int) -> dict[str, float]:
    """Milliseconds of one step by stage, from some steps that wait for the device at every border."""
    clock = StepClock(trainer)
    with clock.attached():
        synchronise(trainer.device)
        began = time.perf_counter()
        for _ in range(steps):
            step()
        synchronise(trainer.device)
    return clock.milliseconds(steps, time.perf_counter() - began)


def profile_step(step: Callable[[], object], steps: int, device: torch.device) -> dict[str, Any]:
    """Launches, synchronisations, busy milliseconds of the device and its longest kernels, of one step.

    Nothing on a CPU, where there is none of it.
    """
    if device.type != "cuda":
        step()
        return {"launches": None, "synchronisations": None, "device_ms": None, "longest": {}}
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
    events = profile.key_averages()
    calls = Counter({event.key: event.count for event in events})
    # operators and annotations carry the time of what runs within them: kernels and copies alone are counted
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = {
        event.key: event.self_device_time_total
        for event in on_device
        if not getattr(event, "is_user_annotation", False)
    }
    longest = sorted(kernels, key=lambda name: kernels[name], reverse=True)[:8]
    return {
        **count_calls(calls, steps),
        "device_ms": sum(kernels.values()) / 1e3 / steps,
        "longest": {name[:80]: kernels[name] / 1e3 / steps for name in longest},
    }


def count_calls(calls: Counter[str], steps: int) -> dict[str, float]:
    """Launches and synchronisations of one step, from the number of calls by name (`cudaLaunchKernel`, ...)."""

    def count(parts: tuple[str, ...]) -> float:
        ours = (n for name, n in calls.items() if name.startswith("cu") and any(part in name for part in parts))
        return sum(ours) / steps

    return {"launches": count(LAUNCHES), "synchronisations": count(SYNCHRONISATIONS)}
