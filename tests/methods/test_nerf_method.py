"""eugen-nerf in nerfstudio: every preset and variant trains, saves and comes back; the real commands take the runs."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import changed_copy, command, needs_numpy_scalars, optimizer_steps, train_words, viewer_page
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import TrainerConfig
from PIL import Image
from tiny_runs import render

from eugen_nerf.core import DenseLinear, EUGenLinear, LowRankLinear, MonarchLinear, SNNKLinear
from eugen_nerf.core.errors import DataError, RunError
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.core.training.merged import MergedLayer
from eugen_nerf.methods.runs import image_metrics as metrics
from eugen_nerf.methods.runs.loading import load_run

PRESETS = ("eugen-nerf", "eugen-nerf-paper", "eugen-nerf-small")
OTHERS = (
    *(f"eugen-{name}{size}" for name in ("mipnerf360", "zipnerf") for size in ("", "-paper", "-small")),
    *(f"eugen-dnerf{kind}{size}" for kind in ("", "-hash") for size in ("", "-small")),
    *(f"eugen-{name}{size}" for name in ("ngp", "isdf") for size in ("", "-small")),
)
REPLACED = {
    "eugen-nerf": {f"trunk_{i}" for i in range(8)},
    "eugen-nerf-paper": {"trunk_5", "trunk_6", "trunk_7"},
    "eugen-nerf-small": {f"trunk_{i}" for i in range(4)},
}
KINDS = {
    "eugen": EUGenLinear,
    "lowrank": LowRankLinear,
    "snnk": SNNKLinear,
    "dense": DenseLinear,
    "narrow": DenseLinear,
    "monarch": MonarchLinear,
    "shallow": DenseLinear,
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", PRESETS)
def test_train_save_and_reload(method: str, variant: str, train_tiny: Callable) -> None:
    path, trainer = train_tiny(method=method, variant=variant)
    trained = trainer.pipeline.model
    for field in (trained.field_coarse, trained.field_fine):
        found = {name for name in field.network.names if not isinstance(field.network.layer(name), DenseLinear)}
        assert found == (REPLACED[method] if variant in ("eugen", "lowrank", "snnk", "monarch") else set())
        merged = variant == "eugen" and trainer.pipeline.model.config.network.train_merged
        kind = MergedLayer if merged else KINDS[variant]
        assert all(type(field.network.layer(name)) is kind for name in REPLACED[method] & {*field.network.names})
    run = load_run(path, device="cpu", test_mode="val")
    outputs, expected = render(run.model, run.pipeline), render(trained, trainer.pipeline)
    assert outputs.keys() == expected.keys() >= {"rgb", "depth", "accumulation"}
    for key, channels in {"rgb": 3, "depth": 1, "accumulation": 1}.items():
        for name in (key, f"{key}_coarse"):
            assert outputs[name].shape == (16, 16, channels)
            assert torch.isfinite(outputs[name]).all()
    assert outputs["rgb"].std() > 1e-4
    assert outputs["depth"].min() > 0  # nerfstudio moves the near plane to 0 in evaluation
    assert outputs["depth"].max() <= 6
    assert all(torch.equal(outputs[key], expected[key]) for key in outputs)
    assert not [key for key in run.pipeline.state_dict() if "lpips" in key]


def test_training_changes_every_layer(train_tiny: Callable) -> None:
    _, trainer = train_tiny(method="eugen-nerf-paper")
    fresh = trainer.config.pipeline.model.setup(
        scene_box=trainer.pipeline.model.scene_box, num_train_data=4
    ).state_dict()
    # projections are drawn from their own seed, so a difference is training's
    after = trainer.pipeline.model.state_dict()
    for name in ("projection", "projection_bias", "projection_norm"):
        key = f"field_fine.network.layers.trunk_6.{name}"
        assert not torch.equal(after[key], fresh[key]), name
        assert (after[key] - fresh[key]).abs().max() < 0.02, "two steps of Adam from the seeded start"


def test_hull_is_carved_once_and_comes_back(train_tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    path, trainer = train_tiny(variant="eugen", occupancy="hull", occupancy_resolution=48)
    cells = trainer.pipeline.model.occupancy.cells
    assert 0 < cells.float().mean() < 0.9
    run = load_run(path, device="cpu", test_mode="val")
    assert torch.equal(run.model.occupancy.cells, cells)
    outputs, expected = render(run.model, run.pipeline), render(trainer.pipeline.model, trainer.pipeline)
    assert all(torch.equal(outputs[key], expected[key]) for key in outputs)
    monkeypatch.setattr("eugen_nerf.methods.training.hull_carving.carve", lambda *_: pytest.fail("carved again"))
    for callback in trainer.callbacks:
        callback.run_callback_at_location(2, location=callback.where_to_run[0])
    run.model.occupancy.cells.zero_()
    empty = render(run.model, run.pipeline)
    assert empty["accumulation"].max() == 0
    assert torch.equal(empty["rgb"], torch.ones(16, 16, 3)), "nothing but the white background"


@pytest.mark.parametrize("side", [8, 16, 32])
def test_image_metrics_need_no_download(
    side: int, tiny_eugen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics._cached_lpips.cache_clear()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download was tried"))
    model = load_run(tiny_eugen_run, device="cpu").model
    generator = torch.Generator().manual_seed(0)
    outputs = {
        "rgb": torch.rand(side, side, 3, generator=generator),
        "accumulation": torch.rand(side, side, 1, generator=generator),
        "depth": 2 + torch.rand(side, side, 1, generator=generator),
    }
    truth = torch.rand(side, side, 4, generator=generator)
    found, images = model.get_image_metrics_and_images(outputs, {"image": truth})
    metrics._cached_lpips.cache_clear()
    assert set(found) == ({"psnr"} if side < 11 else {"psnr", "ssim"})
    # RGBA on white, both rounded to 8 bits
    on_white = truth[..., :3] * truth[..., 3:] + 1 - truth[..., 3:]
    a, b = (np.floor(image.double().numpy() * 255 + 0.5) / 255 for image in (outputs["rgb"], on_white))
    assert found["psnr"] == pytest.approx(-10 * np.log10(((a - b) ** 2).mean()), abs=1e-3)
    assert images["img"].shape == (side, 2 * side, 3)
    torch.testing.assert_close(images["img"][:, side:], outputs["rgb"])
    assert images["depth"].shape == images["accumulation"].shape == (side, side, 3)


@pytest.mark.parametrize("method", PRESETS)
def test_optimizers_are_those_of_the_parameter_groups(method: str) -> None:
    config = copy.deepcopy(all_methods[method])
    model = config.pipeline.model.setup(scene_box=_box(), num_train_data=1)
    groups = model.get_param_groups()
    assert set(groups) == set(config.optimizers)
    listed = [id(p) for group in groups.values() for p in group]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for name, p in model.named_parameters() if name != "device_indicator_param"}
    assert set(Optimizers(config.optimizers.copy(), groups).optimizers) == set(groups)


def test_a_configuration_from_before_specs_loads(tiny_eugen_run: Path, tmp_path: Path) -> None:
    """Runs outlive the code that wrote them: what their config.yml does not say takes its default."""
    path = changed_copy(tiny_eugen_run, tmp_path, lambda config: vars(config.pipeline.model.network).pop("specs"))
    assert "specs" not in path.read_text()
    old, new = (load_run(p, device="cpu", test_mode="val") for p in (path, tiny_eugen_run))
    assert torch.equal(render(old.model, old.pipeline)["rgb"], render(new.model, new.pipeline)["rgb"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_can_be_built_twice(variant: str, tiny_blender: Path) -> None:
    config = copy.deepcopy(all_methods["eugen-nerf-small"]).pipeline
    # nerfstudio's data manager itself copies the one into the other
    config.datamanager.data, config.datamanager.dataparser.data = tiny_blender, Path(tiny_blender)
    config.model.variant = variant
    before = repr(config)
    keys = []
    for _ in range(2):
        keys.append(config.setup(device="cpu", test_mode="inference").state_dict().keys())
    assert keys[0] == keys[1]
    assert repr(config) == before


def test_keys_names_and_entry_points_agree() -> None:
    ours = {e.name: e for e in entry_points(group="nerfstudio.method_configs") if e.value.startswith("eugen_nerf.")}
    assert set(ours) == {*PRESETS, *OTHERS}
    for name, entry in ours.items():
        specification = entry.load()
        assert specification.config.method_name == name
        assert specification.description
        assert all_methods[name].method_name == name
        assert isinstance(all_methods[name], TrainerConfig)
        assert all_methods[name].viewer.websocket_host == "127.0.0.1"


def test_a_broken_image_is_refused_before_anything_is_written(
    tiny_blender: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = Path(shutil.copytree(tiny_blender, tmp_path / "data"))
    image = data / "train" / "r_2.png"
    image.write_bytes(image.read_bytes()[:60])
    config = copy.deepcopy(all_methods["eugen-nerf-small"])
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "out", "tiny", "now"
    config.machine.device_type, config.vis = "cpu", "tensorboard"
    config.pipeline.datamanager.data = data
    with pytest.raises(DataError, match=r"train/r_2\.png"):
        config.setup(local_rank=0, world_size=1).setup()
    assert not list((tmp_path / "out").rglob("*.ckpt"))


def test_a_hull_without_alpha_is_refused_at_the_first_step(tiny_blender: Path, tmp_path: Path) -> None:
    """The data set's images as RGB: the whole way from PNG to the message."""
    data = Path(shutil.copytree(tiny_blender, tmp_path / "data"))
    for image in data.rglob("*.png"):
        Image.open(image).convert("RGB").save(image)
    config = copy.deepcopy(all_methods["eugen-nerf-small"])
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "out", "tiny", "now"
    config.machine.device_type, config.vis = "cpu", "tensorboard"
    config.pipeline.datamanager.data = data
    config.pipeline.model.occupancy = "hull"
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    with pytest.raises(DataError, match=r"r_0\.png has no alpha channel"):
        trainer.train()


