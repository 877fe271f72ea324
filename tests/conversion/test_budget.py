"""Budgets: gradients of rendered colours, the search for a point of the front, and what a command does with them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest
import torch
import yaml

from eugen_nerf.cli import distill as cli
from eugen_nerf.conversion import calibration
from eugen_nerf.conversion.budget import budget_search
from eugen_nerf.conversion.budget.budget_search import BudgetResult, Measured, convert_to_budget
from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.calibration import calibrate
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.ray_samples import gradient_inputs, network_inputs
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.conversion.teachers import graph_teacher as graph_module
from eugen_nerf.conversion.teachers.graph_settings import explicit_plan
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.fitting.allocation import Combination
from eugen_nerf.evaluation.costs.resources import fit_seconds
from eugen_nerf.fields.query_timing import Ratio
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.training_rays import Photographs, ray_bundle


@pytest.fixture(scope="module")
def run(tiny_dense_run: Path) -> Run:
    return load_run(tiny_dense_run, device="cpu", test_mode="val")


@pytest.fixture
def conversion(run: Run, tmp_path: Path) -> GraphTeacher:
    return GraphTeacher(
        run, DistillConfig(ray_fraction=0.5, max_rays=400, output_dir=tmp_path, experiment_name="student")
    )


def by_macs(teacher: Any, student: Any, repeats: int = 0) -> Ratio:
    """A speed-up that no noise is in: the ratio of multiply-adds."""
    ratio = query_macs(teacher) / query_macs(student)
    return Ratio(ratio, ratio, ratio)


def test_gradients_are_those_of_rendered_colours(conversion: GraphTeacher) -> None:
    """The derivatives' sum over samples against finite differences in the bias of the output that they belong to."""
    model, rays = conversion.model, conversion.rays[:64]
    (batch,) = gradient_inputs(model, conversion.cameras, rays, "fine")()
    assert batch.cotangents is not None
    (plain,) = network_inputs(model, conversion.cameras, rays, "fine")()
    for ours, theirs in zip(batch.inputs, plain.inputs, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert batch.weights is not None
    assert batch.weights.mean().item() == pytest.approx(1, abs=1e-4)
    generator = torch.Generator().manual_seed(0)
    signs = (torch.rand(64, 3, generator=generator) < 0.5).float() * 2 - 1
    bundle = ray_bundle(conversion.cameras, rays)
    for name, gradient in zip(("density", "rgb"), batch.cotangents, strict=True):
        bias = dict(model.graph_fields()["fine"].network.layer(name).named_parameters())["bias"]

        def rendered() -> float:
            with torch.no_grad():
                return float((model.forward(bundle)["rgb"] * signs).double().sum())  # type: ignore[operator]

        with torch.no_grad():
            bias[0] += 1e-2
            above = rendered()
            bias[0] -= 2e-2
            below = rendered()
            bias[0] += 1e-2
        assert gradient[:, 0].sum().item() == pytest.approx((above - below) / 2e-2, rel=2e-2, abs=1e-3)


def test_a_share_of_the_multiply_adds(run: Run, conversion: GraphTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_search, "query_speedup", by_macs)
    result = convert_to_budget(conversion, "macs", 0.6)
    preview, macs = result.preview, query_macs(conversion.model)
    assert preview.teacher_macs == macs
    assert result.point.multiply_adds == query_macs(result.student.model) == result.measured.multiply_adds <= 0.6 * macs
    better = [p for p in preview.front if p.multiply_adds > result.point.multiply_adds]
    assert better[0].multiply_adds > 0.6 * macs
    assert preview.groups == {"fine": ("coarse", "fine")}
    assert preview.plan(result.point)["coarse"] == preview.plan(result.point)["fine"]
    assert preview.front[-1].multiply_adds == macs
    record = json.loads(json.dumps(result.record()))
    assert record["front"][-1]["predicted_drop"] == 0
    assert record["measured"]["drop"] == pytest.approx(result.measured.drop)
    photographs = Photographs(run, conversion.check_rays())
    drops = [photographs.squared_error(m) for m in (conversion.model, result.student.model)]
    assert result.measured.drop == pytest.approx(10 * torch.log10(torch.tensor(drops[1] / drops[0])).item(), abs=1e-6)


def test_hybrids_have_budgets_for_what_is_dense(
    run: Run, conversion: GraphTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_search, "query_speedup", by_macs)
    layers = {"trunk_1": 12, "head_0": 5}
    trainer, student, reports = conversion.convert({"coarse": layers, "fine": layers})
    hybrid = load_run(write_run(trainer, student, run.step, reports), device="cpu", test_mode="val")
    config = DistillConfig(ray_fraction=0.5, max_rays=400, output_dir=tmp_path, experiment_name="further")
    further = GraphTeacher(hybrid, config)
    result = convert_to_budget(further, "macs", 0.8)
    whole = query_macs(student)
    assert result.preview.teacher_macs == result.preview.front[-1].multiply_adds == whole
    assert (
        result.point.multiply_adds == query_macs(result.student.model) == result.measured.multiply_adds <= 0.8 * whole
    )
    assert set(result.preview.plan(result.point)["fine"]) <= {"trunk_0", "trunk_2", "trunk_3"}
    assert result.student.model.graph_fields()["fine"].network.layer("trunk_1").config.num_features == 12


def test_a_norm_has_no_budget(train_tiny: Callable, tmp_path: Path) -> None:
    converted = load_run(train_tiny(network__train_merged=False)[0], device="cpu", test_mode="val")
    network = converted.model.graph_fields()["fine"].network  # type: ignore[union-attr,operator]
    layer = network.layer("trunk_0")
    assert not layer.uses_norm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(layer), "uses_norm", True)
        with pytest.raises(ConfigError, match="'trunk_0' is EUGenLinear, whose cost does not follow from widths alone"):
            GraphTeacher(converted, DistillConfig(ray_fraction=0.5, output_dir=tmp_path)).preview()


