"""eugen-dnerf in nerfstudio: presets come back, time 0 is the canonical scene, the background is the data's."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from commands import command, train_words
from nerfstudio.cameras.camera_paths import get_spiral_path
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from PIL import Image
from tiny_runs import render, shrink_dnerf

from eugen_nerf.core import DenseLinear
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.methods.dnerf import EugenDNerfModel, EugenDNerfModelConfig
from eugen_nerf.methods.nerf import EugenNerfModel, EugenNerfModelConfig
from eugen_nerf.methods.runs.loading import load_run

PRESETS = ("eugen-dnerf", "eugen-dnerf-small", "eugen-dnerf-hash", "eugen-dnerf-hash-small")
BOX = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))


def make_config(preset: str = "eugen-dnerf-small", **changes) -> EugenDNerfModelConfig:
    config = copy.deepcopy(all_methods[preset].pipeline.model)
    shrink_dnerf(config)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def make_model(config: EugenNerfModelConfig, **metadata) -> EugenNerfModel:
    torch.manual_seed(0)
    return config.setup(scene_box=BOX, num_train_data=1, metadata=metadata).eval()


def make_rays(time: float | None, count: int = 9) -> RayBundle:
    generator = torch.Generator().manual_seed(0)
    origins = 4 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return RayBundle(
        origins=origins,
        directions=torch.nn.functional.normalize(0.2 * torch.randn(count, 3, generator=generator) - origins, dim=-1),
        pixel_area=torch.full((count, 1), 1e-4),
        camera_indices=torch.zeros(count, 1, dtype=torch.long),
        times=None if time is None else torch.full((count, 1), time),
    )


def replaced_layers(model: EugenDNerfModel) -> dict[str, list[str]]:
    return {
        name: [n for n in field.network.names if not isinstance(field.network.layer(n), DenseLinear)]
        for name, field in model.graph_fields().items()
    }


def expected_to_replace(method: str, found: dict[str, list[str]]) -> bool:
    """EUGen layers in every network; where the canonical field is a hash grid, in the deformation alone."""
    hybrid = method.startswith("eugen-dnerf-hash")
    return all(bool(layers) == (name == "deformation" or not hybrid) for name, layers in found.items())


@pytest.mark.parametrize("method", PRESETS)
def test_train_save_and_reload(method: str, train_tiny_dnerf: Callable) -> None:
    path, trainer = train_tiny_dnerf(method=method)
    run = load_run(path, device="cpu", test_mode="val")
    outputs, expected = render(run.model, run.pipeline, 1), render(trainer.pipeline.model, trainer.pipeline, 1)
    assert all(torch.equal(outputs[key], expected[key]) for key in expected)
    for key, channels in {"rgb": 3, "depth": 1, "accumulation": 1}.items():
        assert outputs[key].shape == outputs[f"{key}_coarse"].shape == (16, 16, channels)
    assert torch.isfinite(outputs["rgb"]).all()
    assert run.pipeline.datamanager.includes_time, "or ns-viewer shows no time slider"
    found = replaced_layers(run.model)
    assert list(found) == ["deformation", "coarse", "fine"], "the order a ray meets them"
    assert expected_to_replace(method, found)
    moved = {n for n, p in trainer.pipeline.model.deformation.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved, "no gradient reaches the deformation"


@pytest.mark.parametrize("method", PRESETS)
def test_one_flag_rules_all_networks(method: str) -> None:
    dense = make_model(make_config(method, variant="dense"))
    assert not any(replaced_layers(dense).values())  # type: ignore[arg-type]
    eugen = make_model(make_config(method))
    assert expected_to_replace(method, replaced_layers(eugen))  # type: ignore[arg-type]
    ratio = dense.query_module().macs_per_query() / eugen.query_module().macs_per_query()  # type: ignore[operator]
    assert ratio > 1


@pytest.mark.parametrize("method", PRESETS)
def test_replaced_layers_start_with_the_variance_of_dense_ones(method: str) -> None:
    model = copy.deepcopy(all_methods[method].pipeline.model).setup(scene_box=BOX, num_train_data=1, metadata={})
    for name, names in replaced_layers(model).items():
        for layer in (model.graph_fields()[name].network.layer(n) for n in names):
            assert float(layer.projection.detach().std()) == pytest.approx((3 * layer.in_features) ** -0.5, rel=0.06)


@pytest.mark.parametrize("words", [["none"], []])
def test_either_network_can_stay_dense(words: list[str]) -> None:
    config = make_config()
    for part, kept in (("network", ("coarse", "fine")), ("deformation", ("deformation",))):
        args = [f"--{part}.layers", *words]
        model = make_model(tyro.cli(EugenDNerfModelConfig, args=args, default=copy.deepcopy(config)))
        for name, layers in replaced_layers(model).items():  # type: ignore[arg-type]
            assert bool(layers) == (name not in kept)


def test_at_time_zero_it_is_the_canonical_nerf() -> None:
    """A static model of the same canonical weights renders the same, to the bit; at another time it does not."""
    config = make_config(background_color="white")
    model = make_model(config)
    static = EugenNerfModelConfig(
        network=config.network,
        num_coarse_samples=config.num_coarse_samples,
        num_importance_samples=config.num_importance_samples,
    )
    still = make_model(static)
    still.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("deformation.")})
    with torch.no_grad():
        expected = still(make_rays(None))
        start, later = model(make_rays(0.0)), model(make_rays(0.8))
    assert all(torch.equal(start[key], expected[key]) for key in expected)
    assert not torch.equal(later["rgb"], expected["rgb"])


def test_a_ray_bundle_is_left_alone() -> None:
    model = make_model(make_config())
    bundle = make_rays(0.5)
    assert model.collider is not None
    bundle = model.collider(bundle)
    before = copy.deepcopy(bundle)
    model.get_outputs(bundle)
    for name in ("origins", "directions", "times", "nears", "fars"):
        assert torch.equal(getattr(bundle, name), getattr(before, name))


def test_rays_without_times_are_refused_in_one_line() -> None:
    with pytest.raises(RunError, match="the rays have no time: a dynamic scene needs data with `time`") as caught:
        make_model(make_config())(make_rays(None))
    assert "\n" not in str(caught.value)


def test_a_hull_is_refused() -> None:
    with pytest.raises(ConfigError, match="occupancy 'hull' is for scenes that stand still"):
        make_model(make_config(occupancy="hull"))


@pytest.mark.parametrize("method", PRESETS)
def test_optimizers_are_those_of_the_parameter_groups(method: str) -> None:
    groups = make_model(make_config(method)).get_param_groups()
    assert set(groups) == set(all_methods[method].optimizers) == {"fields", "temporal_distortion"}
    listed = [id(p) for group in groups.values() for p in group]
    model_wide = [p for n, p in make_model(make_config(method)).named_parameters() if n != "device_indicator_param"]
    assert len(listed) == len(set(listed)) == len(model_wide)


def with_images(data: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of a data set whose images `[H, W, 3]` are changed."""
    copied = Path(shutil.copytree(data, folder))
    for file in copied.rglob("*.png"):
        Image.fromarray(change(np.asarray(Image.open(file)))).save(file)
    return copied


