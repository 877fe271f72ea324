"""From a trained run to a converted run: what is written loads, renders the same, trains on, and harms nothing."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from commands import command, optimizer_steps
from torch import Tensor, nn

from eugen_nerf.cli import distill as cli
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.conversion.run_writer import TRAIN_ON, write_run
from eugen_nerf.conversion.teachers.graph_runs import graph_model, has_graphs
from eugen_nerf.core import ConversionConfig, EUGenConfig, EUGenLinear, LayerSpec
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.runs.loading import Run, load_run

FEW = DistillConfig(layers=("trunk_[12]",), num_features=(6,), ray_fraction=0.5)


@pytest.fixture(params=["stock", "dense"])
def teacher_path(request: pytest.FixtureRequest) -> Path:
    """The config.yml of a teacher: stock vanilla-nerf, then our dense twin."""
    return request.getfixturevalue(f"tiny_{request.param}_run")


def load(path: Path) -> Run:
    return load_run(path, device="cpu", test_mode="val")


def render(model: nn.Module, run: Run) -> dict[str, Tensor]:
    """A view that is not trained on, `rgb` the fine one also where the model is stock."""
    outputs = model.get_outputs_for_camera(run.pipeline.datamanager.eval_dataset.cameras[:1])
    return {key.removesuffix("_fine"): value for key, value in outputs.items()}


def hashes(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run_cli(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["eugen-distill", *map(str, words)])
    cli.main()


def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line a refused command prints."""
    with pytest.raises(SystemExit) as caught:
        run_cli(monkeypatch, *words)
    assert caught.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def test_every_row_kept_renders_as_the_teacher(teacher_path: Path) -> None:
    run = load(teacher_path)
    stock = run.config.method_name == "vanilla-nerf"
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    config = DistillConfig(
        layers=("trunk_[02]", "head_.*"), num_features=(256, 256, 128, 128) if stock else (32, 32, 16), ray_fraction=0.5
    )
    trainer, student, reports = convert_run(run, config)
    expected, found = render(run.model, run), render(student, run)
    for key in ("rgb", "rgb_coarse", "accumulation", "depth"):
        assert found[key].shape == expected[key].shape
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-3)
    assert expected["rgb"].std() > 1e-3
    names = ["trunk_0", "trunk_2", "head_0", "head_1"][: 4 if stock else 3]
    for report in reports:
        assert [layer.name for layer in report.layers] == names
        assert [layer.num_features for layer in report.layers] == list(config.num_features)
        assert all(layer.relative_error < 1e-4 for layer in report.layers)
    assert [report.name for report in reports] == ["coarse", "fine"]
    for field in (student.field_coarse, student.field_fine):
        assert {n for n in field.network.names if isinstance(field.network.layer(n), EUGenLinear)} == set(names)
    assert trainer.pipeline.model.network.layers == tuple(names)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())


def test_the_written_run_is_the_student(teacher_path: Path, tmp_path: Path) -> None:
    before = hashes(teacher_path.parent)
    run = load(teacher_path)
    trainer, student, reports = convert_run(run, FEW)
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    path = write_run(trainer, student, run.step, reports)
    assert path == tmp_path / "converted" / trainer.method_name / "now" / "config.yml"
    assert trainer.method_name == ("eugen-nerf" if run.config.method_name == "vanilla-nerf" else "eugen-nerf-small")
    files = {str(file.relative_to(tmp_path / "converted" / trainer.method_name)) for file in tmp_path.rglob("*.*")}
    assert {f for f in files if not f.endswith(".json")} == {
        "now/config.yml", "now/train.yml", "now/nerfstudio_models/step-000000001.ckpt"
    }  # fmt: skip
    again = load(path)
    assert again.step == run.step
    assert again.config.pipeline.model.variant == "eugen"
    ours, saved = student.state_dict(), again.model.state_dict()
    assert ours.keys() == saved.keys()
    assert all(torch.equal(ours[key], saved[key]) for key in ours)
    in_memory, from_disk = render(student, run), render(again.model, again)
    assert all(torch.equal(in_memory[key], from_disk[key]) for key in from_disk)
    difference = (from_disk["rgb"] - render(run.model, run)["rgb"]).abs()
    assert 1e-6 < difference.max() < 0.2, "near the teacher, and not the teacher"
    assert hashes(teacher_path.parent) == before
    assert trainer.load_dir is None, "the caller's configuration is left alone"


