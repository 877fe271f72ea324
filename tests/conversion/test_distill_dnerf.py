"""Conversion of dynamic scenes: stock dnerf is copied exactly, the deformation goes first, fields can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.conversion.run_writer import write_run
from eugen_nerf.conversion.teachers import graph_teacher as module
from eugen_nerf.conversion.teachers.graph_runs import graph_model
from eugen_nerf.core import DenseLinear, EUGenLinear
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.methods.dnerf import EugenDNerfModel
from eugen_nerf.methods.runs.loading import Run, load_run
from eugen_nerf.methods.runs.training_rays import choose_rays

RAYS = {"ray_fraction": 1.0, "max_rays": 384}


@pytest.fixture(params=["stock", "dense"])
def run(request: pytest.FixtureRequest) -> Run:
    """A teacher: stock dnerf, then our dense twin."""
    return load(request.getfixturevalue(f"tiny_{request.param}_dnerf_run"))


def load(path: Path) -> Run:
    return load_run(path, device="cpu", test_mode="val")


def render(model: nn.Module, run: Run, view: int = 1) -> dict[str, Tensor]:
    """A validation view at time 1, `rgb` the fine one also where the model is stock."""
    cameras = run.pipeline.datamanager.eval_dataset.cameras[view : view + 1]
    assert cameras.times is not None
    assert cameras.times.item() == view
    return {k.removesuffix("_fine"): v for k, v in model.get_outputs_for_camera(cameras).items()}


def kinds(model: EugenDNerfModel) -> dict[str, set[str]]:
    """Names of the EUGen layers by field."""
    return {
        name: {n for n in field.network.names if isinstance(field.network.layer(n), EUGenLinear)}
        for name, field in model.graph_fields().items()
    }


def test_a_stock_run_is_copied_exactly(tiny_stock_dnerf_run: Path) -> None:
    run = load(tiny_stock_dnerf_run)
    assert list(run.config.pipeline.model.temporal_distortion_params) == ["kind"], "nerfstudio pops it while building"
    trainer, copied = graph_model(run)
    assert isinstance(copied, EugenDNerfModel)
    assert trainer.method_name == "eugen-dnerf"
    assert not copied.deformation.anchored
    for view in (0, 1):
        expected, found = render(run.model, run, view), render(copied, run, view)
        assert expected["rgb"].std() > 1e-4
        for key in ("rgb", "rgb_coarse", "accumulation", "depth"):
            torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5)
    # the very weights, in the order that they are used in
    stock = run.model.temporal_distortion.mlp_deform.layers
    ours = [copied.deformation.network.layer(name) for name in copied.deformation.network.names]
    assert len(stock) == len(ours)
    for theirs, layer in zip(stock, ours, strict=True):
        assert isinstance(layer, DenseLinear)
        assert torch.equal(layer.weight, theirs.weight)
        assert torch.equal(layer.bias, theirs.bias)
    assert graph_model(run)[1] is not copied, "and it can be done twice"


def test_every_row_kept_renders_as_the_teacher(tiny_dense_dnerf_run: Path) -> None:
    run = load(tiny_dense_dnerf_run)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    config = DistillConfig(layers=("trunk_[012]",), num_features=(24,), **RAYS)
    trainer, student, reports = convert_run(run, config)
    assert [report.name for report in reports] == ["deformation", "coarse", "fine"]
    for report in reports:
        network = student.graph_fields()[report.name].network
        assert report.running[1] == network.collapsed().count_numbers()
        assert report.multiply_adds[1] == network.multiply_adds()
        for side in (0, 1):
            assert sum(pair[side] for pair in report.shares.values()) == report.multiply_adds[side]
    expected, found = render(run.model, run), render(student, run)
    for key in ("rgb", "rgb_coarse", "accumulation", "depth"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-3)
    assert set(map(frozenset, kinds(student).values())) == {frozenset({"trunk_0", "trunk_1", "trunk_2"})}
    settings = trainer.pipeline.model
    assert settings.variant == "eugen"
    assert settings.network.layers == settings.deformation.layers == ("trunk_0", "trunk_1", "trunk_2")
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())


def test_fields_not_chosen_stay_as_they_are(run: Run, tmp_path: Path) -> None:
    _, teacher = graph_model(run)
    config = DistillConfig(fields=("deformation",), layers=("trunk_[12]",), num_features=(9,), **RAYS)
    trainer, student, reports = convert_run(run, config)
    assert [report.name for report in reports] == ["deformation"]
    assert kinds(student) == {"deformation": {"trunk_1", "trunk_2"}, "coarse": set(), "fine": set()}
    before, after = teacher.state_dict(), student.state_dict()
    canonical = [key for key in before if key.startswith("field_")]
    assert canonical
    assert all(torch.equal(before[key], after[key]) for key in canonical)
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    again = load(write_run(trainer, student, run.step, reports))
    in_memory, from_disk = render(student, run), render(again.model, again)
    assert all(torch.equal(in_memory[key], from_disk[key]) for key in from_disk)
    assert 0 < (from_disk["rgb"] - render(run.model, run)["rgb"]).abs().max() < 0.2


def test_then_the_other_fields_of_the_student(tiny_dense_dnerf_run: Path, tmp_path: Path) -> None:
    """The first conversion leaves a hybrid; converting its canonical fields keeps the deformation."""
    run = load(tiny_dense_dnerf_run)
    trainer, first, reports = convert_run(run, DistillConfig(fields=("deformation",), num_features=(9,), **RAYS))
    trainer.output_dir, trainer.experiment_name, trainer.timestamp = tmp_path, "converted", "now"
    again = load(write_run(trainer, first, run.step, reports))
    config = DistillConfig(fields=("coarse", "fine"), layers=("trunk_[12]",), num_features=(8,), **RAYS)
    _, second, _ = convert_run(again, config)
    found = kinds(second)
    assert found["coarse"] == found["fine"] == {"trunk_1", "trunk_2"}
    assert found["deformation"] == {f"trunk_{i}" for i in range(4)}
    before, after = first.state_dict(), second.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("deformation."))
    with pytest.raises(ConfigError, match="replace no layer: name those to convert with --layers"):
        convert_run(again, DistillConfig(fields=("coarse", "fine"), **RAYS))


def test_canonical_fields_are_sampled_behind_the_converted_deformation(
    tiny_dense_dnerf_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load(tiny_dense_dnerf_run)
    sampled: dict[str, tuple] = {}
    original: Callable = module.network_inputs

    def spy(model, cameras, rays, name):
        batches = original(model, cameras, rays, name)
        sampled[name] = (model, next(batches()))
        return batches

    monkeypatch.setattr(module, "network_inputs", spy)
    _, student, _ = convert_run(run, DistillConfig(layers=("trunk_[12]",), num_features=(6,), **RAYS))
    teacher = run.model
    assert sampled["deformation"][0] is teacher
    for name in ("coarse", "fine"):
        model, batch = sampled[name]
        assert kinds(model) == {"deformation": {"trunk_1", "trunk_2"}, "coarse": set(), "fine": set()}
        samples = model.deformation.network.state_dict()
        assert all(torch.equal(value, samples[k]) for k, value in student.deformation.network.state_dict().items())
        assert torch.isfinite(batch.inputs[0]).all()
    with_teacher = next(original(teacher, *_rays(run), "coarse")()).inputs[0]
    assert not torch.equal(sampled["coarse"][1].inputs[0], with_teacher)


def _rays(run: Run):
    cameras = run.pipeline.datamanager.train_dataset.cameras
    return cameras, choose_rays(cameras, 1.0, 384, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("fine",), "fine and coarse share their settings: choose both"),
        (("canonical",), "field pattern 'canonical' matches no field; there are: deformation, coarse, fine"),
    ],
)
def test_fields_that_cannot_be_chosen(fields: tuple[str, ...], message: str, tiny_dense_dnerf_run: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_run(load(tiny_dense_dnerf_run), DistillConfig(fields=fields, **RAYS))


def test_a_pattern_has_to_match_in_one_of_the_fields(tiny_dense_dnerf_run: Path) -> None:
    run = load(tiny_dense_dnerf_run)
    _, student, reports = convert_run(run, DistillConfig(layers=("head_0",), num_features=(7,), **RAYS))
    assert kinds(student) == {"deformation": set(), "coarse": {"head_0"}, "fine": {"head_0"}}
    assert [report.name for report in reports] == ["coarse", "fine"]
    with pytest.raises(ConfigError, match="layer pattern 'trunk_7' matches no layer"):
        convert_run(run, DistillConfig(layers=("head_0", "trunk_7"), **RAYS))
