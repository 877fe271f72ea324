"""Part "methods": a training step and an evaluation image of every method on the device, at tiny and at full width."""

from __future__ import annotations

import gc
import math
from functools import partial
from typing import Any

from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.rows import RowLog
from eugen_nerf.gpu_day.sessions import FAMILIES_OF_METHODS, iterate, presets, session, shrunk_camera

STEPS = 2
SIDE = 64
"""Pixels along the longer side of the image."""


def check_methods(day: Day, log: RowLog) -> None:
    """The presets with EUGen layers, the full-size ones first, then each family's full-size and small one dense.

    Presets named small have narrow networks.
    """
    names = sorted(presets(), key=lambda name: (name not in FAMILIES_OF_METHODS, name))
    dense = [name for name in names if name.removesuffix("-small") in FAMILIES_OF_METHODS]
    for variant, chosen in (("eugen", names), ("dense", dense)):
        for name in chosen:
            log.measure(f"{name}, {variant}", partial(check_method, day, name, variant))


def check_method(day: Day, preset: str, variant: str) -> dict[str, Any]:
    """`ok` is whether losses and image are finite, and all weights were where they should be."""
    trainer = session(day, preset, variant=variant)
    try:
        losses = [float(iterate(trainer, step)) for step in range(STEPS)]
        pipeline = trainer.pipeline
        pipeline.eval()
        camera = shrunk_camera(trainer, 12 if day.tiny else SIDE)
        image = pipeline.model.get_outputs_for_camera(camera)["rgb"]
        places = {tensor.device.type for tensor in [*pipeline.model.parameters(), *pipeline.model.buffers()]}
        ok = all(map(math.isfinite, losses)) and bool(image.isfinite().all()) and places == {day.device}
        return {"ok": ok, "losses": losses, "image": list(image.shape), "devices": sorted(places)}
    finally:
        del trainer
        gc.collect()  # pipelines hold cycles: their memory would stay until the next row needs it