def test_parameters_and_costs_are_the_networks(tiny_dense_run: Path) -> None:
    run = load(tiny_dense_run)
    _, student, reports = convert_run(run, FEW)
    for report, field in zip(reports, (student.field_coarse, student.field_fine), strict=True):
        teacher = getattr(run.model, f"field_{report.name}")
        assert report.parameters == tuple(sum(p.numel() for p in f.network.parameters()) for f in (teacher, field))
        assert report.multiply_adds == (teacher.macs_per_query(), field.macs_per_query())
        assert report.multiply_adds[1] < report.multiply_adds[0]


def test_the_fit_does_the_work(tiny_dense_run: Path) -> None:
    """Not only the plumbing: a view of the student is near the teacher's, nearer than without the fit."""
    run = load(tiny_dense_run)
    with torch.no_grad():  # two steps leave an image without contrast
        for field in run.model.graph_fields().values():
            for name in ("trunk_1", "trunk_2"):
                field.network.layer(name).weight.mul_(3)
    expected = render(run.model, run)["rgb"]
    trainer, student, _ = convert_run(run, DistillConfig(("trunk_[12]",), (12,), ray_fraction=0.5))
    fresh = trainer.pipeline.model.setup(scene_box=run.model.scene_box, num_train_data=4).eval()
    own = fresh.state_dict()
    kept = {k: v for k, v in run.model.state_dict().items() if "trunk_1" not in k and "trunk_2" not in k}
    fresh.load_state_dict({**own, **kept})
    errors = [(render(model, run)["rgb"] - expected).square().mean().item() for model in (student, fresh)]
    assert errors[0] < 0.4 * errors[1]


