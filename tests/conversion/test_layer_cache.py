"""A conversion that is killed goes on at the layer it was at, from files that carry data alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eugen_nerf.conversion.conversion_settings import DistillConfig
from eugen_nerf.conversion.layer_cache import FolderStore
from eugen_nerf.conversion.teachers.graph_teacher import GraphTeacher
from eugen_nerf.core import ConversionConfig, LayerReport
from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.loading import Run, load_run

PLAN = {"coarse": {"trunk_1": 5, "trunk_2": 6}, "fine": {"trunk_1": 5, "trunk_2": 6}}
REPORT = LayerReport("trunk_1", 5, 0.25, 1e-6, (10, 8), (9, 7), 1.5)


@pytest.fixture(scope="module")
def run(tiny_dense_run: Path) -> Run:
    return load_run(tiny_dense_run, device="cpu", test_mode="val")


def config(folder: Path) -> DistillConfig:
    return DistillConfig(ray_fraction=0.5, max_rays=400, output_dir=folder, timestamp="t")


def test_stopped_and_started_again(run: Run, tmp_path: Path) -> None:
    _, whole, _ = GraphTeacher(run, config(tmp_path / "whole")).convert(PLAN)
    assert not (tmp_path / "whole").exists(), "nothing is kept by default"

    done: list[tuple[str, str]] = []

    def stop(which: str, layer: str) -> None:
        done.append((which, layer))
        if len(done) == 3:
            raise KeyboardInterrupt

    place = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        GraphTeacher(run, config(place), keep=True).convert(PLAN, stop)
    kept = {p.name: p.stat().st_mtime_ns for p in place.rglob("*.safetensors")}
    assert set(kept) == {"coarse.trunk_1.safetensors", "coarse.trunk_2.safetensors", "fine.trunk_1.safetensors"}
    torn = next(place.rglob("coarse.trunk_2.safetensors"))
    torn.write_bytes(torn.read_bytes()[:100])

    other = GraphTeacher(run, replace(config(place), seed=1), keep=True)
    assert other._store_folder(PLAN, False) not in [p.parent for p in place.rglob("*.safetensors")], "other rays"
    conversion = GraphTeacher(run, config(place), keep=True)
    _, student, reports = conversion.convert(PLAN)
    for name, value in whole.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name
    now = {p.name: p.stat().st_mtime_ns for p in place.rglob("*.safetensors")}
    assert now["coarse.trunk_1.safetensors"] == kept["coarse.trunk_1.safetensors"]
    assert now["coarse.trunk_2.safetensors"] > kept["coarse.trunk_2.safetensors"], "a torn file counts as none"
    assert [layer.name for report in reports for layer in report.layers] == ["trunk_1", "trunk_2"] * 2
    conversion.forget()
    assert not list(place.rglob("*.safetensors"))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "work", "fine")
    assert store.load("trunk_1") is None
    state = {"weight": torch.randn(3, 2), "seed": torch.tensor(7)}
    store.save("trunk_1", state, REPORT)
    found = store.load("trunk_1")
    assert found is not None
    assert found[1] == REPORT
    assert all(torch.equal(found[0][k], v) for k, v in state.items())
    assert FolderStore(tmp_path / "work", "coarse").load("trunk_1") is None
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="cannot keep a converted layer in"):
        FolderStore(tmp_path / "taken", "fine").save("trunk_1", state, REPORT)


def test_the_recipe_is_part_of_the_work(run: Run, tmp_path: Path) -> None:
    folders = {
        GraphTeacher(run, c, keep=True)._store_folder(plan, metrics)
        for c, plan, metrics in (
            (config(tmp_path), PLAN, False),
            (config(tmp_path), PLAN, True),
            (config(tmp_path), {"fine": {"trunk_1": 5}}, False),
            (replace(config(tmp_path), conversion=ConversionConfig(sweeps=1)), PLAN, False),
            (replace(config(tmp_path), max_rays=500), PLAN, False),
        )
    }
    assert len(folders) == 5