def test_only_the_chosen_layers(run: Run, tmp_path: Path) -> None:
    preview = GraphTeacher(run, DistillConfig(layers=("trunk_[12]",), ray_fraction=0.5, output_dir=tmp_path)).preview()
    assert set(preview.front[0].parts["fine"].num_features) == {"trunk_1", "trunk_2"}


def test_without_colour_gradients(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pure closed form: no gradient anywhere, relative errors, and no prediction in dB."""
    monkeypatch.setattr(budget_search, "query_speedup", by_macs)
    monkeypatch.setattr(torch.autograd, "grad", None)
    config = DistillConfig(ray_fraction=0.5, max_rays=400, output_dir=tmp_path, output_aware=False)
    conversion = GraphTeacher(run, config)
    result = convert_to_budget(conversion, "macs", 0.6)
    assert result.measured.predicted_drop is None
    assert result.measured.drop is not None
    for curve in result.preview.curves["fine"].values():
        assert curve[0] == 1
        assert curve[-1] == 0
    with pytest.raises(ConfigError, match="leave --no-output-aware out"):
        convert_to_budget(conversion, "max_drop", 0.5)


def test_layers_left_out(run: Run, tmp_path: Path) -> None:
    config = DistillConfig(ray_fraction=0.5, output_dir=tmp_path, exclude=("trunk_0", "head_.*"))
    assert set(GraphTeacher(run, config).preview().front[0].parts["fine"].num_features) == {
        f"trunk_{i}" for i in (1, 2, 3)
    }
    plan = explicit_plan(GraphTeacher(run, config).model, ["coarse", "fine"], replace(config, num_features=(4,)))
    assert plan["fine"] == dict.fromkeys(("trunk_1", "trunk_2", "trunk_3"), 4)
    with pytest.raises(ConfigError, match="'trunk_9' matches no layer; there are: trunk_0"):
        GraphTeacher(run, replace(config, exclude=("trunk_9",))).preview()


def test_memory_is_said_before(run: Run, conversion: GraphTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said to be kept of the largest layer is what a conversion keeps, within the difference of batches."""
    said = conversion.memory_line()
    found = re.search(r"400 rays; in memory (\d+) MB of one layer's inputs and outputs, [\d.]+ MB of moments", said)
    assert found
    layer = conversion.model.graph_fields()["fine"].network.layer("trunk_2")
    batches = network_inputs(conversion.model, conversion.cameras, conversion.rays, "fine")()
    kept = sum(len(b.inputs[0]) * (layer.in_features + layer.out_features) * 4 for b in batches)
    assert int(found[1]) == pytest.approx(kept / 1e6, abs=1.5)
    monkeypatch.setattr(graph_module, "CACHE_BYTES", 100_000)
    assert re.search(r"in memory 0 MB .* of \d+, the rest is made again each time", conversion.memory_line())


def test_rays_of_fit_check_and_calibration(run: Run, tmp_path: Path) -> None:
    conversion = GraphTeacher(run, DistillConfig(ray_fraction=0.5, max_rays=320, output_dir=tmp_path))
    fitted, checked, trained = (
        {tuple(ray) for ray in rays.tolist()}
        for rays in (conversion.rays, conversion.check_rays(), conversion.training_rays())
    )
    assert not fitted & checked
    assert not trained & checked
    assert fitted <= trained


def test_photographs_are_the_training_images(run: Run) -> None:
    rays = torch.tensor([[1, 2, 3], [0, 5, 4], [1, 0, 0]])
    pixels = Photographs(run, rays).pixels
    for ray, pixel in zip(rays.tolist(), pixels, strict=True):
        image = run.pipeline.datamanager.train_dataset.get_image_float32(ray[0])  # type: ignore[attr-defined]
        assert torch.equal(image[ray[1], ray[2]], pixel)


@pytest.mark.parametrize("wanted", [1.2, 1.6, 2.2])
def test_the_least_error_that_is_fast_enough(
    wanted: float, run: Run, conversion: GraphTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_search, "query_speedup", by_macs)
    result = convert_to_budget(conversion, "speedup", wanted)
    ratio = result.measured.speedup.median
    assert ratio >= wanted
    dearer = [p for p in result.preview.front if p.multiply_adds > result.point.multiply_adds]
    # the search stops 5 % above what is wanted
    assert ratio < 1.05 * wanted or result.preview.teacher_macs / dearer[0].multiply_adds < wanted


def test_out_of_reach(run: Run, conversion: GraphTeacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(budget_search, "query_speedup", by_macs)
    with pytest.raises(RunError, match=r"500x cannot be reached .* is the most that was measured; nothing was written"):
        convert_to_budget(conversion, "speedup", 500)
    with pytest.raises(ConfigError, match="are out of reach: the fewest are"):
        convert_to_budget(conversion, "macs", 0.001)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("goal", "value"), [("speedup", 0.9), ("max_drop", -0.1), ("macs", 1.2), ("macs", 0.0)])
def test_values_that_make_no_sense(goal: Any, value: float, run: Run, conversion: GraphTeacher) -> None:
    with pytest.raises(ConfigError, match=f"--{goal.replace('_', '-')} must lie between"):
        convert_to_budget(conversion, goal, value)


class Factory:
    """Stands for conversions: what a point loses is a multiple of its prediction, and something besides."""

    def __init__(self, truth: float, multiple: float, floor: float = 0.0) -> None:
        self.truth, self.multiple, self.floor = truth, multiple, floor
        self.built: list[Combination] = []

    def __call__(self, point: Combination, scale: float) -> BudgetResult:
        self.built.append(point)
        drop = 10 * torch.log10(torch.tensor(1 + (self.floor + self.multiple * point.error) / self.truth)).item()
        measured = Measured(point.multiply_adds, Ratio(1, 1, 1), drop, None)
        return BudgetResult(None, None, point, measured, 20.0)  # type: ignore[arg-type]


FRONT = [Combination({}, 1000 + 10 * i, 1e-2 * 0.8**i) for i in range(40)]


@pytest.mark.parametrize("multiple", [0.2, 1.0, 5.0])
def test_a_drop_is_met_after_one_correction(multiple: float) -> None:
    factory = Factory(1e-3, multiple)
    result = budget_search.search_max_drop(factory, FRONT, 1e-3, 0.5)
    assert result.measured.drop is not None
    assert result.measured.drop <= 0.5
    assert len(factory.built) <= 2
    cheaper = [p for p in FRONT if p.multiply_adds < result.point.multiply_adds]
    allowed = 1e-3 * (10**0.05 - 1)
    assert cheaper[-1].error * multiple > 0.6 * allowed, "what is given away is little"


def test_a_second_correction_where_the_first_was_too_bold() -> None:
    """What is lost whatever is chosen makes dear points look worse than they are predicted, cheap ones better."""
    factory = Factory(1e-3, 3.0, floor=5e-5)
    result = budget_search.search_max_drop(factory, FRONT, 1e-3, 0.5)
    assert result.measured.drop is not None
    assert result.measured.drop <= 0.5
    assert len(factory.built) == 3


def test_a_drop_that_is_not_met_says_what_is() -> None:
    with pytest.raises(RunError, match=r"at most 0.5 dB was not reached in closed form: \d+\.\d\d dB .* nothing was"):
        budget_search.search_max_drop(Factory(1e-3, 1e6), FRONT, 1e-3, 0.5)


def test_calibration_never_ends_worse_and_can_help(run: Run, conversion: GraphTeacher) -> None:
    _, student, _ = conversion.convert({"coarse": {"trunk_1": 3}, "fine": {"trunk_1": 3}})
    training, check = (Photographs(run, rays) for rays in (conversion.training_rays(), conversion.check_rays()))
    report = calibrate(student, training, check, steps=40, batch=64)
    assert report.steps == 40
    assert report.squared_error[1] < report.squared_error[0]
    assert check.squared_error(student) == pytest.approx(report.squared_error[1], rel=1e-5)
    dead = replace(report)
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    before = {k: v.clone() for k, v in student.state_dict().items()}

    class Worse(Photographs):
        """Judges whatever training changes as worse."""

        def squared_error(self, model: Any) -> float:
            same = all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
            model.eval()
            return 1.0 if same else 2.0

    report = calibrate(student, training, Worse(run, conversion.check_rays()), steps=5, batch=16)
    assert report.squared_error == (1.0, 1.0)
    assert "no better than the initial 0.00 dB: the initial weights are kept" in str(report)
    assert "on rays not trained on 3.01 -> 10.00 dB" in str(replace(report, squared_error=(0.5, 0.1)))
    assert dead.steps == 40
    for key, value in student.state_dict().items():
        assert torch.equal(value, before[key])
    with pytest.raises(ConfigError, match="steps or of minutes"):
        calibrate(student, training, check, batch=16)


def test_calibration_decides_by_the_longer_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate that leads after the first round loses to one that is better in the second."""
    late, early = ("muon", 3e-3), ("adam", 1e-4)
    errors = {(early, 6): 0.4, (late, 6): 0.5, (early, 18): 0.3, (late, 18): 0.2, (late, 200): 0.1}
    student, made = torch.nn.Linear(1, 1), []

    def descend(student: Any, training: Any, candidate: Any, batch: int, seed: int, steps: int, *rest: Any) -> int:
        made.append((candidate, steps))
        rest[-1](1.0)
        return steps

    class Check:
        """Squared errors as written above; 0.9 for what is not in the table."""

        def squared_error(self, model: Any) -> float:
            return errors.get(made[-1], 0.9) if made else 0.8

    monkeypatch.setattr(calibration, "_descend", descend)
    report = calibrate(student, cast(Any, None), cast(Any, Check()), steps=200, batch=16)
    assert made == [*((c, 6) for c in calibration.CANDIDATES), (early, 18), (late, 18), (late, 200)]
    assert (report.optimizer, report.learning_rate, report.squared_error) == ("muon", 3e-3, (0.8, 0.1))


def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> str:
    monkeypatch.setattr(sys, "argv", ["eugen-distill", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    return capfd.readouterr().err


def test_budgets_that_contradict_each_other(
    tiny_dense_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = ["--load-config", tiny_dense_run]
    said = refused(monkeypatch, capfd, *config, "--speedup", 2, "--macs", 0.5)
    assert "--speedup and --macs are two budgets: give one" in said
    said = refused(monkeypatch, capfd, *config, "--max-drop", 0.3, "--num-features", 8)
    assert "--max-drop chooses the numbers of features" in said
    said = refused(monkeypatch, capfd, *config, "--speedup", 2, "--recipe", "random")
    assert "--speedup previews rows, pruned, compensated alone: leave --recipe random out" in said
    assert "give --bundle as well" in refused(monkeypatch, capfd, *config, "--onnx")
    assert "none converts nothing" in refused(monkeypatch, capfd, *config, "--layers", "none")
    (tmp_path / "taken").mkdir()
    assert "exists" in refused(monkeypatch, capfd, *config, "--bundle", tmp_path / "taken")


def test_the_command_writes_a_run_with_its_front(
    tiny_dense_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["eugen-distill", "--load-config", tiny_dense_run, "--macs", 0.6, "--ray-fraction", 0.5, "--device", "cpu"]
    words += ["--output-dir", tmp_path / "runs", "--timestamp", "t", "--finetune-steps", 3, "--bundle", tmp_path / "b"]
    monkeypatch.setattr(sys, "argv", [str(w) for w in words])
    monkeypatch.setattr(cli, "MUCH", -60.0)
    cli.main()
    said = " ".join(capfd.readouterr().out.split())
    assert re.search(r"-?\d\.\d\d dB in closed form is much\..*train anew, as below", said)
    assert re.search(r"train anew: ns-train eugen-nerf-small --load-config \S*/t/narrower\.yml", said)
    assert "field queries" in said
    assert "calibrated: 3 steps" in said
    (config,) = (tmp_path / "runs").rglob("config.yml")
    record = json.loads((config.parent / "distill.json").read_text())
    assert record["budget"]["goal"] == "macs"
    assert record["calibration"]["steps"] == 3
    drawn = ElementTree.parse(config.parent / "front.svg").getroot()  # a viewer of its own refuses unknown prefixes
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    student = load_run(config, device="cpu", test_mode="inference")
    assert query_macs(student.model) == record["budget"]["measured"]["multiply_adds"]  # type: ignore[arg-type]
    assert yaml.load(config.read_text(), Loader=yaml.Loader).pipeline.model.variant == "eugen"
    from eugen_nerf.core import load_bundle

    field = load_bundle(tmp_path / "b")
    density, colour = field(torch.rand(7, 3), torch.nn.functional.normalize(torch.rand(7, 3), dim=-1))
    assert density.shape == (7, 1)
    assert colour.shape == (7, 3)
    assert SimpleNamespace(**record).seconds > 0


def test_a_teacher_trained_on(
    tiny_dense_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is replaced, and calibration changes the weights: what a student's extra steps are compared with."""
    words = ["eugen-distill", "--load-config", tiny_dense_run, "--layers", "none", "--ray-fraction", 0.5]
    words += ["--device", "cpu", "--output-dir", tmp_path, "--timestamp", "t", "--finetune-steps", 20]
    monkeypatch.setattr(sys, "argv", [str(w) for w in words])
    cli.main()
    said = capfd.readouterr().out
    assert "anew" not in said, "nothing is narrower"
    (config,) = tmp_path.rglob("config.yml")
    teacher, on = (load_run(c, device="cpu", test_mode="inference").model for c in (tiny_dense_run, config))
    assert query_macs(on) == query_macs(teacher)  # type: ignore[arg-type]
    assert [*on.state_dict()] == [*teacher.state_dict()]
    report = json.loads((config.parent / "distill.json").read_text())["calibration"]
    assert report["steps"] == 20
    before, after = report["squared_error"]
    changed = any(not torch.equal(a, b) for a, b in zip(on.parameters(), teacher.parameters(), strict=True))
    assert changed == (after < before) == ("the initial weights are kept" not in said)
    assert fit_seconds(config) == pytest.approx(report["seconds"])
