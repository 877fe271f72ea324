"""Stock runs converted layer by layer: mipnerf and nerfacto keep what is not converted, load, render and train on."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup
from tiny_runs import batches_in_threads, render, train_stock
from torch import Tensor, nn

from eugen_nerf.cli import distill as cli
from eugen_nerf.conversion.budget import budget_search, measure
from eugen_nerf.conversion.budget.budget_search import convert_to_budget
from eugen_nerf.conversion.budget.measure import query_macs
from eugen_nerf.conversion.calibration import calibrate
from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import Budget, convert_run, convert_teacher, open_teacher
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.conversion.teachers.field_calls import record_field_calls, replay_call
from eugen_nerf.conversion.teachers.module_teacher import ModuleTeacher
from eugen_nerf.core import ConversionConfig, Weighted, load_bundle
from eugen_nerf.core.bundles.bundled_proposals import BundledProposals
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.modules.discovery import find_hidden
from eugen_nerf.core.modules.linears import Linears
from eugen_nerf.fields.query_timing import Ratio
from eugen_nerf.methods.converted import ConvertedPipeline, resize
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.checkpoints import read_latest_checkpoint
from eugen_nerf.methods.runs.loading import Run, load_run, read_config, without_lpips
from eugen_nerf.methods.runs.training_rays import Photographs, choose_rays, ray_bundle, rendered_colours, training_views

RAYS: dict[str, Any] = {"ray_fraction": 0.5, "max_rays": 384, "experiment_name": "student"}
HIDDEN = {
    "nerfacto": ["field.mlp_base.model.1.layers.0", "field.mlp_head.layers.0", "field.mlp_head.layers.1"],
    "mipnerf": [*(f"field.mlp_base.layers.{i}" for i in range(8)), *(f"field.mlp_head.layers.{i}" for i in range(2))],
}
SOME = {"nerfacto": ("field.*",), "mipnerf": (r"field.mlp_base.layers.[37]", "field.mlp_head.layers.0")}
"""Patterns for what is converted here: mipnerf's layers are always 256 wide, and all of them take their time."""
WIDTHS = {"nerfacto": (24, 24, 24), "mipnerf": (256, 256, 128)}
"""Of what SOME stands for."""
CONVERTED = {"nerfacto": HIDDEN["nerfacto"], "mipnerf": [HIDDEN["mipnerf"][i] for i in (3, 7, 8)]}


@pytest.fixture(autouse=True, scope="module")
def _no_processes() -> Any:
    with batches_in_threads():
        yield


def _shrink(config: TrainerConfig) -> None:
    config.mixed_precision = False  # as a CPU needs it
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.queue_size = 1
    if config.method_name == "mipnerf":
        model.num_coarse_samples = model.num_importance_samples = 4
        return
    model.implementation = "torch"
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (8, 8), 6
    model.hidden_dim = model.hidden_dim_color = 24
    model.num_levels, model.max_res, model.log2_hashmap_size, model.appearance_embed_dim = 4, 64, 9, 5
    model.proposal_net_args_list = [{"hidden_dim": 12, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32}]


