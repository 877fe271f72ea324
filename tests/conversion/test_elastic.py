"""One run for every width: neurons put in order, calibration at all shares, and a share written as a run of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_distill_run import load, refused, render, run_cli
from torch import Tensor

from eugen_nerf.conversion.calibration import calibrate
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import Photographs, draw_pixels

SHARES = (0.5, 0.25)
ORDERED = DistillConfig(shares=SHARES, ray_fraction=0.5)


@pytest.fixture(scope="module")
def teacher(tiny_dense_run: Path) -> Run:
    return load(tiny_dense_run)


@pytest.fixture
def student(teacher: Run) -> GraphModel:
    model = convert_run(teacher, ORDERED).model
    assert isinstance(model, GraphModel)
    return model


def matrices(model: GraphModel, share: float) -> Iterator[tuple[str, list[Tensor]]]:
    """The collapsed matrices of each field at a share."""
    with model.evaluated_at(share):
        for name, field in model.graph_fields().items():
            yield name, [stage.weight for stage, _ in field.network.collapsed().steps]


def test_ordered_neurons_render_as_the_teacher(teacher: Run, student: GraphModel) -> None:
    expected, found = render(teacher.model, teacher), render(student, teacher)
    torch.testing.assert_close(found["rgb"], expected["rgb"], rtol=1e-4, atol=1e-4)
    assert expected["rgb"].std() > 1e-3
    assert student.trained_shares() == (1.0, 0.5, 0.25)
    with student.evaluated_at(0.25):
        assert (render(student, teacher)["rgb"] - expected["rgb"]).abs().max() > 1e-3
    torch.testing.assert_close(render(student, teacher)["rgb"], found["rgb"], rtol=0, atol=0)


def test_a_share_has_the_first_rows_and_columns(student: GraphModel) -> None:
    whole, half = dict(matrices(student, 1.0)), dict(matrices(student, 0.5))
    assert whole
    for name, full in whole.items():
        narrower = False
        for all_of, some in zip(full, half[name], strict=True):
            rows, columns = some.shape
            if all_of.shape[1] == columns:  # reads inputs alone, or one part: with two, columns of each are kept
                assert torch.equal(all_of[:rows], some)
            narrower |= rows < all_of.shape[0]
        assert narrower


def test_neurons_come_in_the_order_in_which_fewer_would_be_chosen(teacher: Run) -> None:
    counts = {0.5: 16, 0.25: 8}
    ordered = convert_run(teacher, DistillConfig(layers=("trunk_0",), shares=SHARES, ray_fraction=0.5)).model
    for share, count in counts.items():
        own = DistillConfig(layers=("trunk_0",), num_features=(count,), ray_fraction=0.5)
        few = convert_run(teacher, own).model
        with ordered.evaluated_at(share):
            first = ordered.field_fine.network.collapsed().steps[0][0].weight
        expected = few.field_fine.network.collapsed().steps[0][0].weight
        assert {tuple(row.tolist()) for row in first} == {tuple(row.tolist()) for row in expected}


def test_calibration_trains_every_share(teacher: Run, student: GraphModel) -> None:
    rays = draw_pixels(GraphTeacher(teacher, ORDERED).cameras, 512, 0)
    training, check = Photographs(teacher, rays[:384]), Photographs(teacher, rays[384:])
    before = {}
    for share in student.trained_shares():
        with student.evaluated_at(share):
            before[share] = check.squared_error(student)
    torch.manual_seed(0)
    report = calibrate(student, training, check, steps=60, batch=128)
    after = dict(report.share_errors)
    assert list(after) == [1.0, 0.5, 0.25]
    assert sum(torch.tensor([after[s], before[s]]).log().diff().item() for s in after) > 0, "better on average"
    assert report.squared_error[1] == pytest.approx(
        torch.tensor([*after.values()]).double().log().mean().exp().item(), rel=1e-6
    )
    assert "dB with 0.25" in str(report)


def test_the_commands(
    tiny_dense_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--load-config", tiny_dense_run, "--ray-fraction", 0.5, "--output-dir", tmp_path, "--timestamp", "t"]
    run_cli(monkeypatch, *words, "--elastic", 0.5, 0.25, "--finetune-steps", 5)
    (path,) = tmp_path.rglob("config.yml")
    run = load(path)
    assert run.model.trained_shares() == (1.0, 0.5, 0.25)
    assert len(json.loads(path.with_name("distill.json").read_text())["calibration"]["share_errors"]) == 3
    capfd.readouterr()

    own = ["--load-config", path, "--output-dir", tmp_path, "--timestamp", "half", "--share"]
    run_cli(monkeypatch, *own, 0.5)
    (half_path,) = tmp_path.rglob("half/config.yml")
    half = load(half_path)
    assert half.model.trained_shares() == ()
    with run.model.evaluated_at(0.5):
        assert torch.equal(render(half.model, half)["rgb"], render(run.model, run)["rgb"])
        assert half.model.field_fine.macs_per_query() == run.model.field_fine.macs_per_query()
    assert half.model.field_fine.macs_per_query() < run.model.field_fine.macs_per_query()

    line = refused(monkeypatch, capfd, "--load-config", path, "--output-dir", tmp_path / "more", "--share", 0.3)
    assert line == "the run cannot be evaluated with 0.3 of its features: it was trained at these: 1, 0.5, 0.25"
    plain = ["--load-config", tiny_dense_run, "--output-dir", tmp_path / "more"]
    line = refused(monkeypatch, capfd, *plain, "--share", 0.5)
    assert line.endswith("of its features: it was trained with all of them alone")
    assert "leave budgets" in refused(monkeypatch, capfd, *plain, "--share", 0.5, "--macs", 0.5)
    assert "give --finetune-steps" in refused(monkeypatch, capfd, *plain, "--elastic", 0.5)
    assert "below 1, not 1" in refused(monkeypatch, capfd, *plain, "--elastic", 1, "--finetune-steps", 5)
    more = ("--elastic", 0.5, "--finetune-steps", 5, "--recipe", "svd", "--ray-fraction", 0.5)
    assert "such as rows" in refused(monkeypatch, capfd, *plain, *more)
