"""eugen-mipnerf360 and eugen-zipnerf in nerfstudio: every preset and variant trains, saves and comes back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from commands import changed_copy
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from tiny_models import make_config, make_model
from tiny_runs import render, shrink_unbounded
from torch import Tensor

from eugen_nerf.core import DenseLinear, EUGenLinear, LowRankLinear, MonarchLinear, SNNKLinear
from eugen_nerf.core.errors import ConfigError, RunError
from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.core.training.merged import MergedLayer
from eugen_nerf.fields.zipnerf import ZipNeRFField
from eugen_nerf.methods.runs.loading import load_run

TRUNK = {f"trunk_{i}" for i in range(8)}
REPLACED = {
    "eugen-mipnerf360": TRUNK,
    "eugen-mipnerf360-paper": {"trunk_5", "trunk_6", "trunk_7"},
    "eugen-mipnerf360-small": TRUNK,
    "eugen-zipnerf": {"head_0", "head_1"},
    "eugen-zipnerf-paper": {"head_0"},
    "eugen-zipnerf-small": {"head_0", "head_1"},
}
PRESETS = tuple(REPLACED)
SMALL = tuple(name for name in PRESETS if name.endswith("small"))
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
def test_train_save_and_reload(method: str, variant: str, train_tiny_unbounded: Callable) -> None:
    """The paper's presets on the Blender set, the others on one with lens distortion; proposals of the same variant."""
    before: dict[str, Tensor] = {}

    def watch(trainer: Trainer) -> None:
        model = trainer.pipeline.model
        with torch.no_grad():  # a final field that its proposals cover already would teach them nothing
            model.field.network.layer("density").bias.add_(3)
        before.update({key: p.detach().clone() for key, p in model.named_parameters()})

    blender = method.endswith("paper")
    path, trainer = train_tiny_unbounded(
        method=method, variant=variant, proposal_variant=variant, blender=blender, watch=watch
    )
    trained = trainer.pipeline.model
    for name, field in trained.graph_fields().items():
        replaced = REPLACED[method] if name == "field" else {n for n in field.network.names if n.startswith("trunk")}
        found = {n for n in field.network.names if not isinstance(field.network.layer(n), DenseLinear)}
        assert found == (replaced if variant in ("eugen", "lowrank", "snnk", "monarch") else set())
        config = trained.config.network if name == "field" else trained.config.proposal
        kind = MergedLayer if variant == "eugen" and config.train_merged else KINDS[variant]
        assert all(type(field.network.layer(n)) is kind for n in {*replaced} & {*field.network.names})
    unchanged = {key for key, p in trained.named_parameters() if torch.equal(p, before[key])}
    assert unchanged == {"device_indicator_param"}, "training changes every layer and every grid"
    assert sum(key.endswith("grid.table") for key in before) == (3 if "zip" in method else 0)
    run = load_run(path, device="cpu", test_mode="val")
    outputs, expected = render(run.model, run.pipeline), render(trained, trainer.pipeline)
    assert outputs.keys() == {"rgb", "accumulation", "depth", "prop_depth_0", "prop_depth_1"}
    size = (16, 16) if blender else (12, 16)
    for key, value in outputs.items():
        assert value.shape == (*size, 3 if key == "rgb" else 1)
        assert torch.isfinite(value).all()
        assert torch.equal(value, expected[key])
    assert outputs["rgb"].std() > 1e-5
    assert 0 <= outputs["rgb"].min() <= outputs["rgb"].max() <= 1
    near = trained.config.near_plane
    assert near == (0.05 if "zip" in method else 0.2)
    assert near <= outputs["depth"].min() <= outputs["depth"].max() <= 1000
    assert not [key for key in run.pipeline.state_dict() if "lpips" in key]


def test_presets_are_what_their_names_say() -> None:
    for method in PRESETS:
        model = all_methods[method].pipeline.model
        assert (model.variant, model.proposal_variant) == ("eugen", "dense")
        assert model.network.norm == method.endswith("paper")
    features = {method: all_methods[method].pipeline.model.network.num_features for method in PRESETS}
    assert features["eugen-mipnerf360-paper"] == (1024,)
    assert features["eugen-zipnerf-paper"] == (64,)


