"""Loading runs: stock and moved ones, LPIPS tensors left out, and one clear line for everything that can be wrong."""

import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from torch import nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.loading import checkpoint_dir, fine_field, load_run, without_lpips


@pytest.fixture
def moved_run(tiny_stock_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run in another place, whose files a test may damage."""
    return Path(shutil.copytree(tiny_stock_run.parent, tmp_path / "elsewhere")) / "config.yml"


def checkpoint_of(config: Path) -> Path:
    return next(checkpoint_dir(config).glob("step-*.ckpt"))


def edit_checkpoint(config: Path, edit) -> None:
    path = checkpoint_of(config)
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


def edit_config(config: Path, edit) -> None:
    content = yaml.load(config.read_text(), Loader=yaml.Loader)
    edit(content)
    config.write_text(yaml.dump(content))


def test_stock_run_loads_with_its_weights(tiny_stock_run: Path) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    saved = torch.load(checkpoint_of(tiny_stock_run), weights_only=True)["pipeline"]
    assert run.step == 1
    assert run.checkpoint == checkpoint_of(tiny_stock_run)
    assert not run.pipeline.training
    own = run.pipeline.state_dict()
    assert own.keys() == saved.keys()
    assert all(torch.equal(own[key], saved[key]) for key in own)


def test_moved_run_loads_from_beside_its_config(moved_run: Path) -> None:
    edit_config(moved_run, lambda config: setattr(config, "output_dir", Path("/nonexistent")))
    run = load_run(moved_run, device="cpu")
    assert run.checkpoint.parent == moved_run.parent / "nerfstudio_models"


def test_latest_step_wins_and_other_files_are_ignored(moved_run: Path) -> None:
    newer = checkpoint_dir(moved_run) / "step-000000012.ckpt"
    shutil.copy(checkpoint_of(moved_run), newer)
    (checkpoint_dir(moved_run) / "step-000000099.ckpt.77.tmp").write_bytes(b"half")
    assert load_run(moved_run, device="cpu").checkpoint == newer


def test_lpips_tensors_are_ignored(moved_run: Path) -> None:
    edit_checkpoint(moved_run, lambda state: state["pipeline"].update({"_model.lpips.net.lin0": torch.zeros(3)}))
    load_run(moved_run, device="cpu")


def test_checkpoint_of_several_gpus_loads(moved_run: Path) -> None:
    def as_ddp(state):
        state["pipeline"] = {
            key.replace("_model.", "_model.module."): value for key, value in state["pipeline"].items()
        }

    edit_checkpoint(moved_run, as_ddp)
    load_run(moved_run, device="cpu")


def test_other_architecture_names_three_tensors_and_the_count(moved_run: Path) -> None:
    def damage(state):
        weights = state["pipeline"]
        del weights["_model.field_coarse.mlp_base.layers.0.weight"]
        weights["_model.extra"] = torch.zeros(2)
        weights["_model.another"] = torch.zeros(2)
        weights["_model.field_fine.mlp_base.layers.1.bias"] = torch.zeros(7)

    edit_checkpoint(moved_run, damage)
    with pytest.raises(RunError) as caught:
        load_run(moved_run, device="cpu")
    text = str(caught.value)
    assert "is of another architecture: 4 tensors differ" in text
    assert "field_coarse.mlp_base.layers.0.weight (missing)" in text
    assert "extra (unexpected)" in text
    assert ", ...; load it with" in text
    assert "\n" not in text


def test_other_shape_and_stray_pipeline_tensors_are_named(moved_run: Path) -> None:
    key = "_model.field_fine.mlp_base.layers.1.bias"
    edit_checkpoint(moved_run, lambda state: state["pipeline"].update({key: torch.zeros(7)}))
    with pytest.raises(RunError, match=r"layers.1.bias \(\[7\] in the checkpoint, \[256\] in the model\)"):
        load_run(moved_run, device="cpu")
    edit_checkpoint(
        moved_run, lambda state: state["pipeline"].update({key: torch.zeros(256), "datamanager.pose": torch.zeros(1)})
    )
    with pytest.raises(RunError, match=r"datamanager.pose \(unexpected\)"):
        load_run(moved_run, device="cpu")


def test_missing_config_and_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run at"):
        load_run(tmp_path / "config.yml")
    with pytest.raises(RunError, match="is a folder"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "text", ["!!python/object:dict [1,", "!!python/object:absent_module.Config {}", "\x00 !!python/object:dict"]
)
@pytest.mark.parametrize("trust", [False, True])
def test_invalid_yaml(tmp_path: Path, text: str, trust: bool) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(RunError, match=r"not a configuration that can be read|refused: it names absent") as caught:
        load_run(tmp_path / "config.yml", trust_config=trust)
    assert "\n" not in str(caught.value)


def test_yaml_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("a: 1")
    with pytest.raises(RunError, match="is no configuration of a run: give the path"):
        load_run(tmp_path / "config.yml")
    (tmp_path / "config.yml").write_text("!!python/object/apply:pathlib.PosixPath [a]")
    with pytest.raises(RunError, match="holds a PosixPath, not a nerfstudio TrainerConfig"):
        load_run(tmp_path / "config.yml")


def test_no_checkpoint(moved_run: Path) -> None:
    checkpoint_of(moved_run).unlink()
    with pytest.raises(RunError, match="no checkpoint"):
        load_run(moved_run)
    checkpoint_dir(moved_run).rmdir()
    with pytest.raises(RunError, match="no checkpoint"):
        load_run(moved_run)


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_truncated_checkpoint(moved_run: Path, kept: int) -> None:
    path = checkpoint_of(moved_run)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match="cannot be read") as caught:
        load_run(moved_run)
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_program(moved_run: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, checkpoint_of(moved_run))
    with pytest.raises(RunError, match="is not a nerfstudio checkpoint"):
        load_run(moved_run)


def test_data_gone_then_named_again(moved_run: Path, tiny_blender: Path) -> None:
    def lose(config):
        config.pipeline.datamanager.data = Path("relative/gone")

    edit_config(moved_run, lose)
    with pytest.raises(RunError, match=r"relative/gone \(a relative path.*--data"):
        load_run(moved_run)
    run = load_run(moved_run, device="cpu", data=tiny_blender)
    assert run.config.pipeline.datamanager.data == tiny_blender


def test_data_set_in_the_dataparser_is_found_missing(moved_run: Path) -> None:
    def lose(config):
        config.pipeline.datamanager.data = None
        config.pipeline.datamanager.dataparser.data = Path("/gone/for/good")

    edit_config(moved_run, lose)
    with pytest.raises(RunError, match=r"/gone/for/good does not exist"):
        load_run(moved_run)


def test_broken_data_is_one_line(moved_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"cannot set up the run with the data at .*empty"):
        load_run(moved_run, device="cpu", data=tmp_path / "empty")


def test_shared_method_configs_are_not_touched(tiny_stock_run: Path) -> None:
    before = yaml.dump(deepcopy(all_methods["vanilla-nerf"]))
    load_run(tiny_stock_run, device="cpu")
    assert yaml.dump(all_methods["vanilla-nerf"]) == before


def test_config_of_a_run_builds_again(moved_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-NeRF's model pops a key from its config: the pipeline gets a copy, and the run's own config keeps the key."""
    edit_config(moved_run, lambda config: setattr(config.pipeline.model, "enable_temporal_distortion", True))
    # the checkpoint is static
    monkeypatch.setattr("eugen_nerf.methods.runs.loading.load_weights", lambda *_, **__: None)
    run = load_run(moved_run, device="cpu")
    assert "kind" in run.config.pipeline.model.temporal_distortion_params
    assert "kind" not in run.pipeline.config.model.temporal_distortion_params


def test_lpips_is_built_without_network_only_inside() -> None:
    original = LearnedPerceptualImagePatchSimilarity.__init__
    with without_lpips():
        metric = LearnedPerceptualImagePatchSimilarity(normalize=True)
    assert LearnedPerceptualImagePatchSimilarity.__init__ is original
    assert not metric.state_dict()
    with pytest.raises(RunError, match="carries no LPIPS"):
        metric(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_fine_field(tiny_stock_run: Path) -> None:
    run = load_run(tiny_stock_run, device="cpu")
    assert fine_field(run.model) is run.model.field_fine
    single = nn.Module()
    single.field = nn.Linear(1, 1)
    assert fine_field(single) is single.field
    with pytest.raises(RunError, match="has no field"):
        fine_field(nn.Module())
