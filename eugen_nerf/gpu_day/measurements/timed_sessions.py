"""Parts "training", "precision" and "long": presets trained for some seconds, timed, taken apart and evaluated."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig

from eugen_nerf.core.timing import synchronise
from eugen_nerf.evaluation.costs.resources import peak_memory
from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.expected_costs import predictions_of
from eugen_nerf.gpu_day.measurements.step_costs import profile_step, split_step
from eugen_nerf.gpu_day.rows import RowLog
from eugen_nerf.gpu_day.sessions import FAMILIES_OF_METHODS, iterate, session
from eugen_nerf.methods.runs.image_metrics import image_metrics

MOST_SECONDS = 30.0
"""Of training in one row."""
STOCK_SECONDS = 4.0
"""Of training nerfstudio's own methods: their times stand beside, their quality is no matter."""
AROUND = 9.0
"""Seconds of a row beside its training: reading images, compiling, evaluation, about."""
WARMUP, SPLIT, PROFILED = 12, 10, 3
"""Steps before the clock starts, of the split, and under the profiler."""
VIEWS = 2
"""Held-out views that are rendered."""
ARITHMETICS = {"float32": "exact", "tf32": "fast", "bfloat16": "bfloat16"}
"""What networks multiply in, and a model's setting for it."""


def train_families(day: Day, log: RowLog) -> None:
    """Full-size presets of all families, EUGen and dense after one another, and two of nerfstudio's own methods."""
    rows = [(name, variant) for name in FAMILIES_OF_METHODS for variant in ("eugen", "dense")]
    stock = [("nerfacto", "torch"), ("vanilla-nerf", "stock")]
    for number, (name, variant) in enumerate(rows):
        kept = len(stock) * (STOCK_SECONDS + AROUND)
        seconds = min(MOST_SECONDS, (log.left - kept) / (len(rows) - number) - AROUND)
        log.measure(f"{name}, {variant}", partial(train, day, name, variant, max(3.0, seconds)))
    for name, variant in stock:
        log.measure(f"{name}, {variant}", partial(train, day, name, variant, STOCK_SECONDS))


def train_precisions(day: Day, log: RowLog) -> None:
    """NeRF and Mip-NeRF 360 with networks that multiply in float32, TF32 and bfloat16, each for a few seconds."""
    names = [(name, v) for name in ("eugen-nerf", "eugen-mipnerf360") for v in ("eugen", "dense")]
    rows = [(name, v, kind) for name, v in names for kind in ARITHMETICS]
    for number, (name, variant, kind) in enumerate(rows):
        seconds = max(1.0, log.left / (len(rows) - number) - 4.0)
        work = partial(train, day, name, variant, min(5.0, seconds), arithmetic=kind)
        log.measure(f"{name}, {variant}, {kind}", work)


def train_long(day: Day, log: RowLog) -> None:
    """For all the time that is left: lego dense and EUGen, and the garden by Zip-NeRF."""
    rows = [("eugen-zipnerf", "eugen"), ("eugen-nerf", "eugen"), ("eugen-nerf", "dense")]
    for number, (name, variant) in enumerate(rows):
        seconds = log.left / (len(rows) - number) - AROUND
        work = partial(train, day, name, variant, max(3.0, seconds), views=3 * VIEWS)
        log.measure(f"{name}, {variant}", work, needs=10.0)


def train(
    day: Day, preset: str, variant: str, seconds: float, *, arithmetic: str | None = None, views: int = VIEWS
) -> dict[str, Any]:
    """Trains a preset for some seconds, its learning rates following their whole schedule within them.

    Args:
        day: the settings.
        preset: a method's name.
        variant: dense or eugen.
        seconds: of training, after some steps that measure how many fit.
        arithmetic: of `ARITHMETICS`; as the preset has it where None.
        views: held-out views that are evaluated.
    """
    change = partial(set_arithmetic, arithmetic=arithmetic) if arithmetic else lambda config: None
    trainer = session(day, preset, variant=variant, change=change)
    try:
        figures = _measured(day, trainer, seconds, views)
        multiplied = arithmetic or arithmetic_of(trainer.config, day.device)
        return {**figures, "arithmetic": multiplied, **predictions_of(preset, variant, multiplied)}
    finally:
        del trainer
        gc.collect()  # pipelines hold cycles
        if day.device == "cuda":
            torch.cuda.empty_cache()


def set_arithmetic(config: TrainerConfig, arithmetic: str) -> None:
    """Lets the networks of one of our methods multiply so."""
    model: Any = config.pipeline.model
    model.arithmetic = ARITHMETICS[arithmetic]


