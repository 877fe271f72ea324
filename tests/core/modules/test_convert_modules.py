"""Conversion of plain PyTorch models in place: what comes out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from plain_models import FUNCTIONS, MLP, batches
from torch import Tensor, nn

from eugen_nerf.core import Weighted
from eugen_nerf.core.eugen import EUGenConfig
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.modules.convert_modules import convert_
from eugen_nerf.core.modules.discovery import find_hidden
from eugen_nerf.core.modules.linears import Linears
from eugen_nerf.core.modules.sensitivity import output_metrics


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("skip", ["none", "before", "after"])
def test_full_width_is_exact(name: str, skip: str) -> None:
    model = MLP(FUNCTIONS[name], skip)
    x = batches()
    expected = model(x[0])
    report = convert_(model, x, num_features=1.0)
    assert [layer.name for layer in report.layers] == ["first", "second"]
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_repeated_units_are_merged_exactly(name: str) -> None:
    """Half of the units are copies of the other half: half of them are enough."""
    model = MLP(FUNCTIONS[name], "before").double()
    with torch.no_grad():
        for layer in (model.first, model.second):
            layer.weight[12:], layer.bias[12:] = layer.weight[:12].clone(), layer.bias[:12].clone()
    x = batches(dtype=torch.float64)
    expected = model(x[0])
    report = convert_(model, lambda: iter(x), num_features=12)
    assert (model.first.weight.shape, model.second.weight.shape) == ((12, 5), (12, 17))
    assert model.last.weight.shape == (3, 12)
    assert type(model.first) is nn.Linear
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-4, atol=1e-5)
    assert report.parameters == (24 * 6 + 24 * 30 + 3 * 25, 12 * 6 + 12 * 18 + 3 * 13)
    assert report.multiply_adds == (24 * 5 + 24 * 29 + 3 * 24, 12 * 5 + 12 * 17 + 3 * 12)
    assert report.linears == {"first": (5, 12, True), "second": (17, 12, True), "last": (12, 3, True)}


def test_errors_fall_with_more_features_and_beat_random_projections() -> None:
    model, x = MLP(F.relu, width=64), batches()
    expected = model(x[0])

    def error(config: ConversionConfig, m: int) -> float:
        student = copy.deepcopy(model)
        report = convert_(student, x, config, num_features=m)
        assert report.layers[0].num_features == m
        return float((student(x[0]) - expected).square().mean())

    rows = [error(ConversionConfig(), m) for m in (8, 16, 32, 48)]
    assert rows == sorted(rows, reverse=True)
    assert rows[2] < error(ConversionConfig("pruned"), 32)
    for projection in ("gaussian", "orthogonal"):
        eugen = EUGenConfig(norm=False, projection=projection)
        random = error(ConversionConfig(recipe="random", eugen=eugen), 32)
        assert rows[2] < random < float(expected.var())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["relu", "gelu", "sine 30"])
def test_dtypes_are_kept(name: str, dtype: torch.dtype) -> None:
    model = MLP(FUNCTIONS[name], "before").to(dtype)
    x = batches(dtype=dtype)
    expected = model(x[0])
    convert_(model, x, num_features=1.0)
    found = model(x[0])
    assert found.dtype == model.first.weight.dtype == model.last.bias.dtype == dtype
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


class TwoHeads(nn.Module):
    """Two heads read one trunk; one activation module is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 24), nn.ReLU())
        self.one, self.two = nn.Linear(24, 2, bias=False), nn.Linear(28, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.trunk(x)
        return {"one": self.one(h), "two": self.two(torch.cat([x[:, :2], h, x[:, 2:4]], dim=1))}


def test_every_reader_of_a_trunk_is_changed() -> None:
    model, x = TwoHeads(), batches()
    with torch.no_grad():
        model.trunk[0].weight[12:], model.trunk[0].bias[12:] = model.trunk[0].weight[:12], model.trunk[0].bias[:12]
    expected = model(x[0])
    report = convert_(model, x, layers=("trunk.*",), num_features={"trunk.0": 12})
    assert report.linears == {"trunk.0": (5, 12, True), "one": (12, 2, True), "two": (16, 3, True)}
    for key, value in model(x[0]).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-4)


