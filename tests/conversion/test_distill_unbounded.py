"""Conversion of Mip-NeRF 360 and Zip-NeRF runs, dense and hybrid: what is replaced, what stays, and what comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from commands import optimizer_steps
from tiny_runs import render
from torch import Tensor

from eugen_nerf.cli import distill as cli
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.core import ConversionConfig, DenseLinear, EUGenConfig, EUGenLinear, EvaluationMode
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.evaluation.compare import evaluate
from eugen_nerf.evaluation.protocol import Timing
from eugen_nerf.fields.graph_field import GraphField
from eugen_nerf.fields.zipnerf import ZipNeRFField
from eugen_nerf.methods.runs.loading import Run, load_run

METHODS = {"mip": "eugen-mipnerf360-small", "zip": "eugen-zipnerf-small"}
HIDDEN = {
    "mip": [*(f"trunk_{i}" for i in range(8)), "head_0"],
    "zip": ["trunk_0", "head_0", "head_1"],
}
DEFAULTS = {"mip": HIDDEN["mip"][:8], "zip": ["head_0", "head_1"]}
PROPOSALS = {"mip": ["proposal_0"], "zip": ["proposal_0", "proposal_1"]}


@pytest.fixture(scope="module", params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def dense_path(name: str, train_tiny_unbounded: Callable) -> Path:
    """The config.yml of a dense run."""
    return train_tiny_unbounded(method=METHODS[name], variant="dense")[0]


def load(path: Path) -> Run:
    return load_run(path, device="cpu", test_mode="val")


def settings(**changes: object) -> DistillConfig:
    return DistillConfig(ray_fraction=0.5, **changes)


@torch.no_grad()
def enlivened(path: Path) -> Run:
    """A run whose views and proposals differ from place to place; two steps from the start they hardly do."""
    run = load(path)
    torch.manual_seed(0)
    for name, field in run.model.graph_fields().items():
        for layer in field.network.layers.values():
            layer.weight.mul_(1.5)
        field.network.layer("density").weight.mul_(6)
        if name == "field":
            field.network.layer("rgb").weight.mul_(5)
        if isinstance(field, ZipNeRFField):
            field.grid.table.normal_(std=0.1)
    return run


def state_of(run_or_model: Run | torch.nn.Module) -> dict[str, Tensor]:
    model = run_or_model.model if isinstance(run_or_model, Run) else run_or_model
    return {key: value.clone() for key, value in model.state_dict().items()}


def eugen_layers(field: GraphField) -> dict[str, EUGenConfig]:
    layers = {n: field.network.layer(n) for n in field.network.names}
    return {n: layer.config for n, layer in layers.items() if isinstance(layer, EUGenLinear)}


def write(trainer, student, run: Run, reports, folder: Path) -> Path:
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = folder, "converted", "now"
    return write_run(trainer, student, run.step, reports)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def test_every_row_kept_renders_as_the_teacher(name: str, dense_path: Path) -> None:
    run = enlivened(dense_path)
    before, expected = state_of(run), render(run.model, run.pipeline)
    widths = tuple(run.model.field.network.layer(layer).out_features for layer in HIDDEN[name])
    config = settings(layers=("trunk_.*", "head_.*"), num_features=widths)
    _, student, (report,) = convert_run(run, config)
    assert report.name == "field"
    assert [(layer.name, layer.num_features) for layer in report.layers] == [*zip(HIDDEN[name], widths, strict=True)]
    assert all(layer.relative_error < 1e-4 for layer in report.layers)
    assert expected["rgb"].std() > 5e-3
    found = render(student, run.pipeline)
    assert found.keys() == expected.keys()
    for key in ("rgb", "accumulation"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-3)
    for key in ("prop_depth_0", "prop_depth_1"):
        assert torch.equal(found[key], expected[key]), "proposals are the teacher's"
    assert list(eugen_layers(student.field)) == HIDDEN[name]
    assert same(state_of(run), before), "the teacher is unchanged"


def test_layers_and_features_come_from_the_configuration(name: str, dense_path: Path, tmp_path: Path) -> None:
    run = load(dense_path)
    before = state_of(run)
    trainer, student, (report,) = convert_run(run, settings())
    assert [layer.name for layer in report.layers] == DEFAULTS[name]
    assert {layer.num_features for layer in report.layers} == {10}
    assert list(eugen_layers(student.field)) == DEFAULTS[name]
    assert (trainer.pipeline.model.variant, trainer.pipeline.model.proposal_variant) == ("eugen", "dense")
    assert report.multiply_adds == (run.model.field.macs_per_query(), student.field.macs_per_query())
    after = state_of(student)
    kept = [key for key in after if not any(f"field.network.layers.{layer}." in key for layer in DEFAULTS[name])]
    assert {key.split(".")[0] for key in kept} >= {"field", "proposals"}
    assert sum(key.endswith("grid.table") for key in kept) == (3 if name == "zip" else 0)
    assert all(torch.equal(after[key], before[key]) for key in kept), "bit for bit"
    again = load(write(trainer, student, run, [report], tmp_path))
    assert same(state_of(again), after)
    assert same(render(again.model, again.pipeline), render(student, run.pipeline))
    assert same(state_of(run), before)


def test_the_fit_does_the_work(name: str, dense_path: Path) -> None:
    run = load(dense_path)
    expected = render(run.model, run.pipeline)["rgb"]
    trainer, student, _ = convert_run(run, settings(layers=(r"trunk_0", "head_0")))
    fresh = trainer.pipeline.model.setup(scene_box=run.model.scene_box, num_train_data=5).eval()
    unfitted = {**state_of(student)}
    unfitted |= {
        key: v for key, v in state_of(fresh).items() if "field." in key and (".trunk_0" in key or ".head_0" in key)
    }
    fresh.load_state_dict(unfitted)
    errors = [(render(m, run.pipeline)["rgb"] - expected).square().mean().item() for m in (student, fresh)]
    assert errors[0] < 0.2 * errors[1]


def test_proposals_are_converted_where_configured(name: str, dense_path: Path, tmp_path: Path) -> None:
    """By their own settings, whatever is said of the field."""
    run = enlivened(dense_path)
    before, expected = state_of(run), render(run.model, run.pipeline)
    config = settings(layers=("head_0",), num_features=(9,), proposals=True)
    trainer, student, reports = convert_run(run, config)
    assert [report.name for report in reports] == [*PROPOSALS[name], "field"]
    trunk = ["trunk_0", "trunk_1"] if name == "mip" else ["trunk_0"]
    for report, field in zip(reports, student.graph_fields().values(), strict=True):
        counts = {"head_0": 9} if report.name == "field" else dict.fromkeys(trunk, 8)
        assert {layer.name: layer.num_features for layer in report.layers} == counts
        assert {n: c.num_features for n, c in eugen_layers(field).items()} == counts
        assert all(layer.relative_error < 0.9 for layer in report.layers)
    assert trainer.pipeline.model.proposal_variant == trainer.pipeline.model.variant == "eugen"
    again = load(write(trainer, student, run, reports, tmp_path))
    assert same(state_of(again), state_of(student))
    found = render(again.model, again.pipeline)
    assert (found["rgb"] - expected["rgb"]).square().mean() < 0.3 * expected["rgb"].var(), "half of the rows, nearly so"
    assert not torch.equal(found["prop_depth_1"], expected["prop_depth_1"]), "samples that the first round placed"
    tables = [key for key in before if key.endswith("grid.table")]
    assert all(torch.equal(state_of(again)[key], before[key]) for key in tables)
    assert same(state_of(run), before)


def test_proposals_with_every_row_kept_are_the_teachers(name: str, dense_path: Path) -> None:
    """At their inputs of every round, the one that serves both of Mip-NeRF 360's too."""
    run = enlivened(dense_path)
    run.model.config.proposal.num_features = (16,)  # the configuration that a conversion reads
    _, student, reports = convert_run(run, settings(layers=("head_0",), num_features=(16,), proposals=True))
    assert all(layer.relative_error < 1e-4 for report in reports for layer in report.layers)
    rays = run.pipeline.datamanager.eval_dataset.cameras.generate_rays(camera_indices=0).flatten()
    with torch.no_grad():
        mine, teachers = (m.densities(EvaluationMode.INFERENCE) for m in (student, run.model))
        rounds, _ = run.model.sampler(run.model.collider(rays), teachers)
        for done, ours, theirs in zip(rounds, mine, teachers, strict=True):
            expected = theirs(done.samples)
            assert expected.std() > 0.05 * expected.mean()
            torch.testing.assert_close(ours(done.samples), expected, rtol=1e-2, atol=1e-4)