def arithmetic_of(config: TrainerConfig, device: str) -> str:
    """What a method's networks multiply in: float32, tf32 or bfloat16. Stock methods have no such setting."""
    setting = getattr(config.pipeline.model, "arithmetic", None)
    if setting == "bfloat16":
        return "bfloat16"
    return "tf32" if device == "cuda" and setting == "fast" else "float32"


def _measured(day: Day, trainer: Trainer, seconds: float, views: int) -> dict[str, Any]:
    device, numbers = day.target, itertools.count()

    def step() -> torch.Tensor:
        return iterate(trainer, next(numbers))

    warmup, split, profiled = (2, 1, 1) if day.tiny else (WARMUP, SPLIT, PROFILED)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = _timed_steps(step, device, steps=warmup)[1] / warmup
    each = _timed_steps(step, device, steps=warmup)[1] / warmup  # the first ones compile and allocate
    planned = 2 if day.tiny else max(warmup, int(seconds / each))
    stages = split_step(trainer, step, split)
    counts = profile_step(step, profiled, device)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory(step, device)
    shorten_schedules(trainer, planned)
    numbers = itertools.count()  # callbacks and curricula count from the start again
    done, taken = _timed_steps(step, device, steps=planned, seconds=1.2 * seconds)
    loss = float(step())
    rays = trainer.pipeline.datamanager.get_train_rays_per_batch()
    return {
        "data": Path(str(trainer.config.pipeline.datamanager.data)).name,
        "steps": done,
        "training_seconds": taken,
        "ms": 1e3 * taken / done,
        "first_steps_ms": 1e3 * first,
        "rays": rays,
        "split_ms": stages,
        "peak_memory_bytes": memory,
        "loss": loss,
        **counts,
        **evaluate(trainer, views),
    }


def shorten_schedules(trainer: Trainer, steps: int) -> None:
    """Sets up the optimizers anew, with schedules and curricula that end after so many steps instead of all."""
    config = trainer.config
    share = steps / config.max_num_iterations
    for group in config.optimizers.values():
        schedule = group["scheduler"]
        if hasattr(schedule, "warmup_steps"):
            schedule.warmup_steps = round(schedule.warmup_steps * share)
            schedule.max_steps = max(schedule.warmup_steps + 1, round(schedule.max_steps * share))
    manager: Any = trainer.pipeline.datamanager.config
    if hasattr(manager, "reveal_steps"):
        manager.reveal_steps = round(manager.reveal_steps * share)
    trainer.optimizers = trainer.setup_optimizers()


@torch.no_grad()
def evaluate(trainer: Trainer, views: int) -> dict[str, Any]:
    """Mean PSNR, SSIM and LPIPS of held-out views, or the errors of a signed distance; seconds of a view."""
    pipeline = trainer.pipeline
    pipeline.eval()
    values_by_name: dict[str, list[float]] = {}
    seconds = []
    for _, (camera, batch) in zip(
        range(views), cast(Iterable[Any], pipeline.datamanager.fixed_indices_eval_dataloader), strict=False
    ):
        synchronise(trainer.device)
        began = time.perf_counter()
        outputs = pipeline.model.get_outputs_for_camera(camera)
        synchronise(trainer.device)
        seconds.append(time.perf_counter() - began)
        for name, value in _metrics(pipeline.model, outputs, batch).items():
            values_by_name.setdefault(name, []).append(float(value))
    pipeline.train()
    means = {name: sum(values) / len(values) for name, values in values_by_name.items()}
    return {"metrics": means, "views": len(seconds), "image_seconds": min(seconds)}


def _metrics(model: Any, outputs: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, float]:
    if hasattr(model, "graph_fields"):
        return model.get_image_metrics_and_images(outputs, batch)[0]
    # nerfstudio's own methods build an LPIPS network for theirs, which needs other weights
    rgb = outputs.get("rgb", outputs.get("rgb_fine"))
    assert rgb is not None
    return image_metrics(rgb, model.renderer_rgb.blend_background(batch["image"].to(rgb.device)))


def _timed_steps(
    step: Callable[[], object], device: torch.device, *, steps: int, seconds: float = float("inf")
) -> tuple[int, float]:
    """Steps that were made, and their seconds: all of them, or as many as begin in time."""
    synchronise(device)
    began, done = time.perf_counter(), 0
    while done < steps and time.perf_counter() - began < seconds:
        step()
        done += 1
    synchronise(device)
    return done, time.perf_counter() - began
