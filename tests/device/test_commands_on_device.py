"""Conversions, plans, bundles, evaluation, signed distances and the viewer on the pretended device."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from bundles import RENDERED, with_scene
from pretend import device_of, pretend_cuda
from tiny_runs import batches_in_threads, few_cells, train_stock

from eugen_nerf.cli import sdf
from eugen_nerf.cli.distill import Distill
from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.conversion.budget import measure
from eugen_nerf.core import load_bundle, save_bundle
from eugen_nerf.core.choices import PLAN_DTYPES, PlanDtype
from eugen_nerf.evaluation.protocol import Inference, Protocol, Timing
from eugen_nerf.evaluation.sdf.sdf_protocol import SdfProtocol
from eugen_nerf.methods.graph_model import GraphModel
from eugen_nerf.methods.rendering.planning import plan_model
from eugen_nerf.methods.runs.loading import load_run
from eugen_viewer.frame_budget import FrameBudget
from eugen_viewer.frame_rendering import Renderer
from eugen_viewer.shown_runs import open_run

DeviceRun = Callable[[str, str], Path]
GPU = torch.device("cuda", 0)


def distill(path: Path, output: Path, **settings: Any) -> Path:
    """Converts a run on the device, timed by few queries; returns the config.yml of what was written."""
    with pretend_cuda(), mock.patch.object(measure, "NUM_QUERIES", 256):
        Distill(load_config=path, output_dir=output, timestamp="now", ray_fraction=0.6, max_rays=320, **settings).run()
    (written,) = output.rglob("config.yml")
    return written


CONVERSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "a share of the products": ("eugen-nerf-small", {"macs": 0.8}),
    "a loss of quality, calibrated": ("eugen-dnerf-small", {"max_drop": 3.0, "finetune_steps": 1}),
    "random features with the norm": (
        "eugen-nerf-small",
        {"recipe": "random", "num_features": (6,), "train_steps": 2, "norm": True},
    ),
    "low rank by second moments": ("eugen-mipnerf360-small", {"recipe": "aware", "macs": 0.9}),
    "proposals too": ("eugen-zipnerf-small", {"proposals": True, "num_features": (6,)}),
    "a signed distance": ("eugen-isdf-small", {"num_features": (6,)}),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_conversion(name: str, device_run: DeviceRun, tmp_path: Path) -> None:
    preset, settings = CONVERSIONS[name]
    run = load_run(distill(device_run(preset, "dense"), tmp_path, **settings), device="cpu")
    assert "eugen" in run.config.pipeline.model.variant or settings.get("recipe") == "aware"


def _narrow(config: Any) -> None:
    config.machine.device_type, config.mixed_precision = "cuda", False
    model = config.pipeline.model
    if config.method_name == "vanilla-nerf":
        model.num_coarse_samples = model.num_importance_samples = 4
        return
    config.pipeline.datamanager.queue_size = 1
    model.implementation = "torch"
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (6, 6), 4
    model.hidden_dim = model.hidden_dim_color = 24
    model.num_levels, model.max_res, model.log2_hashmap_size, model.appearance_embed_dim = 3, 32, 8, 5
    model.proposal_net_args_list = [{"hidden_dim": 12, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32}]


@pytest.mark.parametrize(("method", "data"), [("vanilla-nerf", "blender"), ("nerfacto", "nerfstudio")])
def test_a_stock_run_is_converted(method: str, data: str, device_data: dict[str, Path], tmp_path: Path) -> None:
    with pretend_cuda(), batches_in_threads():
        path = train_stock(device_data[data], tmp_path / "stock", method=method, change=_narrow)
    layers = {"vanilla-nerf": ("trunk_[67]",), "nerfacto": ("field.mlp_head.*",)}[method]
    settings = {"layers": layers, "num_features": (8,)}
    with batches_in_threads():
        written = distill(path, tmp_path / "converted", **settings)
        run = load_run(written, device="cpu", test_mode="val")
    assert sum(p.numel() for p in run.model.parameters()) > 0


def rays_of(path: Path, count: int = 32) -> tuple[GraphModel, Any]:
    """The model of a run on the device, and training rays there."""
    run = load_run(path, test_mode="val")
    assert isinstance(run.model, GraphModel)
    rays = run.pipeline.datamanager.next_train(0)[0][:count]
    return run.model, run.model.collider(rays) if run.model.collider is not None else rays


@pytest.mark.parametrize("dtype", PLAN_DTYPES)
@pytest.mark.parametrize("preset", ["eugen-nerf-small", "eugen-dnerf-hash-small", "eugen-zipnerf-small"])
def test_a_plan_of_every_dtype(preset: str, dtype: PlanDtype, device_run: DeviceRun) -> None:
    path = device_run(preset, "eugen")
    with pretend_cuda(), torch.no_grad():
        model, rays = rays_of(path)
        exact = model(rays)["rgb"]
        plans = plan_model(model, rays, dtype=dtype)
        planned = model(rays)["rgb"]
        assert device_of(planned) == GPU
        assert plans.keys() == model.graph_fields().keys()
        assert (planned - exact).abs().max().item() < 0.1


def test_a_bundle_is_written_and_queried(device_run: DeviceRun, tmp_path: Path) -> None:
    path = device_run("eugen-nerf-small", "dense")
    with few_cells():
        distill(path, tmp_path / "run", num_features=(6,), bundle=tmp_path / "bundle")
    points, directions = torch.rand(20, 3), torch.nn.functional.normalize(torch.rand(20, 3) - 0.5, dim=-1)
    with torch.no_grad():
        expected = load_bundle(tmp_path / "bundle")(points, directions)
        with pretend_cuda():
            found = load_bundle(tmp_path / "bundle").to("cuda")(points.cuda(), directions.cuda())
            assert {device_of(value) for value in found} == {GPU}
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("kind", RENDERED)
def test_a_bundle_is_rendered(kind: str, tmp_path: Path) -> None:
    save_bundle(with_scene(kind), tmp_path / "bundle")
    field = load_bundle(tmp_path / "bundle")
    camera = field.cameras[1]
    expected = field.render(camera)
    with pretend_cuda():
        found = load_bundle(tmp_path / "bundle").to("cuda").render(camera)
        assert {device_of(value) for value in found if value is not None} == {GPU}
    torch.testing.assert_close(found.colour, expected.colour)


def test_a_picture_of_the_viewer(device_run: DeviceRun) -> None:
    path = device_run("eugen-nerf-small", "eugen")
    with pretend_cuda():
        shown_run = open_run(path, "a", device="cuda", data=None)
        assert shown_run.cameras is not None
        picture = Renderer(FrameBudget(max_size=64)).render(shown_run, shown_run.cameras[:1])
    assert picture.whole
    assert picture.outputs["rgb"].shape == (16, 16, 3)


QUICK = Timing(num_queries=128, chunk_size=64, repeats=1, warmup=0, split_repeats=1)
SCORING = Protocol(limit=1, frames_over_time=0)


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("eugen-nerf-small", {"reduced": ("a:bfloat16",), "speed": replace(QUICK, train_iterations=1)}),
        (
            "eugen-nerf-small",
            {"inference": Inference("eager", auxiliary_outputs=False, early_stop=0.003, skip_empty=4)},
        ),
        ("eugen-zipnerf-small", {"inference": Inference("eager", "bfloat16")}),
    ],
    ids=["reduced", "approximations", "plan"],
)
def test_an_evaluation(preset: str, settings: dict[str, Any], device_run: DeviceRun, tmp_path: Path) -> None:
    paths = tuple(device_run(preset, variant) for variant in ("dense", "eugen"))
    with pretend_cuda():
        options = {"speed": QUICK, "scoring": SCORING, **settings}
        EvalCommand(load_config=paths, names=("a", "b"), output=tmp_path, **options).run()
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["environment"]["device"], report["environment"]["device_name"]) == ("cuda", "pretended GPU")


def test_signed_distances(device_run: DeviceRun, tmp_path: Path) -> None:
    path = device_run("eugen-isdf-small", "eugen")
    outputs = {"mesh": tmp_path / "mesh.ply", "slices": tmp_path / "slices.png", "volume": tmp_path / "volume.npz"}
    protocol = SdfProtocol(
        points=200, rays=20, chamfer_points=200, voxel=0.4, slice_voxel=0.4, timed_rays=8, warmup=0, repeats=1
    )
    with pretend_cuda():
        sdf.MeshCommand(load_config=path, output=outputs["mesh"], voxel=0.4).run()
        sdf.SliceCommand(load_config=path, output=outputs["slices"], voxel=0.4).run()
        sdf.VolumeCommand(load_config=path, output=outputs["volume"], voxel=0.4).run()
        sdf.EvaluateCommand(load_config=(path,), output=tmp_path / "report", protocol=protocol).run()
    assert all(output.stat().st_size for output in outputs.values())
    assert (tmp_path / "report/report.json").is_file()
