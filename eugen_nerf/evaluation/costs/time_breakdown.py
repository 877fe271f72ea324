"""Where the time of a render goes: seconds in encodings, networks, samplers and renderers, each second counted once.

A faster network saves at most what networks take. That share differs widely between methods (most of a NeRF's time, a
small part of Zip-NeRF's), so a speed ratio says little without it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from nerfstudio.field_components.encodings import Encoding
from nerfstudio.field_components.field_heads import FieldHead
from nerfstudio.field_components.mlp import MLP
from nerfstudio.field_components.spatial_distortions import SpatialDistortion
from nerfstudio.model_components import renderers
from nerfstudio.model_components.ray_samplers import Sampler
from torch import nn

from eugen_nerf.core import LayerGraph
from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.fields.encoders import FrustumEncoder
from eugen_nerf.fields.query_timing import synchronise
from eugen_nerf.methods.runs.loading import Run

OTHER = "other"
NETWORK = "MLP"
CATEGORIES = ("encoding", NETWORK, "sampling", "compositing", OTHER)
_CLASSES: tuple[tuple[str, tuple[type, ...]], ...] = (
    # A contraction of space prepares an encoding; FrustumEncoder has it inside.
    ("encoding", (Encoding, FrustumEncoder, SpatialDistortion)),
    (NETWORK, (LayerGraph, MLP, FieldHead)),
    ("sampling", (Sampler,)),
    (
        "compositing",
        (
            renderers.RGBRenderer,
            renderers.SHRenderer,
            renderers.AccumulationRenderer,
            renderers.DepthRenderer,
            renderers.UncertaintyRenderer,
            renderers.SemanticRenderer,
            renderers.NormalsRenderer,
        ),
    ),
)
REMARK = (
    "Seconds of rendering one view, by the kind of module at work; a module inside another is counted once, as the "
    "inner one. other: rays, weights from densities, masks, copies, and modules of no kind named here. ceiling: how "
    "much faster the image would be if the MLP took no time. On a GPU the parts wait for each other here, so their sum "
    "can exceed s/image."
)


def category(module: nn.Module) -> str | None:
    """What a module's time is counted as; None where it belongs to whatever calls it.

    A fused tiny-cuda-nn encoding and network (``MLPWithHashEncoding``) cannot be taken apart and is of no category: its
    time stays in "other", and the ceiling is a cautious one.
    """
    return next((name for name, classes in _CLASSES if isinstance(module, classes)), None)


class ExclusiveTimes:
    """Seconds by category, each charged to the innermost category that is at work.

    Args:
        wait: called before each reading of the clock; on a GPU it waits for the work queued there.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self.seconds = dict.fromkeys(CATEGORIES, 0.0)
        self._wait = wait
        self._stack: list[str] = []
        self._since = 0.0

    def enter(self, name: str) -> None:
        """Work of a category begins."""
        self._charge()
        self._stack.append(name)

    def leave(self) -> None:
        """The work that began last is done."""
        self._charge()
        self._stack.pop()

    def _charge(self) -> None:
        self._wait()
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


@contextmanager
def hooked(model: nn.Module, times: ExclusiveTimes) -> Iterator[None]:
    """Within it, every module of the model that has a category reports when it begins and ends."""
    handles = []
    for module in model.modules():
        name = category(module)
        if name is not None:
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: times.enter(name)))
            # also where forward raises, or the stack would be wrong ever after
            handles.append(module.register_forward_hook(lambda *_: times.leave(), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def split_once(model: nn.Module, work: Callable[[], Any], wait: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Seconds of one call by category; they sum to the time of the whole call.

    Args:
        model: the module that the call uses; its parts are timed.
        work: the call.
        wait: as in `ExclusiveTimes`.
    """
    times = ExclusiveTimes(wait)
    with hooked(model, times):
        times.enter(OTHER)
        try:
            work()
        finally:
            times.leave()
    return times.seconds


def image_splits(
    runs: Mapping[str, Run], view: int, *, repeats: int, done: Callable[[], None] = lambda: None
) -> dict[str, dict[str, float]]:
    """Seconds of rendering one view by category, for each run: medians over rounds in which the runs take turns.

    Args:
        runs: by name, in evaluation mode.
        view: index of the evaluation view.
        repeats: rounds. There is no warm-up: the views have been rendered and timed before.
        done: called after every render.
    """
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            work = partial(render_rgb, run, view_camera(run, view))
            rounds[name].append(split_once(run.model, work, partial(synchronise, run.pipeline.device)))
            done()
    return {name: median_split(splits) for name, splits in rounds.items()}


def median_split(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median seconds of each category."""
    return {name: statistics.median(split[name] for split in rounds) for name in CATEGORIES}


def ceiling(split: Mapping[str, float]) -> float:
    """How many times faster the whole would be if networks took no time (Amdahl's law); infinite if they are all."""
    total = sum(split.values())
    rest = total - split[NETWORK]
    return total / rest if rest > 0 else float("inf")