def test_another_number_of_features_is_refused_by_name_and_shape(tiny_eugen_run: Path, tmp_path: Path) -> None:
    """By nerfstudio's own loading too, which would go on with random weights."""
    path = _with_fewer_features(tiny_eugen_run, tmp_path)
    with pytest.raises(RunError, match=r"another architecture.*field_coarse\.network\.layers\.trunk_0\.weight"):
        load_run(path, device="cpu")
    config = yaml.load(path.read_text(), Loader=yaml.Loader)
    pipeline = config.pipeline.setup(device="cpu", test_mode="inference")
    state = torch.load(next(path.parent.rglob("*.ckpt")), weights_only=True)
    with pytest.raises(RunError) as caught:
        pipeline.load_pipeline(state["pipeline"], state["step"])
    message = str(caught.value)
    assert "\n" not in message
    assert "field_coarse.network.layers.trunk_0.weight ([12, 27] in the checkpoint, [5, 27] in the model)" in message
    assert "load it with the settings it was trained with" in message


# From here on, the commands as they are typed.


SHRINK: dict[str, object] = {
    "network.trunk-width": 16,
    "network.head-width": 8,
    "network.num-features": 6,
    "num-coarse-samples": 6,
    "num-importance-samples": 6,
    "occupancy-resolution": 32,
}


