"""Stock nerfacto copied into graphs of layers: the same picture, converted or not, and then fewer samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.models.nerfacto import NerfactoModel
from tiny_runs import batches_in_threads, render, train_stock

from eugen_nerf.methods.converted import resize
from eugen_nerf.methods.rendering.fewer_samples import FewerSamples
from eugen_nerf.methods.rendering.planning import plans_of
from eugen_nerf.methods.runs import fast_rendering
from eugen_nerf.methods.runs.fast_rendering import use_fast_renderer
from eugen_nerf.methods.runs.loading import Run, load_run, without_lpips
from eugen_nerf.methods.runs.stock_runs import model_of_graphs, restore_stock
from eugen_nerf.methods.runs.training_rays import ray_bundle, rendered_colours, training_views
from eugen_nerf.methods.stock.graph_copies import graph_copy
from eugen_nerf.methods.stock.nerfacto_copy import NerfactoCopy, is_stock_nerfacto, nerfacto_copy
from eugen_nerf.methods.stock.nerfacto_fields import copied_grid

LOOSE = 30.0
"""dB that any renderer keeps within."""


@pytest.fixture(autouse=True, scope="module")
def _no_processes() -> Any:
    with batches_in_threads():
        yield


def _shrink(config: TrainerConfig) -> None:
    config.mixed_precision = False
    config.pipeline.datamanager.queue_size = 1
    model = config.pipeline.model
    model.implementation = "torch"
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (16, 12), 8
    model.hidden_dim = model.hidden_dim_color = 24
    model.num_levels, model.max_res, model.log2_hashmap_size, model.appearance_embed_dim = 4, 64, 13, 5
    model.proposal_net_args_list = [{"hidden_dim": 12, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32}]


@pytest.fixture(scope="module")
def config(tiny_nerfstudio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config.yml of a stock run, two iterations on the CPU."""
    return train_stock(tiny_nerfstudio, tmp_path_factory.mktemp("nerfacto"), method="nerfacto", change=_shrink)


@pytest.fixture
def run(config: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run, with its weights spread out: after two steps all grids are still nearly zero."""
    monkeypatch.setattr(fast_rendering, "machine_plan", lambda device: ("eager", "float32"))
    loaded = load_run(config, device="cpu")
    roughen(loaded.model)
    return loaded


@torch.no_grad()
def roughen(model: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, HashEncoding):
            module.hash_table.copy_(torch.randn(module.hash_table.shape, generator=generator))
    embedding = model.field.embedding_appearance
    if embedding is not None:
        embedding.embedding.weight.copy_(torch.randn(embedding.embedding.weight.shape, generator=generator))


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert expected["rgb"].std() > 0.02
    for key in ("rgb", "accumulation", "prop_depth_0", "prop_depth_1"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-3)
    # the median depth is that of a sample, and may be the next one's
    assert ((found["depth"] - expected["depth"]).abs() < 1e-3 * expected["depth"]).float().mean() > 0.99


def test_a_grid_has_the_stock_features() -> None:
    """On levels that are dense here and hashed there, and on those hashed in both; borders included."""
    stock = HashEncoding(num_levels=3, min_res=4, max_res=40, log2_hashmap_size=10, implementation="torch")
    grid = copied_grid(stock)
    assert grid.hashed == (False, True, True)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1))
    points[::5] = (points[::5] * 8).round() / 8
    expected = stock(points)
    found = grid.pool(points[:, None], torch.ones(1, 500, 1)).flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"use_average_appearance_embedding": False},
        {"use_appearance_embedding": False},
        {"disable_scene_contraction": True, "proposal_initial_sampler": "uniform", "far_plane": 4.0},
        {"average_init_density": 0.01, "predict_normals": True},
        {
            "use_same_proposal_network": True,
            "proposal_net_args_list": [{"use_linear": True, "log2_hashmap_size": 8, "num_levels": 2}],
        },
    ],
    ids=["default", "no appearance", "no embedding", "box", "density and normals", "one linear proposal"],
)
def test_a_copy_renders_as_the_stock_model_does(run: Run, change: dict[str, Any]) -> None:
    settings = replace(run.model.config, **change)
    torch.manual_seed(1)
    with without_lpips():
        stock = NerfactoModel(settings, scene_box=run.model.scene_box, num_train_data=run.model.num_train_data).eval()
    roughen(stock)
    copied = nerfacto_copy(stock)
    equal(render(copied, run.pipeline), render(stock, run.pipeline))


def test_a_converted_run_is_copied_too(run: Run) -> None:
    torch.manual_seed(2)
    resize(
        run.model,
        {
            "field.mlp_base.model.1.layers.0": [8, 7, 1],
            "field.mlp_base.model.1.layers.1": [7, 16, 1],
            "field.mlp_head.layers.0": [36, 9, 1],
            "field.mlp_head.layers.1": [9, 5, 1],
            "field.mlp_head.layers.2": [5, 3, 1],
        },
    )
    copied = nerfacto_copy(run.model)  # type: ignore[arg-type]
    assert copied.field.network.layer("head_1").out_features == 5
    equal(render(copied, run.pipeline), render(run.model, run.pipeline))


def test_rays_of_training_views_start_where_the_stock_model_has_learned(run: Run) -> None:
    with torch.no_grad():
        run.model.camera_optimizer.pose_adjustment.normal_(0, 0.05)
    cameras = training_views(run.pipeline.datamanager).cameras
    rays = torch.tensor([[0, 3, 4], [1, 5, 6], [2, 7, 1]])
    expected = rendered_colours(run.model, ray_bundle(cameras, rays))[0]
    without = run.model(ray_bundle(cameras, rays))["rgb"]
    copied = model_of_graphs(run)
    assert isinstance(copied, NerfactoCopy)
    torch.testing.assert_close(rendered_colours(copied, ray_bundle(cameras, rays))[0], expected, rtol=1e-3, atol=1e-3)
    assert (without - expected).abs().max() > 1e-3
    restore_stock(run)
    assert isinstance(run.model, NerfactoModel)


def test_it_is_rendered_with_fewer_samples(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = render(run.model, run.pipeline)["rgb"]
    choice = use_fast_renderer(run, quality=LOOSE)
    assert choice is not None
    assert choice.way == "fewer samples"
    assert set(plans_of(run.model)) == {"proposal_0", "proposal_1", "field"}  # type: ignore[arg-type]
    few = run.model.fast_renderer  # type: ignore[union-attr]
    assert isinstance(few, FewerSamples)
    assert few.counts == (4, 4, 4)
    fast = render(run.model, run.pipeline)["rgb"]
    assert float((fast - exact).square().mean()) < 0.02, "of random fields"
    run.model.render_by(FewerSamples((16, 12, 8)))  # type: ignore[operator]
    torch.testing.assert_close(render(run.model, run.pipeline)["rgb"], exact, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(fast_rendering, "choose_renderer", None)
    again = load_run(config, device="cpu")
    assert use_fast_renderer(again, quality=LOOSE) == choice


def test_layers_of_tinycudann_have_no_copy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = run.model
    assert is_stock_nerfacto(model)
    of: dict[str, Callable[[], Any]] = {
        "grid": lambda: model.field.mlp_base.model[0],
        "head": lambda: model.field.mlp_head,
        "proposal": lambda: model.proposal_networks[1].mlp_base[1],
    }
    for part in of.values():
        with monkeypatch.context() as patch:
            patch.setattr(part(), "tcnn_encoding", object())
            assert graph_copy(model) is None