def box() -> SceneBox:
    return SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))


@pytest.mark.parametrize("method", PRESETS)
def test_optimizers_are_those_of_the_parameter_groups(method: str) -> None:
    config = copy.deepcopy(all_methods[method])
    shrink_unbounded(config.pipeline.model)
    model = config.pipeline.model.setup(scene_box=box(), num_train_data=1)
    groups = model.get_param_groups()
    assert set(groups) == set(config.optimizers) == {"fields", "proposal_networks"}
    listed = [id(p) for group in groups.values() for p in group]
    assert len(listed) == len(set(listed))
    named = {name: p for name, p in model.named_parameters() if name != "device_indicator_param"}
    assert set(listed) == {id(p) for p in named.values()}
    proposals = {id(p) for p in groups["proposal_networks"]}
    assert {name for name, p in named.items() if id(p) in proposals} == {n for n in named if n.startswith("proposals.")}
    assert set(Optimizers(config.optimizers.copy(), groups).optimizers) == set(groups)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", SMALL)
def test_a_config_can_be_built_twice(method: str, variant: str, tiny_nerfstudio: Path) -> None:
    config = copy.deepcopy(all_methods[method]).pipeline
    # nerfstudio's data manager itself copies the one into the other
    config.datamanager.data, config.datamanager.dataparser.data = tiny_nerfstudio, Path(tiny_nerfstudio)
    shrink_unbounded(config.model)
    config.model.variant = config.model.proposal_variant = variant
    before = repr(config)
    states = [config.setup(device="cpu", test_mode="inference").state_dict() for _ in range(2)]
    assert states[0].keys() == states[1].keys()
    assert all(states[0][key].shape == states[1][key].shape for key in states[0])
    assert repr(config) == before


@pytest.mark.parametrize("method", SMALL)
def test_another_architecture_is_refused_in_one_line(
    method: str, train_tiny_unbounded: Callable, tmp_path: Path
) -> None:
    """By nerfstudio's own loading too, which would go on with random weights."""
    path, _ = train_tiny_unbounded(method=method)

    def change(config: TrainerConfig) -> None:
        config.pipeline.model.proposal.trunk_width = 40

    changed = changed_copy(path, tmp_path, change)
    first = r"proposals\.0\.network\.layers\.trunk_0\.weight"
    with pytest.raises(RunError, match=rf"another architecture.*{first}"):
        load_run(changed, device="cpu")
    config = yaml.load(changed.read_text(), Loader=yaml.Loader)
    pipeline = config.pipeline.setup(device="cpu", test_mode="inference")
    state = torch.load(next(changed.parent.rglob("*.ckpt")), weights_only=True)
    with pytest.raises(RunError, match=first) as caught:
        pipeline.load_pipeline(state["pipeline"], state["step"])
    assert "\n" not in str(caught.value)
    assert "load it with the settings it was trained with" in str(caught.value)


def test_another_table_is_refused(train_tiny_unbounded: Callable, tmp_path: Path) -> None:
    path, _ = train_tiny_unbounded(method="eugen-zipnerf-small")

    def change(config: TrainerConfig) -> None:
        config.pipeline.model.network.log2_table_size = 9

    changed = changed_copy(path, tmp_path, change)
    with pytest.raises(RunError, match=r"field\.encoder\.grid\.table \(\[3072, 4\] in the checkpoint, \[1536, 4\]"):
        load_run(changed, device="cpu")


# ---- settings that make no sense