def rgba(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image, image.max(axis=-1, keepdims=True)], axis=-1)


def noisy(image: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, image.shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "alpha_color", "expected"),
    [
        (lambda image: image, "white", [0.0, 0.0, 0.0]),
        (lambda image: 255 - image, "white", [1.0, 1.0, 1.0]),
        (lambda image: np.maximum(image, np.array([0, 128, 255], np.uint8)), "white", [0.0, 128 / 255, 1.0]),
        (rgba, "white", [1.0, 1.0, 1.0]),
        (rgba, "black", [0.0, 0.0, 0.0]),
        (noisy, "black", [1.0, 1.0, 1.0]),
    ],
    ids=["black", "white", "blue", "alpha on white", "alpha on black", "no plain border"],
)
def test_the_background_is_that_of_the_data(
    change: Callable, alpha_color: str, expected: list[float], tiny_dnerf: Path, tmp_path: Path
) -> None:
    config = copy.deepcopy(all_methods["eugen-dnerf-small"].pipeline)
    shrink_dnerf(config.model)
    config.datamanager.data = with_images(tiny_dnerf, tmp_path / "data", change)
    config.datamanager.dataparser.alpha_color = alpha_color
    pipeline = config.setup(device="cpu", test_mode="val")
    assert pipeline.model.renderer_rgb.background_color.tolist() == pytest.approx(expected)
    # far outside everything that the field could have learnt, a ray sees it alone
    with torch.no_grad():
        for field in (pipeline.model.field_coarse, pipeline.model.field_fine):
            field.network.layer("density").bias.fill_(-1e4)
        seen = render(pipeline.model, pipeline)["rgb"]
    torch.testing.assert_close(seen, torch.tensor(expected).expand(16, 16, 3))


