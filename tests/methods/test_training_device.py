"""Trainings go to the device at hand: what presets choose, how runs of other machines open, what is said."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods

from eugen_nerf.core.durations import duration
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.trainer import EugenTrainerConfig
from eugen_nerf.methods.training_device import TRIAL_RAYS, available_device, long_training_line, small_preset

OURS = sorted(name for name in all_methods if name.startswith("eugen-"))


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


def test_every_preset_takes_the_available_device() -> None:
    assert OURS
    for name in OURS:
        assert isinstance(all_methods[name], EugenTrainerConfig), name
        assert all_methods[name].machine.device_type == available_device(), name


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool, device: str) -> None:
    pretend_gpu(monkeypatch, there)
    assert EugenTrainerConfig().machine.device_type == device


@pytest.mark.parametrize(
    ("stored", "there", "opened"),
    [("cuda", False, "cpu"), ("cuda", True, "cuda"), ("cpu", True, "cpu"), ("cpu", False, "cpu")],
)
def test_a_run_of_another_machine_opens(monkeypatch: pytest.MonkeyPatch, stored: str, there: bool, opened: str) -> None:
    pretend_gpu(monkeypatch, True)
    config = copy.deepcopy(all_methods["eugen-isdf-small"])
    config.machine.device_type, config.machine.seed = stored, 7
    text = yaml.dump(config)
    assert f"device_type: {stored}" in text
    pretend_gpu(monkeypatch, there)
    read = yaml.load(text, Loader=yaml.Loader)
    assert (read.machine.device_type, read.machine.seed) == (opened, 7)


def test_a_device_that_is_named_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_gpu(monkeypatch, False)
    config = copy.deepcopy(all_methods["eugen-nerf-small"])
    config.output_dir, config.machine.device_type = tmp_path, "cuda"
    with pytest.raises(ConfigError, match=r"--machine.device-type cuda: .* leave the option out .* \(cpu\)"):
        config.setup()


def test_every_full_preset_has_a_small_one() -> None:
    for name in OURS:
        small = small_preset(name)
        assert (small is None) == name.endswith("-small")
        assert small is None or small in OURS, name


class _Slow(GraphModel):
    """Takes 2 s and 0.25 s a ray, by a clock of its own."""

    def __init__(self, clock: list[float]) -> None:
        torch.nn.Module.__init__(self)
        self.weight, self.clock, self.seen = torch.nn.Parameter(torch.ones(1)), clock, []  # type: ignore[var-annotated]

    def forward(self, ray_bundle: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        self.seen.append(len(ray_bundle))
        self.clock[0] += 2.0 + 0.25 * len(ray_bundle)
        return {"rgb": self.weight * torch.rand(len(ray_bundle), 3)}


def slow_pipeline(clock: list[float]) -> SimpleNamespace:
    class Cameras:
        height, width = torch.tensor([[6]]), torch.tensor([[8]])

        def __getitem__(self, which: slice) -> Cameras:
            return self

        def generate_rays(self, indices: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
            assert len(indices) == len(coords)
            assert (coords >= 0).all()
            assert (coords < torch.tensor([6, 8])).all()
            return coords

    manager = SimpleNamespace(train_dataset=SimpleNamespace(cameras=Cameras()), get_train_rays_per_batch=lambda: 1000)
    return SimpleNamespace(model=_Slow(clock), datamanager=manager)


def test_the_time_of_a_step_is_what_each_step_and_each_ray_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    pipeline = slow_pipeline(clock)
    state = torch.get_rng_state()
    line = long_training_line(pipeline, "eugen-nerf-paper", 3600)  # type: ignore[arg-type]
    assert line == (
        "3,600 steps of eugen-nerf-paper would take at least 10 days on this CPU: eugen-nerf-small is made for a CPU"
    )
    assert pytest.approx(10.5) == 3600 * (2.0 + 0.25 * 1000) / 86400  # rounds to even
    assert pipeline.model.seen == [TRIAL_RAYS[0], *TRIAL_RAYS]
    assert pipeline.model.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    short = long_training_line(pipeline, "eugen-nerf", 10)  # type: ignore[arg-type]
    assert short == (
        "10 steps of eugen-nerf would take at least 42 minutes on this CPU: eugen-nerf-small is made for a CPU"
    )
    assert long_training_line(pipeline, "eugen-nerf-small", 3600) is None  # type: ignore[arg-type]
    pipeline.model = torch.nn.Linear(1, 1)
    of_others = long_training_line(pipeline, "eugen-isdf", 9)  # type: ignore[arg-type]
    assert of_others == "eugen-isdf is made for a GPU; eugen-isdf-small is made for a CPU"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7200, "2 hours"),
        (172800, "2 days"),
        (1e9, "32 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