def words_of(output: Path, timestamp: str) -> list[object]:
    return train_words("eugen-nerf-small", output, timestamp, SHRINK)


@pytest.fixture(scope="module")
def shell_run(tiny_blender: Path, tmp_path_factory: pytest.TempPathFactory, offline: dict[str, str]) -> Path:
    """The config.yml of a run that ``ns-train`` made from the command line."""
    output = tmp_path_factory.mktemp("shell")
    command(offline, *words_of(output, "first"), "blender-data", "--data", tiny_blender)
    path = output / "shell" / "eugen-nerf-small" / "first" / "config.yml"
    assert path.is_file()
    assert not list(Path(offline["TORCH_HOME"]).iterdir()), "something was downloaded"
    return path


def test_ns_train_resumes(shell_run: Path, tiny_blender: Path, offline: dict[str, str]) -> None:
    words = words_of(shell_run.parents[3], "second")
    before = shell_run.parent / "nerfstudio_models"
    assert needs_numpy_scalars(next(before.iterdir())), "resuming would not prove that the plugin allows them"
    command(offline, *words, "--load-dir", before, "blender-data", "--data", tiny_blender)
    after = shell_run.parents[1] / "second" / "nerfstudio_models"
    assert [file.name for file in after.iterdir()] == ["step-000000003.ckpt"]
    first, second = (torch.load(next(folder.iterdir()), weights_only=True) for folder in (before, after))
    assert [optimizer_steps(state, "fields") for state in (first, second)] == [{2}, {4}]
    key = "_model.field_fine.network.layers.trunk_1.weight"
    change = (first["pipeline"][key] - second["pipeline"][key]).abs().max()
    assert 0 < change < 0.02, "two steps on from the old weights, not from random ones"


