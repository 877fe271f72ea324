"""Experiments on layers alone: what they report, against independent sums, and how their suites resume."""

import dataclasses
import json
import math
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from eugen_nerf.cli.study import is_study, read_study, run_study
from eugen_nerf.cli.suite import keep_older
from eugen_nerf.core import EUGenLinear, atomic_paths
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.reports.study_report import study_rows, study_tables
from eugen_nerf.evaluation.reports.svg_plots import errors_svg, undominated
from eugen_nerf.studies.layer_fit import LayerFit
from eugen_nerf.studies.register import STUDIES, make_study
from eugen_nerf.studies.siren import SirenFit, photograph
from eugen_nerf.studies.study_run import train
from eugen_nerf.studies.variance import Variance

ROOT = Path(__file__).resolve().parents[2]
FIT = LayerFit(
    width=16,
    points=200,
    steps=60,
    batch=200,
    features=(8,),
    functions=("relu",),
    held_out=100,
    rates=(3e-3, 1e-2, 3e-2),
)
SIREN = SirenFit(size=16, width=32, depth=2, steps=40, batch=256, features=(4,), rates=(1e-3, 3e-3))


def test_every_variant_of_a_layer_has_the_same_cost_and_its_own_error() -> None:
    study = dataclasses.replace(
        FIT,
        variants=(
            *("eugen", "eugen-k2", "eugen-data", "eugen-fixed", "eugen-harmonic", "eugen-harmonic-data"),
            *("snnk", "lowrank", "monarch"),
        ),
    )
    found = {case["variant"]: study.run(case, 0) for case in study.cases()}
    assert list(found) == list(study.variants)
    assert len({result["mse"] for result in found.values()}) == 9
    assert {result["multiply_adds"] for result in found.values()} == {2 * 8 * 16}
    assert all(result["rate"] in study.rates for result in found.values())
    assert found["eugen"] == study.run(study.cases()[0], 0), "the same seed, the same result"
    assert found["eugen"]["mse"] != study.run(study.cases()[0], 1)["mse"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_to_learn_are_not_the_points_that_they_are_learned_on(seed: int) -> None:
    """They were once: one stream of random numbers gave the rows of W and the first inputs, and a student its start."""
    study = dataclasses.replace(FIT, width=64)
    linear, xs, ys = study.data("relu", seed)
    drawn = [linear.weight.flatten(), *(x.flatten() for x in xs)]
    drawn += [
        p.flatten()
        for p in study._layer({"kind": "lowrank", "group": "relu", "m": 32}, seed, xs[0], ys[0]).parameters()
    ]
    drawn += [p.flatten() for p in study._layer({"kind": "eugen", "m": 32}, seed, xs[0], ys[0]).parameters()]
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            count = min(len(a), len(b))
            if count > 500:
                found = np.corrcoef(a[:count].detach().numpy(), b[:count].detach().numpy())[0, 1]
                assert abs(found) < 5 / math.sqrt(count)


def test_more_features_and_more_steps_fit_better() -> None:
    def share(m: int, steps: int, kind: str) -> float:
        study = dataclasses.replace(FIT, features=(m,), steps=steps, variants=(kind,))
        return study.run(study.cases()[0], 0)["share"]

    assert share(16, 400, "lowrank") < 0.3 < share(4, 400, "lowrank")
    assert share(16, 400, "lowrank") < 0.5 * share(16, 40, "lowrank")
    assert share(8, 400, "eugen-k2") < 0.8 < share(8, 40, "eugen-k2")


def test_the_rate_is_chosen_on_points_that_are_not_reported() -> None:
    """The best on validation points is kept, whatever training says."""
    errors = {1e-3: 5.0, 1e-2: 2.0, 1e-1: 3.0}
    built: list[nn.Linear] = []

    def build() -> nn.Linear:
        torch.manual_seed(0)
        built.append(nn.Linear(1, 1))
        return built[-1]

    measured = iter(errors.values())
    x = torch.ones(4, 1)
    _, rate = train(build, lambda step: (x, x), lambda model: next(measured), steps=3, rates=tuple(errors))
    assert rate == 1e-2
    assert len({float(m.weight.detach()) for m in built}) == 3, "each rate starts from the same weights, and moves them"
    with pytest.raises(ConfigError, match=r"diverged with every learning rate of 0\.1"):
        train(build, lambda step: (x, x), lambda model: math.nan, steps=1, rates=(0.1,))


def test_variance_is_that_of_the_theorem() -> None:
    """Thm 3.2 for degree 1: a_1^2 (|w|^2 |x|^2 + (w.x)^2 + (tau - 3) sum w^2 x^2) / m, with tau of the law."""
    study = Variance(width=24, outputs=20, points=20, features=(16,), functions=("gelu",), degrees=(1,), draws=400)
    found = {case["kind"]: study.run(case, 0) for case in study.cases()}
    generator = torch.Generator().manual_seed(0)
    w, x = (
        torch.nn.functional.normalize(torch.randn(20, d, generator=generator, dtype=torch.float64), dim=1).numpy()
        for d in (25, 24)
    )
    x = np.column_stack([x, np.ones(20)])  # the bias is one more column of W
    z = x @ w.T
    design = np.linspace(-6, 6, 4001)
    scale = math.sqrt(np.square(z).mean())
    values = 0.5 * scale * design * (1 + np.vectorize(math.erf)(scale * design / math.sqrt(2)))
    density = np.exp(-(design**2) / 4)
    powers = np.stack([density, density * design], axis=1)
    slope = np.linalg.lstsq(powers, values * density, rcond=None)[0][1] / scale
    for kind, tau in (("gaussian", 3.0), ("rademacher", 1.0)):
        expected = slope**2 * (2 + np.square(z) + (tau - 3) * np.square(x) @ np.square(w).T).mean() / 16
        assert found[kind]["mse"] == pytest.approx(expected, rel=0.06)
        assert found[kind]["mse_times_m"] == 16 * found[kind]["mse"]
    assert found["orthogonal"]["mse"] < 0.6 * found["gaussian"]["mse"]


def test_siren_learns_an_image_and_counts_its_network() -> None:
    cases = {case["variant"]: case for case in SIREN.cases()}
    assert list(cases) == ["dense", "eugen, m = 4", "lowrank, m = 4", "narrow, m = 4"]
    found = {name: SIREN.run(case, 0) for name, case in cases.items()}
    x, y = photograph(16)
    assert x.shape == (256, 2)
    assert (float(x.min()), float(x.max())) == (-0.9375, 0.9375)
    mean = -10 * math.log10(float(y.var()) / 4)
    for name, result in found.items():
        assert result["psnr"] > mean, name
        assert result["gradient_error"] > 0
    assert found["dense"]["gradient_error"] < found["eugen, m = 4"]["gradient_error"], "four features are few"
    assert found["dense"]["multiply_adds"] == 2 * 32 + 32 * 32 + 32
    assert found["eugen, m = 4"]["multiply_adds"] == 2 * 32 + 32 * 4 + 4 * 1, "what A gives is taken over by the last"
    assert found["lowrank, m = 4"]["multiply_adds"] == 2 * 32 + 2 * 32 * 4 + 32
    assert found["narrow, m = 4"]["parameters"] < found["dense"]["parameters"]


def test_harmonic_layers_in_a_siren_cost_what_its_sines_do() -> None:
    """Half as many features of each of two degrees: the same multiply-adds and, but for biases, parameters."""
    study = dataclasses.replace(SIREN, variants=("eugen", "eugen-data", "harmonic", "harmonic-data"))
    found = {case["kind"]: study.run(case, 0) for case in study.cases()}
    assert len({result["psnr"] for result in found.values()}) == 4
    assert {result["multiply_adds"] for result in found.values()} == {2 * 32 + 32 * 4 + 4 * 1}
    assert len({result["parameters"] for result in found.values()}) == 1


def test_a_siren_started_from_data_begins_at_features_centred_on_the_image() -> None:
    """Every hidden layer, the second on what the first gives once started: its mean output is what its bias says."""
    study = dataclasses.replace(SIREN, depth=3, features=(8,))
    x, _ = photograph(16)
    for kind in ("eugen-data", "harmonic-data"):
        hidden = x
        for layer in study._network({"kind": kind, "m": 8}, 0, x):
            inputs, hidden = hidden, layer(hidden)
            if kind == "harmonic-data" and isinstance(layer, EUGenLinear):
                assert torch.allclose(layer.features(inputs)[:, :4].mean(dim=0), torch.zeros(4), atol=1e-4)
            if len(inputs[0]) == len(hidden[0]):
                assert torch.allclose(hidden.mean(dim=0), torch.zeros(len(hidden[0])), atol=1e-4), kind


def test_the_gradient_is_that_of_the_network() -> None:
    """A linear network's gradient is its weights; against an image that is a plane, the error is theirs."""
    study = dataclasses.replace(SIREN, size=10)
    x, _ = photograph(10)
    plane = nn.Linear(2, 1)
    with torch.no_grad():
        plane.weight.copy_(torch.tensor([[0.5, -0.2]]))
    y = x @ torch.tensor([[0.5], [0.1]])
    assert study._gradient_error(plane, x, y) == pytest.approx(0.3 / math.hypot(0.5, 0.1), rel=1e-4)


def write_suite(tmp_path: Path, **settings: Any) -> Path:
    path = tmp_path / "s.yml"
    content = {**dataclasses.asdict(FIT), "steps": 5, "rates": [1e-3], "variants": ["eugen", "lowrank"], **settings}
    content = {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}
    suite = {"name": "t", "output": str(tmp_path / "out"), "study": "layer_fit", "settings": content, "seeds": [0, 1]}
    path.write_text(yaml.safe_dump({**suite, "published": [{"text": "known <", "source": "a paper"}]}))
    return path


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return json.loads((tmp_path / "out/report/report.json").read_text())["rows"]


def test_a_suite_resumes_and_does_not_depend_on_its_workers(tmp_path: Path) -> None:
    path = write_suite(tmp_path)
    console = Console(file=StringIO(), width=120)
    page = run_study(path, console, workers=2)
    assert page is not None
    assert "known &lt; (a paper)" in page.read_text()
    assert "<svg" in page.read_text()
    first = rows(tmp_path)
    assert [row["variant"] for row in first] == ["eugen", "lowrank"]
    results = sorted((tmp_path / "out/results").iterdir())
    assert len(results) == 4
    stamps = {path: path.stat().st_mtime_ns for path in results}
    results[0].unlink()
    run_study(path, console, workers=1)
    assert rows(tmp_path) == first, "killed half-way and resumed, with another number of workers"
    assert [path.stat().st_mtime_ns != stamps[path] for path in results] == [True, False, False, False]
    assert (tmp_path / "out/report-1/report.json").exists(), "the older report is kept"
    run_study(write_suite(tmp_path, steps=6), console, workers=1)
    assert rows(tmp_path) != first, "another setting, another result"
    assert len(list((tmp_path / "out/results").iterdir())) == 8


def test_what_a_killed_process_left_of_a_report_is_not_kept_as_one(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    report = tmp_path / "report"
    report.mkdir()
    host = atomic_paths._host()
    (report / f".report.{host}-{gone.pid}.partial.json").write_text("{")
    keep_older(report, Console(file=StringIO()))
    assert [path.name for path in tmp_path.rglob("*")] == ["report"]
    (report / "report.json").write_text("{}")
    (report / f".report.{host}-{gone.pid}.partial.html").write_text("<")
    keep_older(report, Console(file=StringIO()))
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "report-1",
        "report-1/report.json",
    }


def test_tables_have_means_and_spreads_over_seeds() -> None:
    study = LayerFit(functions=("relu", "gelu"), variants=("eugen",))
    result = {"mse": 1.0, "share": 0.5, "multiply_adds": 10, "parameters": 20, "rate": 0.1}
    found = study_rows(study.cases(), [{0: result, 1: {**result, "mse": 3.0}}, {0: result}])
    tables = study_tables(study, found)
    assert [table.title for table in tables] == ["relu", "gelu"]
    assert tables[0].rows == [["eugen", "2.000e+00 ± 1.414e+00", "50.00%", "10", "20", "0.1"]]
    assert tables[1].rows[0][1] == "1.000e+00"


def test_the_front_holds_what_nothing_undercuts() -> None:
    points = [(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (2.0, 2.0), (4.0, 1.0)]
    assert undominated(points) == [1, 3, 0]
    assert undominated([]) == []
    assert errors_svg({}, "x", "y") == ""
    assert errors_svg({"a": [(0.0, 1.0)]}, "x", "y") == ""
    assert "undominated" in errors_svg({"a": points}, "x", "y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"study": "none"}, "study 'none' is unknown; choose one of layer_fit, variance, siren"),
        ({"study": "siren", "settings": {"colour": 1}}, "there is no key 'colour'; the keys are size"),
        ({"study": "siren", "more": 1}, "is no suite"),
        ({"study": "siren", "seeds": []}, "give at least one, each once"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = tmp_path / "s.yml"
    path.write_text(yaml.safe_dump({"name": "n", "output": "o", **content}))
    assert is_study(path)
    with pytest.raises(ConfigError, match=message):
        read_study(path)
    with pytest.raises(ConfigError, match="'k' is unknown"):
        LayerFit(width=8)._layer({"kind": "k", "m": 4, "group": "relu"}, 0, torch.zeros(2, 8), torch.zeros(2, 8))
    with pytest.raises(ConfigError, match="'k' is unknown"):
        SIREN._network({"kind": "k", "m": 4}, 0, torch.zeros(2, 2))


@pytest.mark.parametrize("path", [p for p in sorted((ROOT / "configs").glob("*.yml")) if is_study(p)], ids=str)
def test_shipped_studies_can_be_read(path: Path) -> None:
    suite, study = read_study(path)
    assert type(study) is STUDIES[suite.study] is type(make_study(suite.study, dict(suite.settings)))
    assert len({study.key(case, seed) for case in study.cases() for seed in suite.seeds}) == len(study.cases()) * len(
        suite.seeds
    )
