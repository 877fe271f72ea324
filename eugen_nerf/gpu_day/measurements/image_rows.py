"""Part "images": an image of every family by every way of running its networks, and nerfacto's beside them."""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import Any

import torch

from eugen_nerf.core.timing import synchronise
from eugen_nerf.evaluation.costs.image_speed import measure_images, ways_of
from eugen_nerf.gpu_day.day import Day
from eugen_nerf.gpu_day.rows import RowLog
from eugen_nerf.gpu_day.sessions import FAMILIES_OF_METHODS, session, shrunk_camera

VARIANTS = ("dense", "eugen", "narrow", "lowrank")
STOCK = ("nerfacto", "vanilla-nerf")
"""nerfstudio's own methods, by their implementation in torch."""
SIDE = 160
"""Pixels along the longer side of an image."""
ROUNDS = 3


def measure_methods(day: Day, log: RowLog) -> None:
    """Untrained presets: a time depends on weights only where rays are cut short, and none are here."""
    for preset in FAMILIES_OF_METHODS:
        log.measure(preset, partial(measure_preset, day, preset), needs=5.0)
    for preset in STOCK:
        log.measure(preset, partial(measure_stock, day, preset), needs=3.0)


def measure_preset(day: Day, preset: str) -> dict[str, Any]:
    """Dense, EUGen, narrower and of low rank in turns: as they are and by plans; compiling would take too long here."""
    trainers = {variant: session(day, preset, variant=variant) for variant in VARIANTS}
    try:
        camera = shrunk_camera(trainers["dense"], 6 if day.tiny else SIDE)
        models = {variant: trainer.pipeline.model.eval() for variant, trainer in trainers.items()}
        ways = ways_of(models, ["dense"], camera, compiled=False)
        if preset == "eugen-isdf":  # a gradient goes by no plan
            ways = [way for way in ways if way.plans is None]
        rows = measure_images(ways, camera, repeats=1 if day.tiny else ROUNDS)
        return {"images": [{"family": preset, **row} for row in rows], "pixels": int(camera.width * camera.height)}
    finally:
        del trainers
        gc.collect()


@torch.no_grad()
def measure_stock(day: Day, preset: str) -> dict[str, Any]:
    """Seconds of an image, the fastest of some."""
    trainer = session(day, preset)
    camera = shrunk_camera(trainer, 6 if day.tiny else SIDE)
    model, seconds = trainer.pipeline.model.eval(), []
    for _ in range(2 if day.tiny else 1 + ROUNDS):
        synchronise(day.target)
        began = time.perf_counter()
        model.get_outputs_for_camera(camera)
        synchronise(day.target)
        seconds.append(time.perf_counter() - began)
    row = {"family": preset, "name": "torch", "seconds_per_image": min(seconds[1:]), "seconds": seconds[1:]}
    return {"images": [row], "pixels": int(camera.width * camera.height)}