# ---- hybrids


@pytest.fixture(scope="module")
def hybrid_path(name: str, train_tiny_unbounded: Callable) -> Path:
    """The config.yml of an eugen run with one layer replaced, of degree 2, that sees the norm."""
    layers = {"mip": "trunk_3", "zip": "head_1"}[name]
    changes = {"network__layers": (layers,), "network__degree": 2, "network__norm": True, "network__phi": "gelu"}
    return train_tiny_unbounded(method=METHODS[name], variant="eugen", **changes)[0]


NEW = {"mip": ("trunk_1", "trunk_5"), "zip": ("trunk_0", "head_0")}
OLD = {"mip": "trunk_3", "zip": "head_1"}


def test_new_layers_beside_others_of_another_degree(name: str, hybrid_path: Path, tmp_path: Path) -> None:
    run = load(hybrid_path)
    before = state_of(run)
    random = ConversionConfig("random", EUGenConfig(norm=False, projection="orthogonal", seed=7))
    config = settings(layers=NEW[name], num_features=(9, 6), conversion=random)
    trainer, student, (report,) = convert_run(run, config)
    assert [layer.name for layer in report.layers] == list(NEW[name])
    found = eugen_layers(student.field)
    order = [n for n in HIDDEN[name] if n in (*NEW[name], OLD[name])]
    assert list(found) == order
    assert [(found[n].num_features, found[n].degree, found[n].norm) for n in NEW[name]] == [
        (9, 1, False),
        (6, 1, False),
    ]
    old = found[OLD[name]]
    assert (old.num_features, old.degree, old.norm, old.phi) == (10, 2, True, "gelu")
    after = state_of(student)
    kept = [key for key in before if not any(f"field.network.layers.{layer}." in key for layer in NEW[name])]
    assert all(torch.equal(after[key], before[key]) for key in kept)
    specs = trainer.pipeline.model.network.specs
    assert list(specs) == order
    assert (specs[OLD[name]].eugen.degree, specs[NEW[name][0]].eugen.degree) == (2, 1)
    again = load(write(trainer, student, run, [report], tmp_path))
    assert same(state_of(again), after)
    assert same(render(again.model, again.pipeline), render(student, run.pipeline))
    assert same(state_of(run), before)


