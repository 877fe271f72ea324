"""`--pipeline.model.variant auto`: settled before a run is written, so that it loads whatever is recommended later."""

import copy
from collections.abc import Callable

import pytest
import torch
import tyro
from nerfstudio.configs.method_configs import all_methods
from tiny_runs import render

from eugen_nerf.core.networks.nerf_mlp import VARIANTS
from eugen_nerf.methods.graph_model import GraphModelConfig
from eugen_nerf.methods.runs.loading import load_run
from eugen_nerf.methods.zipnerf import ZipNeRFModelConfig

PRESETS = sorted(name for name in all_methods if name.startswith("eugen-"))


@pytest.mark.parametrize("method", PRESETS)
def test_the_command_line_settles_on_a_cheap_network(method: str) -> None:
    config = copy.deepcopy(all_methods[method].pipeline.model)
    assert isinstance(config, GraphModelConfig)
    settled = tyro.cli(type(config), args=["--variant", "auto"], default=config)
    assert settled.variant == ("narrow" if isinstance(settled, ZipNeRFModelConfig) else "eugen")
    for variant in VARIANTS:
        assert tyro.cli(type(config), args=["--variant", variant], default=config).variant == variant


def test_a_variant_set_later_is_settled_when_the_model_is_built() -> None:
    config = ZipNeRFModelConfig()
    config.variant = "auto"
    assert config.network_variant() == "narrow"


def test_a_run_keeps_its_network_when_another_is_recommended(
    train_tiny_unbounded: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trainer = train_tiny_unbounded(
        method="eugen-zipnerf-small", variant=ZipNeRFModelConfig(variant="auto").variant
    )
    before = render(trainer.pipeline.model, trainer.pipeline)["rgb"]
    monkeypatch.setattr(ZipNeRFModelConfig, "recommended", "eugen")
    run = load_run(path, device="cpu", test_mode="val")
    assert torch.equal(render(run.model, run.pipeline)["rgb"], before)
