"""The time of a render taken apart: every second is counted once, for the innermost module of a known kind."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.field_components.encodings import Encoding, NeRFEncoding
from nerfstudio.field_components.field_heads import RGBFieldHead
from nerfstudio.field_components.mlp import MLP
from nerfstudio.field_components.spatial_distortions import SceneContraction
from nerfstudio.model_components.ray_samplers import PDFSampler, Sampler
from nerfstudio.model_components.renderers import DepthRenderer, RGBRenderer
from torch import nn

from eugen_nerf.core import NeRFShape, build_nerf
from eugen_nerf.evaluation.costs import time_breakdown as split
from eugen_nerf.evaluation.costs.time_breakdown import (
    CATEGORIES,
    category,
    ceiling,
    image_splits,
    median_split,
    split_once,
)
from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.fields.encoders import FrustumEncoder, GaussianEncoder
from eugen_nerf.methods.runs.loading import load_run


class Clock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def slow(self, kind: type[nn.Module], seconds: float, *inner: nn.Module, then: float = 0.0) -> nn.Module:
        """A module of a kind whose call takes seconds, calls other modules, and takes some seconds more."""
        clock = self

        class Slow(kind):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                nn.Module.__init__(self)
                self.inner = nn.ModuleList(inner)

            def forward(self) -> None:
                clock.now += seconds
                for module in self.inner:
                    module()
                clock.now += then

        return Slow()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_module_inside_another_is_counted_once(clock: Clock) -> None:
    """A sampler that asks a density network, whose encoder holds a grid: each has seconds of its own, all different."""
    grid = clock.slow(Encoding, 4)
    field = clock.slow(nn.Module, 64, clock.slow(FrustumEncoder, 1, grid, then=2), clock.slow(MLP, 8))
    sampler = clock.slow(Sampler, 16, field, then=32)
    model = clock.slow(nn.Module, 512, sampler, clock.slow(RGBRenderer, 128), clock.slow(MLP, 256), then=1024)
    found = split_once(model, model)
    # the field is of no kind, so its 64 seconds are its caller's
    assert found == {"encoding": 7, "MLP": 264, "sampling": 112, "compositing": 128, "other": 1536}
    assert sum(found.values()) == clock.now - 1000


def test_networks_inside_an_encoding_are_networks(clock: Clock) -> None:
    model = clock.slow(Encoding, 1, clock.slow(MLP, 2, clock.slow(Encoding, 4)), then=8)
    assert split_once(model, model) == {"encoding": 13, "MLP": 2, "sampling": 0, "compositing": 0, "other": 0}


def test_an_error_that_is_caught_inside_does_not_shift_later_times(clock: Clock) -> None:
    class Broken(MLP):
        def __init__(self) -> None:
            nn.Module.__init__(self)

        def forward(self) -> None:
            clock.now += 1
            raise ValueError

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.broken, self.encoding = Broken(), clock.slow(Encoding, 2)

        def forward(self) -> None:
            with pytest.raises(ValueError):
                self.broken()
            clock.now += 4
            self.encoding()

    model = Model()
    assert split_once(model, model) == {"encoding": 2, "MLP": 1, "sampling": 0, "compositing": 0, "other": 4}


def test_no_hook_is_left_behind(clock: Clock) -> None:
    model = clock.slow(nn.Module, 1, clock.slow(MLP, 1))
    split_once(model, model)

    def fail() -> None:
        assert any(module._forward_hooks for module in model.modules())
        raise ValueError

    with pytest.raises(ValueError):
        split_once(model, fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_device_is_waited_for_before_every_reading(clock: Clock) -> None:
    """Work that is queued when a module returns belongs to that module."""
    queued = 0.0

    def wait() -> None:
        nonlocal queued
        clock.now += queued
        queued = 0.0

    class Queueing(MLP):
        def __init__(self) -> None:
            nn.Module.__init__(self)

        def forward(self) -> None:
            nonlocal queued
            queued += 5

    model = clock.slow(nn.Module, 1, Queueing(), then=2)
    assert split_once(model, model, wait) == {"encoding": 0, "MLP": 5, "sampling": 0, "compositing": 0, "other": 3}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: NeRFEncoding(3, 2, 0.0, 1.0), "encoding"),
        (lambda: GaussianEncoder(2), "encoding"),
        (SceneContraction, "encoding"),
        (lambda: build_nerf(NeRFShape(trunk_width=8, head_width=4)), "MLP"),
        (lambda: MLP(3, 2, 8), "MLP"),
        (lambda: RGBFieldHead(8), "MLP"),
        (PDFSampler, "sampling"),
        (DepthRenderer, "compositing"),
        (lambda: nn.Linear(1, 1), None),
    ],
)
def test_kinds(build: Callable[[], nn.Module], expected: str | None) -> None:
    assert category(build()) == expected


def test_ceiling_by_hand() -> None:
    assert ceiling({"encoding": 0.5, "MLP": 3.0, "other": 0.5}) == 4.0
    assert ceiling({"MLP": 0.0, "other": 2.0}) == 1.0
    assert ceiling({"MLP": 2.0, "other": 0.0}) == float("inf")


def test_medians_are_taken_category_by_category() -> None:
    rounds = [{**dict.fromkeys(CATEGORIES, 1.0), "MLP": m, "other": o} for m, o in ((1, 9), (5, 2), (3, 4))]
    assert median_split(rounds) == {"encoding": 1, "MLP": 3, "sampling": 1, "compositing": 1, "other": 4}


def test_runs_take_turns(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def run(name: str, seconds: float) -> SimpleNamespace:
        pipeline = SimpleNamespace(device=torch.device("cpu"))
        return SimpleNamespace(name=name, model=clock.slow(MLP, seconds), pipeline=pipeline)

    def render(run: SimpleNamespace, camera: int) -> None:
        assert camera == 7
        turns.append(run.name)
        run.model()

    monkeypatch.setattr(split, "render_rgb", render)
    monkeypatch.setattr(split, "view_camera", lambda run, view: view)
    found = image_splits({"a": run("a", 1), "b": run("b", 2)}, 7, repeats=3)  # type: ignore[dict-item]
    assert turns == list("ababab")
    assert (found["a"]["MLP"], found["b"]["MLP"]) == (1, 2)


@pytest.mark.parametrize("which", ["tiny_eugen_run", "tiny_stock_run"])
def test_every_category_of_a_real_render(
    which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that goes on by one a reading, whatever begins and ends takes time, and the whole is the readings."""
    path: Path = request.getfixturevalue(which)
    run = load_run(path, device="cpu")
    camera = view_camera(run, 0)
    image = render_rgb(run, camera)
    readings = [0]

    def tick() -> int:
        readings[0] += 1
        return readings[0]

    monkeypatch.setattr("time.perf_counter", tick)
    images = []
    found = split_once(run.model, lambda: images.append(render_rgb(run, camera)))
    assert found.keys() == set(CATEGORIES)
    assert min(found.values()) > 0
    assert sum(found.values()) == readings[0] - 1
    assert torch.equal(images[0], image)
