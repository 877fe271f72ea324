"""Budgets for any PyTorch model: units are allocated where they count, and a query costs what was allowed at most."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from plain_models import MLP, batches
from torch import Tensor, nn

from eugen_nerf.core import ConversionConfig, convert_
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.allocation import candidate_widths
from eugen_nerf.core.modules.module_conversion import ModuleConversion


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def conversion(model: nn.Module, x: list[Tensor], **options: object) -> ModuleConversion:
    return ModuleConversion(model.eval(), lambda: x, lambda m, b: m(b), ConversionConfig(), **options)  # type: ignore[arg-type]


def size(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("skip", ["none", "before", "after"])
@pytest.mark.parametrize("aware", [True, False])
def test_what_is_chosen_is_the_best_of_all_choices(skip: str, aware: bool) -> None:
    """Against every pair of widths, priced by models that really have them."""
    model, x = MLP(torch.relu, skip, width=64), batches()
    work = conversion(model, x)
    preview = work.preview(work.metrics() if aware else {})
    priced = {}
    for pair in itertools.product(candidate_widths(64), repeat=2):
        counts = {n: m for n, m in zip(("first", "second"), pair, strict=True) if m < 64}
        narrow = copy.deepcopy(model)
        for name, (inputs, outputs, _) in work.sizes(counts).items():
            setattr(narrow, name, nn.Linear(inputs, outputs))
        assert narrow.eval()(x[0]).shape == model(x[0]).shape
        error = sum(float(preview.curves[n][m]) for n, m in zip(("first", "second"), pair, strict=True))
        priced[pair] = (size(narrow), error)
    for share in (0.9, 0.6, 0.4, 0.2):
        narrow = copy.deepcopy(model)
        report = convert_(narrow, x, macs=share, output_aware=aware)
        chosen = tuple(m.out_features for m in (narrow.first, narrow.second))
        affordable = {pair: error for pair, (cost, error) in priced.items() if cost <= share * size(model)}
        assert priced[chosen][1] == pytest.approx(min(affordable.values()), rel=1e-9)
        assert report.multiply_adds == (size(model), size(narrow)) == (size(model), priced[chosen][0])
        assert size(narrow) in {point.multiply_adds for point in report.front}
    assert report.front[-1].multiply_adds == size(model)
    assert report.front[-1].error == 0


@pytest.mark.parametrize("skip", ["none", "before"])
def test_rows_of_the_report_add_up(skip: str) -> None:
    """Those of the table, against models that really have the sizes."""
    model, x = nn.Sequential(MLP(torch.relu, skip), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 7)), batches()
    before = {n: m.weight.numel() for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    report = convert_(model, x, num_features=16, layers=(r"0\.first",))
    after = {n: m.weight.numel() for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert report.shares == {name: (before[name], after[name]) for name in before}
    lines = [line.split() for line in str(report).splitlines()[1:] if "->" in line and "parameters" not in line]
    rows = {words[0]: (int(words[-3].replace(",", "")), int(words[-1].replace(",", ""))) for words in lines}
    whole = rows.pop("all")
    assert list(rows) == ["0.first", "0.second", "3"]
    assert whole == tuple(map(sum, zip(*rows.values(), strict=True))) == report.multiply_adds
    assert report.parameters[1] == sum(p.numel() for p in model.parameters())


def test_units_go_where_they_count() -> None:
    """A layer whose units are sixteen, four times over, is cut to sixteen; the other keeps what it has."""
    model, x = MLP(torch.relu, width=64).double(), batches(dtype=torch.float64)
    with torch.no_grad():
        for part in range(1, 4):
            model.second.weight[16 * part : 16 * part + 16] = model.second.weight[:16]
            model.second.bias[16 * part : 16 * part + 16] = model.second.bias[:16]
    expected = model(x[0])
    convert_(model, x, macs=0.4, output_aware=True)
    assert (model.first.out_features, model.second.out_features) == (64, 16)
    torch.testing.assert_close(model(x[0]), expected, rtol=1e-4, atol=1e-5)


def test_errors_are_those_of_the_outputs() -> None:
    """Noise on hidden units changes the outputs by what the metric says, summed over all rows."""
    model, x = MLP(torch.tanh, "after", width=24), batches(count=40)
    work = conversion(model, x)
    metrics, noise = work.metrics(), 1e-3
    for layer in work.plan:
        (consumer,) = layer.consumers
        predicted = noise**2 * float(metrics[layer.name].square().sum()) * sum(map(len, x))

        def shake(
            _: nn.Module, inputs: tuple[Tensor], layer: object = layer, consumer: str = consumer
        ) -> tuple[Tensor]:
            start = layer.consumers[consumer][0]  # type: ignore[attr-defined]
            shaken = inputs[0].clone()
            shaken[:, start : start + 24] += noise * torch.randn(len(shaken), 24)
            return (shaken,)

        with torch.no_grad():
            still = torch.cat([model(part) for part in x])
            handle = model.get_submodule(consumer).register_forward_pre_hook(shake)
            moved = torch.cat([model(part) for part in x])
            handle.remove()
        assert float((moved - still).square().sum()) == pytest.approx(predicted, rel=0.15)


def test_budgets_that_make_no_sense() -> None:
    model, x = MLP(torch.relu), batches()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match="macs chooses the numbers of features: give one of the two"):
        convert_(model, x, macs=0.5, num_features=3)
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5"):
        convert_(model, x, macs=1.5)
    with pytest.raises(ConfigError, match="are out of reach: the fewest are"):
        convert_(model, x, macs=0.01)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