@pytest.fixture(scope="module", params=["nerfacto", "mipnerf"])
def teacher(request: pytest.FixtureRequest, tiny_nerfstudio: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A stock run, two iterations on the CPU."""
    folder = tmp_path_factory.mktemp(request.param)
    path = train_stock(tiny_nerfstudio, folder, method=request.param, change=_shrink)
    return load_run(path, device="cpu", test_mode="val")


def colours(model: nn.Module, run: Run) -> Tensor:
    outputs = render(model, run.pipeline)
    return outputs["rgb" if "rgb" in outputs else "rgb_fine"]


def test_full_width_renders_as_the_teacher(teacher: Run) -> None:
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    expected = colours(teacher.model, teacher)
    method = teacher.config.method_name
    _, student, reports = convert_run(teacher, DistillConfig(layers=SOME[method], num_features=WIDTHS[method], **RAYS))
    assert [layer.name for report in reports for layer in report.layers] == CONVERTED[method]
    assert expected.std() > 1e-4
    torch.testing.assert_close(colours(student, teacher), expected, rtol=1e-3, atol=1e-3)
    after = teacher.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert "forward" not in vars(teacher.model.field)


def test_written_run_loads_renders_alike_and_trains_on(teacher: Run, tmp_path: Path) -> None:
    method = teacher.config.method_name
    fewer = tuple(width // 4 for width in WIDTHS[method])
    trainer, student, (report,) = convert_run(teacher, DistillConfig(SOME[method], fewer, **RAYS))
    assert report.multiply_adds[1] < report.multiply_adds[0]
    assert report.parameters[1] < report.parameters[0]
    for side in (0, 1):
        assert sum(pair[side] for pair in report.shares.values()) == report.multiply_adds[side]
    names = CONVERTED[method]
    old, new = dict(teacher.model.named_modules()), dict(student.named_modules())
    for name in names:
        assert type(new[name]) is nn.Linear
        assert new[name].out_features == old[name].out_features // 4
    # what is not converted is the teacher's: embeddings, grids, proposals, camera optimisation
    touched = tuple(f"{name}." for name in trainer.pipeline.linears)
    kept = {k: v for k, v in student.state_dict().items() if not k.startswith(touched)}
    assert all(torch.equal(value, teacher.model.state_dict()[key]) for key, value in kept.items())
    if teacher.config.method_name == "nerfacto":
        assert {"camera_optimizer.pose_adjustment", "field.embedding_appearance.embedding.weight"} <= set(kept)

    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    path = write_run(trainer, student, teacher.step)
    again = load_run(path, device="cpu", test_mode="val")
    expected = colours(student, teacher)
    assert torch.equal(colours(again.model, again), expected)
    assert (expected - colours(teacher.model, teacher)).abs().max() > 1e-6
    with without_lpips():
        stock = eval_setup(path, test_mode="val")[1]
    assert type(stock) is ConvertedPipeline
    assert torch.equal(colours(stock.model, again), expected)

    config = read_config(path)
    config.max_num_iterations, config.steps_per_save = 2, 1000
    going = config.setup(local_rank=0, world_size=1)
    with torch.random.fork_rng(devices=[]), without_lpips():
        going.setup()
        assert torch.equal(colours(going.pipeline.model, again), expected)
        going.pipeline.train()
        going.train()
    step, checkpoint = going.step, read_latest_checkpoint(going.checkpoint_dir)[1]
    assert step == checkpoint["step"] == teacher.step + 2
    trained = checkpoint["pipeline"][f"_model.{names[0]}.weight"]
    assert trained.shape == new[names[0]].weight.shape
    assert not torch.equal(trained, new[names[0]].weight)

    # and a converted run can be converted further
    second, twice, _ = convert_run(again, DistillConfig((names[-1],), (4,), **RAYS))
    assert twice.get_submodule(names[-1]).out_features == 4
    assert second.pipeline.linears[names[0]] == again.config.pipeline.linears[names[0]]
    assert second.pipeline.linears[names[-1]][1] == 4


def test_every_hidden_layer_is_found(teacher: Run) -> None:
    model = teacher.model
    cameras = training_views(teacher.pipeline.datamanager).cameras
    recorded = record_field_calls(model, ["field"], cameras, choose_rays(cameras, 0.5, 384, 0))["field"]
    call = recorded[0].batch if isinstance(recorded[0], Weighted) else recorded[0]
    with torch.no_grad():
        found, refused = find_hidden(Linears(model), lambda: replay_call(model.field, call))
    assert list(found) == HIDDEN[teacher.config.method_name]
    assert {str(layer.function) for layer in found.values()} == {"relu(z)"}
    assert not set(found) & set(refused)


def test_layers_are_chosen_by_full_name(teacher: Run) -> None:
    first, *_, last = HIDDEN[teacher.config.method_name]
    _, student, reports = convert_run(
        teacher, DistillConfig(("field.*",), (6,), exclude=(f"field.(?!{last[6:]}$).*",), **RAYS)
    )
    assert [layer.name for layer in reports[0].layers] == [last]
    assert student.get_submodule(first).out_features == teacher.model.get_submodule(first).out_features
    with pytest.raises(ConfigError, match=r"layer pattern 'trunk.*' matches no layer; there are: .*field\.mlp_base"):
        convert_run(teacher, DistillConfig(layers=("trunk.*",), **RAYS))
    if teacher.config.method_name == "nerfacto":
        proposals = DistillConfig(("proposal_networks.*0",), (5,), **RAYS)
        _, student, reports = convert_run(teacher, proposals)
        assert [report.name for report in reports] == ["proposal_networks.0", "proposal_networks.1"]
        assert student.proposal_networks[1].mlp_base[1].layers[0].out_features == 5
        with pytest.raises(ConfigError, match=r"layers\.1 has an output that no linear layer reads"):
            convert_run(teacher, DistillConfig(layers=("field.mlp_base.*layers.1",), **RAYS))


def test_a_checkpoint_of_other_sizes_is_an_error(teacher: Run, tmp_path: Path) -> None:
    trainer, student, _ = convert_run(teacher, DistillConfig((r"field.mlp_head.layers.\d",), (7,), **RAYS))
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    trainer.pipeline.linears["field.mlp_head.layers.0"][1] = 8
    path = write_run(trainer, student, teacher.step)
    with pytest.raises(RunError, match="of another architecture"):
        load_run(path, device="cpu", test_mode="val")
    with without_lpips(), pytest.raises(RunError, match="of another architecture"):
        eval_setup(path, test_mode="val")
    with pytest.raises(RunError, match=r"'field\.none', which \w+ has not"):
        resize(student, {"field.none": [1, 2, 1]})


def by_macs(model: Any, student: Any) -> Ratio:
    """A speed-up that no noise is in: the ratio of multiply-adds."""
    ratio = query_macs(model) / query_macs(student)
    return Ratio(ratio, ratio, ratio)


def conversion_of(run: Run, place: Path, **options: Any) -> ModuleTeacher:
    return ModuleTeacher(
        run, DistillConfig(**{"layers": SOME[run.config.method_name], "output_dir": place, **RAYS, **options})
    )


@pytest.mark.parametrize(("goal", "value"), [("macs", 0.9), ("speedup", 1.1), ("max_drop", 3.0)])
def test_budgets(goal: Any, value: float, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_search, "query_speedup", by_macs)
    conversion = conversion_of(teacher, tmp_path, layers=(*SOME[teacher.config.method_name][:1],))
    result = convert_to_budget(conversion, goal, value)
    whole = query_macs(teacher.model)
    assert result.preview.teacher_macs == whole
    assert result.point.multiply_adds == result.measured.multiply_adds == query_macs(result.student.model)
    assert result.measured.predicted_drop is not None
    photographs = Photographs(teacher, conversion.check_rays())
    errors = [photographs.squared_error(m) for m in (teacher.model, result.student.model)]
    drop = 10 * torch.log10(torch.tensor(errors[1] / errors[0])).item()
    assert result.measured.drop == pytest.approx(drop, abs=1e-5)
    if goal == "macs":
        assert result.measured.multiply_adds <= 0.9 * whole
        dearer = [p for p in result.preview.front if p.multiply_adds > result.point.multiply_adds]
        assert all(p.multiply_adds > 0.9 * whole for p in dearer)
    elif goal == "speedup":
        assert result.measured.speedup.median >= 1.1
    else:
        assert drop <= 3.0
    assert result.student.trainer.pipeline.linears
    assert not any(tmp_path.iterdir())


def test_an_error_is_predicted_by_its_effect_on_colours(teacher: Run, tmp_path: Path) -> None:
    """Noise on the units that the last layer reads changes the image by what the preview says."""
    if teacher.config.method_name != "nerfacto":
        pytest.skip("mipnerf's fine samples follow its coarse ones, which no derivative knows")
    conversion, noise = conversion_of(teacher, tmp_path), 1e-3
    name, reader = HIDDEN["nerfacto"][-1], "field.mlp_head.layers.2"
    model, part = teacher.model, conversion.parts["field"]
    metric, rows = part.metrics(conversion._colours())[name], 384 * 6  # rays times samples
    predicted = noise**2 * float(metric.square().sum()) * rows / 384

    def shake(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] + noise * torch.randn_like(inputs[0]),)

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        still = rendered_colours(model, ray_bundle(conversion.cameras, conversion.rays))[0]
        handle = model.get_submodule(reader).register_forward_pre_hook(shake)
        moved = [rendered_colours(model, ray_bundle(conversion.cameras, conversion.rays))[0] for _ in range(4)]
        handle.remove()
    changed = torch.stack([(each - still).double().square().sum(dim=1).mean() for each in moved]).mean()
    assert float(changed) == pytest.approx(predicted, rel=0.15)
    curve = conversion.preview().curves["field"][name]
    values = part.preview({name: metric}).curves[name] / 384
    torch.testing.assert_close(curve, values)


def test_budgets_leave_proposals_alone(teacher: Run, tmp_path: Path) -> None:
    if teacher.config.method_name != "nerfacto":
        pytest.skip("has no proposal networks")
    with pytest.raises(ConfigError, match=r"queries of the field run through; leave proposal_networks\.0.* out"):
        conversion_of(teacher, tmp_path, layers=("proposal_networks.*0",)).preview()
    random = ConversionConfig(recipe="random")
    with pytest.raises(ConfigError, match="take recipe rows, compensated or pruned, or give numbers"):
        conversion_of(teacher, tmp_path, conversion=random).preview()
    with pytest.raises(ConfigError, match="a budget for --recipe random needs fields that are graphs of layers"):
        convert_teacher(conversion_of(teacher, tmp_path, conversion=random), Budget("macs", 0.9))


def test_optimised_poses_are_used_and_kept(teacher: Run, tmp_path: Path) -> None:
    if teacher.config.method_name != "nerfacto":
        pytest.skip("optimises no poses")
    model = copy.deepcopy(teacher.model).eval()
    conversion = conversion_of(teacher, tmp_path, layers=("none",))
    rays = conversion.rays[:50]
    with torch.no_grad():
        model.camera_optimizer.pose_adjustment.zero_()
        model.camera_optimizer.pose_adjustment[:, 0] = 0.2
        moved = ray_bundle(conversion.cameras, rays)
        moved.origins = moved.origins + torch.tensor([0.2, 0.0, 0.0])
        expected = model(moved)["rgb"]
        torch.testing.assert_close(rendered_colours(model, ray_bundle(conversion.cameras, rays))[0], expected)
    run = SimpleNamespace(pipeline=teacher.pipeline)
    training, check = (Photographs(run, rays) for rays in (conversion.training_rays(), conversion.check_rays()))  # type: ignore[arg-type]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = calibrate(model, training, check, steps=12, batch=32)
    assert report.squared_error[1] < report.squared_error[0]
    after = model.state_dict()
    assert torch.equal(after["camera_optimizer.pose_adjustment"], before["camera_optimizer.pose_adjustment"])
    key = "field.mlp_head.layers.0.weight"
    assert not torch.equal(after[key], before[key])


def test_masked_pixels_are_no_photographs() -> None:
    mask = torch.ones(4, 6, 1, dtype=torch.bool)
    mask[1, 2] = False
    image = torch.rand(4, 6, 3)
    cameras = SimpleNamespace()

    class Views:
        def get_data(self, index: int, image_type: str) -> dict[str, Any]:
            return {"image": image, "mask": mask} if index == 0 else {"image": image}

    views = Views()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eugen_nerf.methods.runs.training_rays.training_views", lambda manager: views)
        views.cameras = cameras  # type: ignore[attr-defined]
        run: Any = SimpleNamespace(pipeline=SimpleNamespace(datamanager=None))
        found = Photographs(run, torch.tensor([[0, 1, 2], [0, 3, 5], [1, 1, 2]]))
        assert found.rays.tolist() == [[0, 3, 5], [1, 1, 2]]
        assert torch.equal(found.pixels, image[[3, 1], [5, 2]])
        with pytest.raises(RunError, match="no rays to compare with photographs"):
            Photographs(run, torch.tensor([[0, 1, 2]]))


def test_the_command_takes_a_budget_and_calibrates(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["eugen-distill", "--load-config", teacher.path, "--macs", 0.9, "--ray-fraction", 0.5, "--max-rays", 384]
    words += ["--device", "cpu", "--output-dir", tmp_path, "--timestamp", "t", "--finetune-steps", 2]
    words += ["--layers", *SOME[teacher.config.method_name]]
    monkeypatch.setattr(sys, "argv", [str(w) for w in words])
    monkeypatch.setattr(measure, "NUM_QUERIES", 256)  # how fast it is does not matter here
    cli.main()
    said = capfd.readouterr().out
    assert "what each budget would cost" in said
    assert "calibrated: 2 steps" in said
    (config,) = tmp_path.rglob("config.yml")
    record = json.loads((config.parent / "distill.json").read_text())
    assert record["budget"]["num_features"]["field"]
    assert (config.parent / "front.svg").is_file()
    assert record["calibration"]["squared_error"][1] <= record["calibration"]["squared_error"][0]
    student = load_run(config, device="cpu", test_mode="inference")
    assert query_macs(student.model) == record["budget"]["measured"]["multiply_adds"]
    monkeypatch.setattr(sys, "argv", [str(w) for w in [*words, "--bundle", tmp_path / "b", "--timestamp", "u"]])
    if teacher.config.method_name == "nerfacto":
        monkeypatch.setattr(fast_rendering, "CHECK_RAYS", 64)
        cli.main()
        assert isinstance(load_bundle(tmp_path / "b").rendered_scene().renderer, BundledProposals)
        return
    with pytest.raises(SystemExit):
        cli.main()
    assert "fields are no graphs of layers: bundles and pages are for" in capfd.readouterr().err


def test_neurons_of_modules_have_no_shares(teacher: Run) -> None:
    with pytest.raises(ConfigError, match=r"need a run of vanilla-nerf, dnerf or a method eugen-\*, not of "):
        open_teacher(teacher, DistillConfig(shares=(0.5,), ray_fraction=0.5))