def test_two_hidden_layers_in_one_reader_and_one_of_them_twice() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(5, 6), nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            a, b = F.relu(self.a(x)), torch.tanh(self.b(x))
            return self.c(torch.cat([a, x[:, :1], b, x[:, :1], a], dim=1))

    model, x = Joined().double(), batches(dtype=torch.float64)
    with torch.no_grad():
        for layer in (model.a, model.b):
            half = layer.out_features // 2
            layer.weight[half:], layer.bias[half:] = layer.weight[:half], layer.bias[:half]
    expected = model(x[0])
    convert_(model, x, num_features=0.5)
    assert model.c.in_features == 4 + 1 + 3 + 1 + 4
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-5, atol=1e-6)


def test_output_metric_is_the_mean_squared_jacobian() -> None:
    """Against autograd's Jacobians, row by row; of one output, as the random signs of several only average out."""
    model = MLP(torch.tanh, "before", width=6).double()
    model.last = nn.Linear(6, 1).double()
    x = batches(50, 5, dtype=torch.float64)
    with torch.no_grad():
        found, _ = find_hidden(Linears(model), lambda: model(x[0]))
    metrics = output_metrics(Linears(model), list(found.values()), [lambda part=part: [model(part)] for part in x])

    def rest(h: Tensor, row: Tensor) -> Tensor:
        return model.last(torch.tanh(model.second(torch.cat([row, h]))))

    expected = torch.zeros(6, 6, dtype=torch.float64)
    for row in torch.cat(x):
        h = torch.tanh(model.first(row)).detach()
        jacobian = torch.autograd.functional.jacobian(partial(rest, row=row), h)
        expected += jacobian.T @ jacobian / 300
    torch.testing.assert_close(metrics["first"].T @ metrics["first"], expected, rtol=1e-9, atol=1e-12)
    last = model.last.weight.detach()
    torch.testing.assert_close(metrics["second"].T @ metrics["second"], last.T @ last, rtol=1e-9, atol=1e-12)


def test_output_aware_choice_keeps_what_counts() -> None:
    """Half of the units are read with large weights, and what they feed is thrown away further on."""
    model, x = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)), batches()
    with torch.no_grad():
        model[2].weight[:4, 8:], model[2].weight[4:, :8] = 0, 0
        model[2].weight[4:] *= 10
        model[4].weight[:, 4:] = 0
    expected = model(x[0])
    errors = []
    for aware in (False, True):
        student = copy.deepcopy(model)
        convert_(student, x, layers=("0",), num_features=8, output_aware=aware)
        errors.append(float((student(x[0]) - expected).square().mean()))
    assert errors[1] < 1e-8 < errors[0]


def test_weights_count_and_few_batches_do() -> None:
    x = torch.cat([torch.randn(400, 5), torch.randn(400, 5) + 4])[torch.randperm(800)]
    near = (x.mean(dim=1) < 2).float()
    errors = {}
    for weights in (near, 1 - near):
        model = MLP(F.relu, width=64)
        expected = model(x)
        convert_(model, [Weighted(x, weights)], layers=("first",), num_features=8)
        square = (model(x) - expected).square().sum(dim=1)
        errors[float(weights[0])] = float((square * near).sum() / near.sum())
    assert errors[float(near[0])] < errors[float(1 - near[0])]


def test_calls_of_other_kinds() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = MLP(torch.sin)

        def ask(self, x: Tensor, shift: float) -> list[Tensor]:
            return [self.net(x + shift)]

    def call(model: nn.Module, batch: dict) -> list[Tensor]:
        assert isinstance(model, Odd)
        return model.ask(**batch)

    model, x = Odd(), [{"x": part, "shift": 0.5} for part in batches()]
    report = convert_(model, x, num_features=20, call=call, exclude=(".*second",))
    assert [layer.name for layer in report.layers] == ["net.first"]
    assert str(report).splitlines()[1].split()[:2] == ["net.first", "20"]


def test_the_global_random_state_stays_where_it_is() -> None:
    model, x = MLP(F.relu), batches()
    before = torch.get_rng_state()
    convert_(model, x, ConversionConfig("random", EUGenConfig(norm=False)), num_features=9)
    assert torch.equal(torch.get_rng_state(), before)