@pytest.mark.parametrize("name", ["mip", "zip"])
@pytest.mark.parametrize(("near", "far"), [(0.0, 10.0), (-1.0, 10.0), (5.0, 5.0), (5.0, 2.0)])
def test_planes_in_the_wrong_order_are_refused(name: str, near: float, far: float) -> None:
    with pytest.raises(ConfigError, match=rf"^near and far plane must be 0 < near < far, got {near:g} and {far:g}$"):
        make_model(name, near_plane=near, far_plane=far)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"proposal_resolutions": (64,)}, "2 proposal rounds .* got 1 and 2"),
        ({"interlevel_blurs": (0.03, 0.01, 0.003)}, "2 proposal rounds .* got 2 and 3"),
        ({"interlevel_blurs": (0.03, -0.01)}, "interlevel_blurs: a blur.s half-width is 0 .none. or a positive number"),
        ({"num_proposal_samples": (8,)}, "1 proposal rounds .* got 2 and 2"),
    ],
)
def test_rounds_without_a_grid_or_blur_are_refused(changes: dict[str, object], counts: str) -> None:
    with pytest.raises(ConfigError, match=counts):
        make_model("zip", **changes)
    make_model("mip", num_proposal_samples=(8,))


def test_a_field_is_described_by_its_own_settings() -> None:
    for name in ("mip", "zip"):
        config = make_config(name)
        assert config.settings_of("field") == (config.network, "variant")
        assert config.settings_of("proposal_1") == (config.proposal, "proposal_variant")
        assert config.settings_of("field")[0] is config.network, "not a copy: a conversion writes into it"


def test_proposals_of_zipnerf_differ_in_resolution_and_seed_alone() -> None:
    model = make_model("zip")
    first, second = model.proposals
    assert isinstance(first, ZipNeRFField)
    assert isinstance(second, ZipNeRFField)
    assert (first.grid.resolutions, second.grid.resolutions) == ((16, 32), (16, 32, 64))
    assert first.network.names == second.network.names
    assert (model.config.proposal.max_resolution, model.config.proposal.seed) == (8192, 1000), "and they stay as given"


# ---- during training


@pytest.mark.parametrize("method", SMALL)
def test_the_sampler_follows_the_step(method: str, train_tiny_unbounded: Callable) -> None:
    seen: list[float] = []

    def watch(trainer: Trainer) -> None:
        model = trainer.pipeline.model
        assert model.sampler.fraction == 1.0, "a model that is not trained here does not anneal"
        model.sampler.register_forward_pre_hook(lambda sampler, args: seen.append(sampler.fraction))

    _, trainer = train_tiny_unbounded(method=method, watch=watch)
    assert seen == [0.0, 1.0], "of two iterations the first and the last"
    model = trainer.pipeline.model
    trainer.config.max_num_iterations = 101
    (callback,) = model.get_training_callbacks(_attributes(trainer))
    for step, fraction in ((0, 0.0), (25, 0.25), (100, 1.0), (150, 1.0)):
        callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        assert model.sampler.fraction == pytest.approx(fraction)
    (callback,) = model.get_training_callbacks(_attributes(None))
    callback.run_callback_at_location(3, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
    assert model.sampler.fraction == 1.0, "without a trainer nobody knows the length"


def _attributes(trainer: Trainer | None) -> TrainingCallbackAttributes:
    return TrainingCallbackAttributes(optimizers=None, grad_scaler=None, pipeline=None, trainer=trainer)


@pytest.mark.parametrize("method", SMALL)
def test_nerfstudios_own_evaluation_while_training(method: str, train_tiny_unbounded: Callable) -> None:
    _, trainer = train_tiny_unbounded(method=method)
    pipeline = trainer.pipeline
    outputs, losses, metrics = pipeline.get_eval_loss_dict(step=1)
    assert losses.keys() == {"rgb_loss"}
    assert "rounds" not in outputs
    assert 0 < metrics["psnr"] < 60
    found, images = pipeline.get_eval_image_metrics_and_images(step=1)
    assert {"psnr", "ssim"} <= set(found)
    assert images["img"].shape == (12, 32, 3)
    assert images["depth"].shape == images["accumulation"].shape == (12, 16, 3)
    assert pipeline.training, "and training goes on"
    _, losses, _ = pipeline.get_train_loss_dict(step=2)
    assert {"rgb_loss", "interlevel_loss", "distortion_loss"} <= losses.keys()