def test_the_command(
    teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = hashes(teacher_path.parent)
    words = ["--load-config", teacher_path, "--layers", "trunk_1", "head_0", "--num-features", 9, 7]
    words += ["--ray-fraction", 0.4, "--output-dir", tmp_path, "--timestamp", "t"]
    run_cli(monkeypatch, *words)
    (path,) = tmp_path.rglob("config.yml")
    printed = capfd.readouterr().out
    assert f"run written: {path}" in printed
    assert path.parts[-4] == "tiny-distilled"
    assert path.parts[-3].startswith("eugen-nerf")
    assert f"ns-train {path.parts[-3]} --load-config {path.with_name('train.yml')}" in printed
    run = load(path)
    for field in (run.model.field_coarse, run.model.field_fine):
        features = {
            name: layer.config.num_features
            for name in field.network.names
            if isinstance(layer := field.network.layer(name), EUGenLinear)
        }
        assert features == {"trunk_1": 9, "head_0": 7}
    assert torch.isfinite(render(run.model, run)["rgb"]).all()
    assert hashes(teacher_path.parent) == before
    content = hashes(path.parent)
    assert "exists; choose another --experiment-name or --timestamp" in refused(monkeypatch, capfd, *words)
    assert hashes(path.parent) == content
    assert [p.name for p in path.parent.parent.iterdir()] == ["t"]


@pytest.mark.parametrize(
    "words",
    [
        ["--recipe", "random", "--degree", 2, "--norm", "--projection", "orthogonal"],
        ["--recipe", "whitened", "--degree", 2, "--product", "harmonic", "--norm"],
        ["--train-steps", 3],
        ["--recipe", "random", "--train-steps", 2, "--seed", 5],
    ],
)
def test_what_the_options_choose_comes_back(
    words: list[object], tiny_dense_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--load-config", tiny_dense_run, "--num-features", 8, "--ray-fraction", 0.5, "--output-dir", tmp_path]
    run_cli(monkeypatch, *common, *words)
    (path,) = tmp_path.rglob("config.yml")
    run = load(path)  # strict: the config rebuilds exactly the layers that were saved
    config = run.model.field_fine.network.layer("trunk_3").config
    assert (config.degree, config.norm) == ((2, True) if "--degree" in words else (1, False))
    homogeneous = "--product" in words
    assert (config.product, config.phi) == (("harmonic", "identity") if homogeneous else ("plain", "relu"))
    assert torch.isfinite(render(run.model, run)["rgb"]).all()


def test_seeds_of_rays_and_features(tiny_dense_run: Path) -> None:
    run = load(tiny_dense_run)
    states = []
    for seed in (0, 0, 1):
        random = ConversionConfig("random", EUGenConfig(norm=False, seed=seed))
        config = DistillConfig(("trunk_1",), (6,), conversion=random, ray_fraction=0.5, seed=seed)
        states.append(convert_run(run, config)[1].state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for name in ("projection", "weight"):
        key = f"field_fine.network.layers.trunk_1.{name}"
        assert not torch.equal(states[0][key], states[2][key])


def test_ns_train_goes_on(tiny_dense_run: Path, tmp_path: Path) -> None:
    run = load(tiny_dense_run)
    trainer, student, _ = convert_run(run, FEW)
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    path = write_run(trainer, student, run.step)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore", "TORCH_HOME": str(tmp_path)}
    checkpoint = path.parent / "nerfstudio_models" / f"step-{run.step:09d}.ckpt"
    written = checkpoint.read_bytes()
    command(environment, "ns-train", "eugen-nerf-small", "--load-config", path.with_name(TRAIN_ON))
    assert checkpoint.read_bytes() == written, "the converted run stays as it was"
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]
    after = path.parent.with_name("now-trained") / "nerfstudio_models" / "step-000000003.ckpt"
    state = torch.load(after, weights_only=True)
    assert optimizer_steps(state, "fields") == {2}
    for key, value in student.state_dict().items():
        if value.is_floating_point() and value.numel():
            change = (state["pipeline"][f"_model.{key}"] - value).abs().max()
            assert change < 0.05, "two steps of Adam on from the student"
            if key.endswith("trunk_1.projection"):
                assert change > 0, "G is trained on"


def test_a_teacher_that_was_resumed_itself(tiny_dense_run: Path, tmp_path: Path) -> None:
    """Its --load-step and --load-checkpoint are of another run: the student goes on from its own checkpoint."""
    teacher = Path(shutil.copytree(tiny_dense_run.parent, tmp_path / "teacher")) / "config.yml"
    config = yaml.load(teacher.read_text(), Loader=yaml.Loader)
    config.load_dir, config.load_step = Path("/nonexistent"), 77
    config.load_checkpoint = Path("/nonexistent/step-000000077.ckpt")
    teacher.write_text(yaml.dump(config))
    run = load(teacher)
    trainer, student, _ = convert_run(run, FEW)
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    path = write_run(trainer, student, run.step)
    resumed = yaml.load(path.read_text(), Loader=yaml.Loader).setup(local_rank=0, world_size=1)
    resumed.setup()
    state = resumed.pipeline.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in student.state_dict().items())
    assert resumed._start_step == run.step + 1


def test_a_moved_teacher_still_converts(teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = Path(shutil.copytree(teacher_path.parent, tmp_path / "else" / "where")) / "config.yml"
    config = yaml.load(moved.read_text(), Loader=yaml.Loader)
    config.output_dir = Path("/nonexistent")
    moved.write_text(yaml.dump(config))
    words = ["--load-config", moved, "--layers", "trunk_1", "--num-features", 4, "--ray-fraction", 0.4]
    run_cli(monkeypatch, *words, "--output-dir", tmp_path / "out", "--experiment-name", "mine")
    (path,) = (tmp_path / "out").rglob("config.yml")
    assert path.parts[-4] == "mine"
    assert load(path).step == 1


# Refusals.


def test_the_command_refuses_in_one_line(
    tiny_dense_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--load-config", tiny_dense_run, "--output-dir", tmp_path, "--ray-fraction", 0.5]

    def line(*words: object) -> str:
        return refused(monkeypatch, capfd, *common, *words)

    layers = "trunk_0, trunk_1, trunk_2, trunk_3, head_0"
    assert line("--layers", "trunc_.*") == f"layer pattern 'trunc_.*' matches no layer; there are: {layers}"
    assert line("--layers", "trunk_1", "(").startswith("layer pattern '(' is not a regular expression: ")
    assert line("--num-features", 33) == "cannot choose 33 features of 32 rows: choose 1 to 32"
    assert line("--num-features", 4, 5).startswith("2 numbers of features for 4 layers (trunk_0, trunk_1, ")
    assert line("--ray-fraction", 0.25).startswith("256 rays (0.25 of 1024 pixels, at most 4096) are too few to fit")
    assert line("--max-rays", 100).startswith("100 rays (0.5 of 1024 pixels, at most 100) are too few")
    assert line("--ray-fraction", 1.5) == "--ray-fraction must be above 0 and at most 1, not 1.5"
    assert line("--data", tmp_path / "gone").endswith("does not exist: give the folder of the data set")
    assert line("--load-config", tmp_path).endswith("is a folder: give the config.yml inside it")
    assert not list(tmp_path.iterdir())
    (tmp_path / "bundle.json").touch()
    assert "is a bundle: eugen-view and eugen-render take it without an option" in line("--load-config", tmp_path)


def test_other_methods_have_no_graphs() -> None:
    pipeline, config = SimpleNamespace(model=nn.Identity()), SimpleNamespace(method_name="nerfacto")
    run = Run(config, pipeline, Path("a/step-000000001.ckpt"), 1, Path("a/config.yml"))  # type: ignore[arg-type]
    assert not has_graphs(run)
    with pytest.raises(
        RunError, match=r"^a/config\.yml is a run of nerfacto, whose fields are no graphs of layers: its linear"
    ):
        graph_model(run)


@pytest.mark.parametrize("variant", ["lowrank", "snnk", "monarch"])
def test_baselines_are_not_converted(variant: str, train_tiny: Callable) -> None:
    path, _ = train_tiny(variant=variant)
    with pytest.raises(
        RunError, match=rf"^the run's variant is '{variant}'; convert its dense twin \(variant dense\)$"
    ):
        convert_run(load(path), DistillConfig(("trunk_1",), (4,), ray_fraction=0.5))


def test_layers_and_features_come_from_the_run_where_none_are_given(train_tiny: Callable) -> None:
    path, _ = train_tiny(method="eugen-nerf-paper", variant="dense")
    run = load(path)
    trainer, _, reports = convert_run(run, DistillConfig(ray_fraction=0.5))
    for report in reports:
        assert [(layer.name, layer.num_features) for layer in report.layers] == [(f"trunk_{i}", 12) for i in (5, 6, 7)]
    assert trainer.pipeline.model.network.layers == ("trunk_5", "trunk_6", "trunk_7")
    assert not trainer.pipeline.model.network.norm, "the preset's; rows of the teacher see no norm"
    found = convert_run(run, DistillConfig(("trunk_1",), ray_fraction=0.5))[2][0].layers
    assert [(layer.name, layer.num_features) for layer in found] == [("trunk_1", 12)]


def test_the_dense_layers_of_a_converted_run_can_be_converted_too(train_tiny: Callable, tmp_path: Path) -> None:
    """Its other layers stay as they are, in both fields, and what is written is the student."""
    run = load(train_tiny(network__train_merged=False)[0])
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    trainer, student, reports = convert_run(run, DistillConfig(("head_0",), (16,), ray_fraction=0.5))
    assert [[layer.name for layer in report.layers] for report in reports] == [["head_0"], ["head_0"]]
    after = student.state_dict()
    kept = {key for key in after if ".head_0." not in key}
    assert {key for key in before if ".head_0." not in key} == kept
    assert all(torch.equal(after[key], before[key]) for key in kept)
    expected, found = render(run.model, run), render(student, run)
    torch.testing.assert_close(found["rgb"], expected["rgb"], rtol=1e-3, atol=1e-3)
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    again = load(write_run(trainer, student, run.step, reports))
    assert all(torch.equal(value, again.model.state_dict()[key]) for key, value in after.items())
    from_disk = render(again.model, again)
    assert all(torch.equal(from_disk[key], found[key]) for key in found)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())


def test_where_nothing_dense_is_left_the_message_says_what_there_is(tiny_eugen_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"^layer pattern 'trunk_\.\*' matches no layer; there are: head_0$"):
        convert_run(load(tiny_eugen_run), DistillConfig(ray_fraction=0.5))


def test_specs_that_a_dense_run_does_not_use_are_forgotten(tiny_dense_run: Path, tmp_path: Path) -> None:
    """They describe layers of another variant, and would go before those of the student."""
    path = Path(shutil.copytree(tiny_dense_run.parent, tmp_path / "teacher")) / "config.yml"
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    config.pipeline.model.network.specs = {"head_0": LayerSpec("eugen", num_features=3)}
    path.write_text(yaml.dump(config))
    trainer, student, _ = convert_run(load(path), FEW)
    assert trainer.pipeline.model.network.specs == {}
    names = [n for n in student.field_fine.network.names if n in ("trunk_1", "trunk_2", "head_0")]
    kinds = [isinstance(student.field_fine.network.layer(n), EUGenLinear) for n in names]
    assert kinds == [True, True, False]


def test_a_narrow_run_is_a_dense_one(train_tiny: Callable) -> None:
    path, _ = train_tiny(variant="narrow")
    run = load(path)
    width = run.model.field_fine.network.layer("trunk_1").out_features
    assert width < 32
    _, student, _ = convert_run(run, DistillConfig(("trunk_1",), (width,), ray_fraction=0.5))
    torch.testing.assert_close(render(student, run)["rgb"], render(run.model, run)["rgb"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("broken", ["checkpoint", "config"])
def test_a_full_disk_leaves_nothing_behind(
    broken: str, tiny_dense_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load(tiny_dense_run)
    trainer, student, _ = convert_run(run, FEW)
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if broken == "checkpoint":
            patch.setattr(torch, "save", full)
        else:
            patch.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match=r"^cannot write .*No space left on device"):
            write_run(trainer, student, run.step)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() or "now" in p.name]
    assert load(write_run(trainer, student, run.step)).step == run.step, "the next attempt succeeds"