def test_a_hybrid_with_every_row_kept_renders_as_before(name: str, hybrid_path: Path) -> None:
    run = load(hybrid_path)
    expected = render(run.model, run.pipeline)
    widths = tuple(run.model.field.network.layer(n).out_features for n in NEW[name])
    _, student, (report,) = convert_run(run, settings(layers=NEW[name], num_features=widths))
    assert all(layer.relative_error < 1e-4 for layer in report.layers)
    torch.testing.assert_close(render(student, run.pipeline)["rgb"], expected["rgb"], rtol=1e-3, atol=1e-3)


def test_layer_by_layer_to_the_end(name: str, dense_path: Path, tmp_path: Path) -> None:
    """A run converted once, written, converted again, written, and then there is nothing left."""
    path, done = dense_path, []
    for number, layer in enumerate(HIDDEN[name][-3:]):
        run = load(path)
        trainer, student, reports = convert_run(run, settings(layers=(layer,), num_features=(5 + number,)))
        path = write(trainer, student, run, reports, tmp_path / str(number))
        done.append(layer)
        again = load(path)
        assert same(state_of(again), state_of(student))
        order = [n for n in HIDDEN[name] if n in done]
        assert {n: c.num_features for n, c in eugen_layers(again.model.field).items()} == {
            n: 5 + done.index(n) for n in order
        }
    with pytest.raises(ConfigError, match=rf"^layer pattern '{done[0]}' matches no layer"):
        convert_run(load(path), settings(layers=(done[0],), num_features=(4,)))


def test_training_goes_on_from_a_hybrid(name: str, hybrid_path: Path, tmp_path: Path) -> None:
    """As ``ns-train --load-config`` does it, in this process."""
    run = load(hybrid_path)
    trainer, student, reports = convert_run(run, settings(layers=NEW[name], num_features=(9, 6), proposals=True))
    path = write(trainer, student, run, reports, tmp_path)
    resumed = yaml.load(path.read_text(), Loader=yaml.Loader).setup(local_rank=0, world_size=1)
    resumed.setup()
    before = state_of(resumed.pipeline.model)
    assert same(before, state_of(student))
    assert resumed._start_step == run.step + 1
    resumed.train()
    after = state_of(resumed.pipeline.model)
    for key in (f"field.network.layers.{NEW[name][0]}.projection", f"field.network.layers.{OLD[name]}.projection_norm"):
        assert 0 < (after[key] - before[key]).abs().max() < 0.02, key
    (checkpoint,) = [file for file in path.parent.rglob("*.ckpt") if "3" in file.name]
    state = torch.load(checkpoint, weights_only=True)
    assert optimizer_steps(state, "fields") == {2}, "the optimizers began anew"
    again = load(path)
    assert again.step == 3
    assert same(state_of(again), after)


