"""Runs whose EUGen layers are trained merged: saved, loaded, converted further, and no run of before is touched."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import render

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.convert_run import convert_run
from eugen_nerf.core import EUGenLinear
from eugen_nerf.core.training.merged import MergedLayer
from eugen_nerf.methods.runs.loading import load_run


def kinds(model: torch.nn.Module) -> set[type]:
    return {type(m) for m in model.modules() if isinstance(m, EUGenLinear | MergedLayer)}


@pytest.mark.parametrize(
    ("fixture", "settings"),
    [
        ("train_tiny", {"network__train_merged": True}),
        ("train_tiny", {"network__train_merged": True, "network__degree": 2, "network__phi": "identity"}),
        ("train_tiny_dnerf", {"network__train_merged": True, "deformation__train_merged": True}),
        ("train_tiny_unbounded", {"method": "eugen-mipnerf360-small", "network__train_merged": True}),
        ("train_tiny_unbounded", {"method": "eugen-zipnerf-small", "network__train_merged": True}),
    ],
)
def test_a_run_trained_merged_renders_the_same_once_loaded(
    fixture: str, settings: dict[str, object], request: pytest.FixtureRequest
) -> None:
    path, trainer = request.getfixturevalue(fixture)(**settings)
    assert kinds(trainer.pipeline.model) == {MergedLayer}
    run = load_run(path, device="cpu", test_mode="val")
    before, after = render(trainer.pipeline.model, trainer.pipeline), render(run.model, run.pipeline)
    assert torch.equal(before["rgb"], after["rgb"])


def test_dense_twins_and_runs_of_before_the_setting_are_as_they_were(train_tiny: Callable, tmp_path: Path) -> None:
    run, _ = train_tiny(network__train_merged=False)
    config = yaml.load(run.read_text(), Loader=yaml.Loader)
    assert "train_merged" in vars(config.pipeline.model.network)
    del config.pipeline.model.network.train_merged, config.pipeline.model.network.dense_start
    copy = tmp_path / "config.yml"
    copy.write_text(yaml.dump(config))
    (tmp_path / "nerfstudio_models").symlink_to(run.parent / "nerfstudio_models")
    old, new = load_run(copy, device="cpu", test_mode="val"), load_run(run, device="cpu", test_mode="val")
    assert kinds(old.model) == {EUGenLinear}
    assert torch.equal(render(old.model, old.pipeline)["rgb"], render(new.model, new.pipeline)["rgb"])


def test_layers_that_are_still_dense_are_converted_and_merged_with_the_rest(train_tiny: Callable) -> None:
    """With every row kept, an image stays what it was."""
    path, _ = train_tiny(network__train_merged=True)
    run = load_run(path, device="cpu", test_mode="val")
    head = run.model.field_fine.network.layer("head_0")
    trainer, student, _ = convert_run(run, DistillConfig(("head_0",), (head.out_features,), ray_fraction=0.5))
    assert trainer.pipeline.model.network.train_merged
    assert type(student.field_fine.network.layer("head_0")) is MergedLayer
    torch.testing.assert_close(
        render(student, run.pipeline)["rgb"], render(run.model, run.pipeline)["rgb"], rtol=1e-3, atol=1e-3
    )


def test_a_dense_run_is_converted_to_layers_of_its_own_even_if_its_settings_say_merged(train_tiny: Callable) -> None:
    path, _ = train_tiny(variant="dense", network__train_merged=True)
    run = load_run(path, device="cpu", test_mode="val")
    trainer, student, _ = convert_run(run, DistillConfig(("trunk_1",), (8,), ray_fraction=0.5))
    assert not trainer.pipeline.model.network.train_merged
    assert type(student.field_fine.network.layer("trunk_1")) is EUGenLinear
