"""One run for every width: neurons put in order, calibration at all shares, and a share written as a run of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_distill_run import load, refused, render, run_cli
from torch import Tensor

from eugen_nerf.conversion.bundle_export import bundle_of
from eugen_nerf.conversion.bundle_scene import bundle_of_run
from eugen_nerf.conversion.calibration import calibrate
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.conversion.page_export import page_of
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.core import ConfigError, load_bundle, save_bundle
from eugen_nerf.evaluation.images.view_rendering import render_rgb, view_camera
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.runs.fast_rendering import decibel
from eugen_nerf.methods.runs.loading import Run
from eugen_nerf.methods.runs.training_rays import Photographs, draw_pixels, training_views
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.run_comparison import RunComparison
from eugen_viewer.shown_runs import open_run
from eugen_viewer.viewer_cameras import viewpoint_at_view

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


@pytest.fixture(scope="module")
def elastic_run(tiny_dense_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `config.yml` of a run of three widths, as the command writes it."""
    place = tmp_path_factory.mktemp("elastic")
    words = ["--load-config", tiny_dense_run, "--ray-fraction", 0.5, "--output-dir", place, "--timestamp", "t"]
    with pytest.MonkeyPatch.context() as patched:
        run_cli(patched, *words, "--elastic", *SHARES, "--finetune-steps", 5)
    (path,) = place.rglob("config.yml")
    return path


def test_the_commands(
    tiny_dense_run: Path,
    elastic_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path, run = elastic_run, load(elastic_run)
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
    share, own = bundle_of(run.model).at_share(0.5), bundle_of(half.model)
    assert share.describe() == own.describe()
    tensors = own.state_dict()
    assert share.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in share.state_dict().items())

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


def test_a_bundle_and_a_page_have_every_share(
    elastic_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eugen_nerf.conversion.bundle_scene.CHECK_RAYS", 256)
    run = load(elastic_run)
    said: list[str] = []
    save_bundle(bundle_of_run(run, quality=100.0, progress=said.append), tmp_path / "bundle")
    assert said == ["preparing fast rendering"], "nothing is lacking"
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.shares == (1.0, *SHARES)
    assert bundle.scene is not None
    assert list(bundle.scene.share_quality) == [*SHARES]
    check = Photographs(run, draw_pixels(training_views(run.pipeline.datamanager).cameras, 256, 1))
    for share in SHARES:
        with run.model.evaluated_at(share):
            exact = decibel(check.squared_error(run.model))
        assert bundle.scene.share_quality[share].exact_psnr == pytest.approx(exact, abs=1e-4)
        narrower = bundle.at_share(share)
        image = narrower.render(narrower.cameras[0]).colour
        assert (image - bundle.render(bundle.cameras[0]).colour).abs().max() > 1e-3
    page, (data,) = page_of([("run", bundle)], "t")
    told = data.description["info"]["shares"]
    assert [each["share"] for each in told] == [1.0, *SHARES]
    assert [each["macs"] for each in told] == [bundle.at_share(share).multiply_adds() for share in bundle.shares]
    assert [each["quality"]["psnr"] for each in told[1:]] == [q.psnr for q in bundle.scene.share_quality.values()]
    assert "Features" in page.html
    run.model.evaluate_at(0.5)
    narrow = bundle_of_run(run, quality=100.0, progress=said.append)
    assert narrow.shares == ()
    assert said[1:] == [
        "the bundle is as wide as the run is evaluated now: the other shares of its features are not in it"
    ]
    assert narrow.multiply_adds() == bundle.at_share(0.5).multiply_adds()


def test_a_bundle_of_every_width_is_shown_at_each(elastic_run: Path, tmp_path: Path) -> None:
    save_bundle(bundle_of_run(load(elastic_run), quality=100.0), tmp_path / "bundle")
    shown, bundle = open_run(tmp_path / "bundle", "bundle", device="cpu", data=None), load_bundle(tmp_path / "bundle")
    for share in (*shown.shares, 1.0):
        shown.show_at(share)
        narrower = bundle.at_share(share)
        expected = narrower.render(bundle.cameras[0]).colour
        torch.testing.assert_close(render_rgb(shown.run, view_camera(shown.run, 0)), expected, atol=1e-4, rtol=0)
        assert shown.costs()[1] == narrower.multiply_adds()
    with pytest.raises(ConfigError, match=r"with 0\.3 of its features"):
        shown.show_at(0.3)


@pytest.mark.parametrize("kind", ["run", "planned run", "bundle"])
def test_a_slow_run_moves_with_fewer_features_and_rests_with_those_shown(
    elastic_run: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "bundle":
        save_bundle(bundle_of_run(load(elastic_run), quality=100.0), tmp_path / "bundle")
    shown = open_run(tmp_path / "bundle" if kind == "bundle" else elastic_run, "own", device="cpu", data=None)
    if kind == "planned run":
        assert shown.render_fast(100.0) is not None
    expected = {}
    for share in (*shown.shares, 1.0):
        shown.show_at(share)
        expected[share] = render_rgb(shown.run, view_camera(shown.run, 0)).numpy(), shown.costs()[1]
    comparison = RunComparison({"own": shown}, Renderer(FrameBudget(max_size=512)))
    assert comparison.base.cameras is not None
    viewpoint = viewpoint_at_view(comparison.base.cameras, 0, 1.0)
    size = expected[1.0][0].shape[:2]
    first = comparison.render_frame(viewpoint, size, visible_only=True)
    for _ in range(20):
        # its own view is the full image here: what is slow is made so by what is recorded
        comparison.renderer.budget.record_moving(["own"], 9, 10.0, full=1e6, costs=(1.0, 0.5, 0.25))
    later = comparison.render_frame(viewpoint, size, visible_only=True)
    rested = comparison.render_frame(viewpoint, size, fine=True)
    for frame, share in ((first, 1.0), (later, 0.25), (rested, 1.0)):
        image = frame.images["own"]
        assert image.share == share
        assert abs(image.outputs["rgb"] - expected[share][0]).max() < 1e-4
        assert comparison.readout(frame).rows[0].multiply_adds == expected[share][1]
    assert abs(expected[1.0][0] - expected[0.25][0]).max() > 1e-3
    shown.show_at(0.5)
    assert comparison.render_frame(viewpoint, size).images["own"].share == 0.5
    assert comparison.render_frame(viewpoint, size, visible_only=True).images["own"].share == 0.25