def test_ns_eval(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    command(offline, "ns-eval", "--load-config", shell_run, "--output-path", tmp_path / "eval.json")
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    run = load_run(shell_run, device="cpu")
    values = []
    for view in range(3):
        truth = run.pipeline.datamanager.eval_dataset[view]["image"]
        found, _ = run.model.get_image_metrics_and_images(render(run.model, run.pipeline, view), {"image": truth})
        values.append(found)
    assert results["psnr"] == pytest.approx(np.mean([v["psnr"] for v in values]), abs=1e-2)
    assert results["ssim"] == pytest.approx(np.mean([v["ssim"] for v in values]), abs=1e-3)
    assert "lpips" not in results


def test_ns_render(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    words = ["ns-render", "interpolate", "--load-config", shell_run, "--output-path", tmp_path / "frames"]
    words += ["--output-format", "images", "--image-format", "png", "--interpolation-steps", 2]
    command(offline, *words, "--pose-source", "eval", "--rendered-output-names", "rgb", "depth", "accumulation")
    assert shell_run.with_name("renderer.safetensors").is_file()
    images = sorted((tmp_path / "frames").glob("*.png"))
    assert len(images) == 4, "two frames between each of three views"
    for image in images:
        pixels = np.asarray(Image.open(image))
        assert pixels.shape == (16, 48, 3)
        assert pixels.std() > 0


def test_ns_export_pointcloud(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    words = ["ns-export", "pointcloud", "--load-config", shell_run, "--output-dir", tmp_path]
    command(offline, *words, "--normal-method", "open3d", "--num-points", 200, "--num-rays-per-batch", 128)
    head, _, _ = (tmp_path / "point_cloud.ply").read_bytes().partition(b"end_header")
    count = int(head.split(b"element vertex ")[1].split()[0])
    assert 100 < count <= 400
    assert b"property double nx" in head or b"property float nx" in head


def test_ns_viewer_answers(shell_run: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    exact = {**offline, "EUGEN_EXACT": "1"}
    assert b"<html" in viewer_page(shell_run, exact, tmp_path).lower(), (tmp_path / "errors").read_text()[-3000:]


def test_a_wrong_checkpoint_ends_a_command_in_one_line(
    shell_run: Path, tmp_path: Path, offline: dict[str, str]
) -> None:
    path = _with_fewer_features(shell_run, tmp_path)
    words = ["ns-eval", "--load-config", path, "--output-path", tmp_path / "eval.json"]
    # in a process of its own: who prints errors is decided by the command's name when the methods are imported
    done = subprocess.run([str(w) for w in words], env=offline, capture_output=True, text=True, timeout=240)
    assert done.returncode not in (0, None)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the checkpoint is of another architecture: ")
    assert "trunk_1.weight ([6, 6] in the checkpoint, [5, 5] in the model)" in last
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "eval.json").exists()


def _with_fewer_features(path: Path, folder: Path) -> Path:
    """A copy of a run whose config says 5 features."""

    def narrow(config: TrainerConfig) -> None:
        config.pipeline.model.network.num_features = (5,)

    return changed_copy(path, folder, narrow)


def _box():
    from nerfstudio.data.scene_box import SceneBox

    return SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))