# ---- refusals, the command, the comparison


@pytest.mark.parametrize(("which", "attribute"), [("field", "variant"), ("proposals", "proposal_variant")])
def test_baselines_are_not_converted(which: str, attribute: str, train_tiny_unbounded: Callable) -> None:
    path, _ = train_tiny_unbounded(method=METHODS["zip"], **{"variant": "dense", attribute: "lowrank"})
    run = load(path)
    message = rf"^the run's {attribute} is 'lowrank'; convert its dense twin \({attribute} dense\)$"
    with pytest.raises(RunError, match=message):
        convert_run(run, settings(proposals=True))
    if which == "proposals":
        assert convert_run(run, settings())[2][0].name == "field", "unless they stay as they are"


def test_a_narrow_run_is_a_dense_one(name: str, train_tiny_unbounded: Callable, tmp_path: Path) -> None:
    path, _ = train_tiny_unbounded(method=METHODS[name], variant="narrow", proposal_variant="narrow")
    run = load(path)
    expected, network = render(run.model, run.pipeline), run.model.field.network
    assert network.layer("bottleneck").out_features < 16
    head, width = network.layer("head_0").out_features, run.model.proposals[0].network.layer("trunk_0").out_features
    run.model.config.proposal.num_features = (width,)
    trainer, student, reports = convert_run(run, settings(layers=("head_0",), num_features=(head,), proposals=True))
    torch.testing.assert_close(render(student, run.pipeline)["rgb"], expected["rgb"], rtol=1e-3, atol=1e-3)
    again = load(write(trainer, student, run, reports, tmp_path))
    assert same(state_of(again), state_of(student))
    assert all(isinstance(again.model.field.network.layer(n), DenseLinear) for n in ("trunk_0", "bottleneck", "rgb"))


def test_the_command(
    name: str, dense_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a word about layers, proposals too."""
    words = ["--load-config", dense_path, "--proposals", "--ray-fraction", 0.5, "--output-dir", tmp_path]
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["eugen-distill", *map(str, words)])
    cli.main()
    (path,) = tmp_path.rglob("config.yml")
    printed = capfd.readouterr().out
    assert f"ns-train {METHODS[name]} --load-config {path.with_name('train.yml')}" in printed
    for word in (*PROPOSALS[name], *DEFAULTS[name]):
        assert word in printed
    run = load(path)
    assert {n: c.num_features for n, c in eugen_layers(run.model.field).items()} == dict.fromkeys(DEFAULTS[name], 10)
    assert {c.num_features for c in eugen_layers(run.model.proposals[0]).values()} == {8}


def test_eugen_eval_compares_teacher_and_student(name: str, dense_path: Path, tmp_path: Path) -> None:
    run = load(dense_path)
    trainer, student, reports = convert_run(run, settings(num_features=(4,), proposals=True))
    path = write(trainer, student, run, reports, tmp_path)
    timing = Timing(warmup=0, repeats=2, num_queries=64, chunk_size=32, train_iterations=1)
    comparison = evaluate([dense_path, path], names=["dense", "converted"], timing=timing, device="cpu")
    dense, converted = comparison.rows[:2]
    assert [row["variant"] for row in comparison.rows] == ["dense", "converted", "mean-image", "white"]
    for row, model in ((dense, run.model), (converted, student)):
        assert row["macs_per_query"] == model.field.macs_per_query()
        assert row["inference_parameters"] == model.field.inference_parameters()
        assert 0 < row["psnr"] < 60
        assert row["iteration_seconds"] > 0
        assert row["image_split"]["encoding"] > 0
    assert converted["macs_per_query"] < dense["macs_per_query"]
    assert converted["fit_seconds"] == pytest.approx(sum(report.seconds for report in reports))
    assert converted["psnr"] == pytest.approx(dense["psnr"], abs=1)
    assert comparison.renders["dense"][0].shape == (12, 16, 3)
