"""Radiance fields converted for what they render: rendering against closed forms and a loop, and what it is for."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracles import array
from torch import Tensor, nn

from eugen_nerf.core import convert_, rendered_call
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.modules.rendered_call import compositing_weights


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def rays(count: int = 40, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3).to(dtype), torch.randn(count, 3).to(dtype)


class Given(nn.Module):
    """A field of two functions of positions and directions."""

    def __init__(self, density: Any, colour: Any) -> None:
        super().__init__()
        self.density, self.colour = density, colour

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        return self.density(x, d), self.colour(x, d)


def test_fog_of_one_colour_is_rendered_as_the_exponential_says() -> None:
    model = Given(lambda x, _: torch.full((len(x), 1), 0.3), lambda x, _: torch.full((len(x), 2), 0.25))
    origins, directions = rays()
    found = rendered_call(0.5, 2.5, 7, background=0.75)(model, (origins, directions))
    through = torch.exp(-0.3 * 2 * directions.norm(dim=1, keepdim=True))
    torch.testing.assert_close(found, (0.25 + 0.5 * through).expand(-1, 2))


def test_samples_are_composited_front_to_back() -> None:
    """Against a loop in numpy."""
    model = Given(lambda x, d: (x[:, 0] * d[:, 1]).abs(), lambda x, d: torch.sin(x + d))
    origins, directions = rays(9)
    found = array(rendered_call(0.1, 1.3, 6)(model, (origins, directions)))
    for o, d, pixel in zip(array(origins), array(directions), found, strict=True):
        light, colour = 1.0, np.zeros(3)
        for i in range(6):
            x = o + (0.1 + 0.2 * (i + 0.5)) * d
            alpha = 1 - math.exp(-abs(x[0] * d[1]) * 0.2 * np.linalg.norm(d))
            colour += light * alpha * np.sin(x + d)
            light *= 1 - alpha
        np.testing.assert_allclose(pixel, colour + light, rtol=1e-10)


def test_weights_and_what_is_left_are_all() -> None:
    optical = torch.rand(20, 11, dtype=torch.float64) * 3
    weights = compositing_weights(optical)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=1) + torch.exp(-optical.sum(dim=1)), torch.ones(20).double())


class Field(nn.Module):
    """Large densities beside colours from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.second(torch.relu(self.first(x)))
        return 300 * torch.nn.functional.softplus(raw[:, 0]), raw[:, 1:].sigmoid()


def test_units_are_kept_for_rendered_colours() -> None:
    """Conversions by rendered colours lose less of the image than by raw outputs, over several random fields."""
    lost = {"raw": 0.0, "rendered": 0.0}
    for seed in range(4):
        torch.manual_seed(seed)
        model, render = Field(), rendered_call(0.0, 2.0, 16)
        batches = [rays(60, torch.float32) for _ in range(10)]

        def raw(model: nn.Module, batch: Any) -> Any:
            found: list[Any] = []

            def evaluate(model: nn.Module, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
                found.append(model(x, d))
                return found[0]

            rendered_call(0.0, 2.0, 16, evaluate=evaluate)(model, batch)
            return found[0]

        held_out = rays(500, torch.float32)
        before = render(model, held_out).detach()
        for name, call in (("raw", raw), ("rendered", render)):
            student = copy.deepcopy(model)
            convert_(student, batches, num_features=12, output_aware=True, call=call)
            lost[name] += float((render(student, held_out).detach() - before).square().mean())
    assert lost["rendered"] < 0.7 * lost["raw"]


def test_fields_of_other_forms_render_alike() -> None:
    """Other names of arguments, mappings, one raw output with its activations stated."""
    batch, model = rays(9), Given(lambda x, d: (x[:, 0] * d[:, 1]).abs(), lambda x, d: torch.sin(x + d))
    expected = rendered_call(0.1, 1.3, 6)(model, batch)

    class Named(nn.Module):
        def forward(self, *, viewdirs: Tensor, pts: Tensor) -> dict[str, Tensor]:
            density, colour = model(pts, viewdirs)
            return {"rgb": colour, "sigma": density[:, None]}

    class Raw(nn.Module):
        def forward(self, x: Tensor, d: Tensor) -> Tensor:
            density, colour = model(x, d)
            return torch.cat([colour, (density - 1)[:, None]], dim=1)

    named = rendered_call(0.1, 1.3, 6, evaluate=lambda field, x, d: field(pts=x, viewdirs=d))
    torch.testing.assert_close(named(Named(), batch), expected)
    raw = rendered_call(0.1, 1.3, 6, evaluate=lambda field, x, d: ((y := field(x, d))[:, 3] + 1, y[:, :3]))
    torch.testing.assert_close(raw(Raw(), batch), expected)
    call = rendered_call(0.1, 1.3, 6)
    with pytest.raises(
        ConfigError, match=r"returns a tensor \(54, 4\), in which density and colour cannot be distinguished"
    ):
        call(Raw(), batch)
    with pytest.raises(ConfigError, match="a mapping of x, in which density and colour cannot be distinguished"):
        rendered_call(0.1, 1.3, 6, evaluate=lambda *_: {"x": batch[0]})(model, batch)
    with pytest.raises(ConfigError, match="densities down to -2, values before their activation: give evaluate"):
        call(Given(lambda x, _: torch.full((len(x),), -2.0), lambda x, _: x), batch)


def test_what_makes_no_sense_is_refused() -> None:
    for near, far, samples in ((1.0, 1.0, 4), (-1.0, 1.0, 4), (0.0, 1.0, 0)):
        with pytest.raises(ConfigError, match="rays need 0 <= near < far and at least 1 sample"):
            rendered_call(near, far, samples)
    call, (origins, directions) = rendered_call(0.0, 1.0, 4), rays()
    with pytest.raises(ConfigError, match="batches of rendered_call are rays"):
        call(Field(), origins)
    wrong = Given(lambda x, _: x, lambda x, _: x)
    with pytest.raises(ConfigError, match=r"density \(160, 3\) and colour \(160, 3\) for 160 samples: give evaluate"):
        call(wrong, (origins, directions))