def test_the_background_comes_from_the_checkpoint_not_from_other_data(
    train_tiny_dnerf: Callable, tiny_dnerf: Path, tmp_path: Path
) -> None:
    path, trainer = train_tiny_dnerf()
    (path.parent / "training_data.json").unlink()  # which would refuse data of other colours
    other = with_images(tiny_dnerf, tmp_path / "data", lambda image: 255 - image)
    run = load_run(path, device="cpu", test_mode="val", data=other)
    assert run.model.renderer_rgb.background_color.tolist() == [0.0, 0.0, 0.0]
    expected = render(trainer.pipeline.model, trainer.pipeline)["rgb"]
    assert torch.equal(render(run.model, run.pipeline)["rgb"], expected)


def test_a_spiral_goes_along_time(train_tiny_dnerf: Callable) -> None:
    """What `ns-render spiral` reads of a data manager, and nerfstudio's own path from there."""
    path, _ = train_tiny_dnerf()
    run = load_run(path, device="cpu")
    camera, _ = run.pipeline.datamanager.eval_dataloader.get_camera(image_idx=0)
    spiral = get_spiral_path(camera, steps=3, radius=0.1)
    assert spiral.times.flatten().tolist() == [0.0, 0.5, 1.0]
    outputs = run.model.get_outputs_for_camera(spiral[1:2])
    assert torch.isfinite(outputs["rgb"]).all()
    # the data set's own cameras are those of the parser: their digest says whether two runs saw the same views
    parsed = run.pipeline.datamanager.dataparser.get_dataparser_outputs(split="test").cameras
    assert run.pipeline.datamanager.eval_dataset.cameras.fx.dtype == parsed.fx.dtype


def test_the_commands_go_along_time(tiny_dnerf: Path, tmp_path: Path, offline: dict[str, str]) -> None:
    """ns-train, then ns-render camera-path with a render_time a frame: frames are those times' images."""
    shrunk: dict[str, object] = {
        "network.trunk-width": 16,
        "network.head-width": 8,
        "network.layers": "none",
        "deformation.trunk-width": 16,
        "deformation.num-features": 6,
        "num-coarse-samples": 6,
        "num-importance-samples": 6,
    }
    words = train_words("eugen-dnerf-small", tmp_path, "now", shrunk)
    command(offline, *words, "dnerf-data", "--data", tiny_dnerf)
    config = tmp_path / "shell" / "eugen-dnerf-small" / "now" / "config.yml"
    run = load_run(config, device="cpu")
    cameras = run.pipeline.datamanager.eval_dataset.cameras
    pose = torch.cat([cameras.camera_to_worlds[0], torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    fov = float(torch.rad2deg(2 * torch.atan(cameras.height[0] / 2 / cameras.fy[0])))
    frames = [{"camera_to_world": pose.flatten().tolist(), "fov": fov, "render_time": t} for t in (0.0, 0.5, 1.0)]
    path = {"render_height": 16, "render_width": 16, "seconds": 1, "camera_path": frames, "camera_type": "perspective"}
    (tmp_path / "path.json").write_text(json.dumps(path))
    words = ["ns-render", "camera-path", "--load-config", config, "--camera-path-filename", tmp_path / "path.json"]
    words += ["--output-path", tmp_path / "frames", "--output-format", "images", "--image-format", "png"]
    command({**offline, "EUGEN_EXACT": "1"}, *words)
    images = sorted((tmp_path / "frames").glob("*.png"))
    assert len(images) == 3
    seen = [np.asarray(Image.open(file)).astype(int)[..., :3] for file in images]
    for frame, image in zip(frames, seen, strict=True):
        camera = copy.deepcopy(cameras[:1])
        camera.times = torch.tensor([[frame["render_time"]]])
        expected = run.model.get_outputs_for_camera(camera)["rgb"] * 255
        assert np.abs(image - expected.numpy()).max() <= 1.5
