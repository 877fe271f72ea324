"""Runs and bundles that earlier versions wrote: each loads, renders what it rendered then, and trains on."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path
from typing import Any

import golden_outputs
import pytest
import torch
from golden_outputs import (
    GOLDEN,
    TOLERANCE,
    differences,
    golden_bundles,
    golden_runs,
    outputs_of,
    outputs_of_bundle,
    store,
    stored,
)
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.eval_utils import eval_setup
from tiny_runs import batches_in_threads
from torch import Tensor

from eugen_nerf.core.errors import RunError
from eugen_nerf.methods.runs.checkpoints import read_latest_checkpoint
from eugen_nerf.methods.runs.loading import checkpoint_dir, load_run, read_config, without_lpips
from eugen_nerf.methods.trainer import EugenTrainerConfig
from eugen_viewer.shown_runs import open_run

RUNS, BUNDLES = sorted(golden_runs(GOLDEN)), sorted(golden_bundles(GOLDEN))
BYTES = 2_000_000
"""Of the whole folder, at most."""
LOADERS = ("stock", "package", "viewer")
OWN_WAY = ("fused", "foreach")
"""How an optimizer steps here: the platform's, not the run's."""


@pytest.fixture(autouse=True, scope="module")
def _on_one_thread() -> Any:
    """As the outputs were stored."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with batches_in_threads():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the golden folder, which the configurations name their data from, as the working directory."""
    copy = Path(shutil.copytree(GOLDEN, tmp_path / "golden"))
    monkeypatch.chdir(copy)
    # the outputs are of a CPU, and nerfstudio's own loader takes a GPU where there is one
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return copy


def loaded(loader: str, path: Path) -> Pipeline:
    """A run's pipeline as `ns-eval`, `eugen-eval` and `eugen-view` load it."""
    if loader == "stock":
        with without_lpips():  # stock models look for a network
            return eval_setup(path, test_mode="test")[1]
    if loader == "viewer":
        return open_run(path, "golden", device="cpu", data=None).run.pipeline
    return load_run(path, device="cpu").pipeline


def assert_as_stored(outputs: dict[str, Tensor], name: str) -> None:
    expected, same_platform = stored(GOLDEN / "expected" / f"{name}.safetensors")
    found = differences(outputs, expected, exact=same_platform)
    assert not found, (
        f"{name} no longer gives what it gave: {'; '.join(found)}. Users' runs change with it. Where the last bits "
        f"alone do, and that is meant: python scripts/golden_runs.py --record {name.removesuffix('-bundle')}"
    )


def test_there_is_a_run_of_every_method_and_all_are_small() -> None:
    methods = {read_config(path).method_name.removesuffix("-small") for path in golden_runs(GOLDEN).values()}
    ours = {name for name in all_methods if name.startswith("eugen-")}
    assert {re.sub("-(small|paper)$", "", name) for name in ours} <= methods
    assert BUNDLES
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < BYTES


def test_files_name_no_place_of_the_machine_that_wrote_them() -> None:
    for path in [*GOLDEN.glob("runs/**/*.yml"), *GOLDEN.glob("**/*.json"), *GOLDEN.glob("runs/**/*.ckpt")]:
        assert not re.search(rb"/(work|home|root|tmp|Users)/|^\s*- /$", path.read_bytes(), re.MULTILINE), path


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_renders_what_it_rendered(name: str, loader: str, moved: Path) -> None:
    assert_as_stored(outputs_of(loaded(loader, golden_runs(moved)[name].relative_to(moved))), name)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_bundle_gives_what_it_gave(name: str) -> None:
    assert_as_stored(outputs_of_bundle(golden_bundles(GOLDEN)[name]), f"{name}-bundle")


def test_a_run_of_another_folder_takes_its_data_by_name(moved: Path, tmp_path: Path) -> None:
    path = golden_runs(moved)["nerf-merged"]
    alone = Path(shutil.copytree(path.parent, tmp_path / "alone")) / "config.yml"
    shutil.move(moved / "data" / "scene", tmp_path / "elsewhere")
    assert_as_stored(outputs_of(load_run(alone, device="cpu", data=tmp_path / "elsewhere").pipeline), "nerf-merged")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_on(name: str, moved: Path) -> None:
    path = golden_runs(moved)[name]
    file, saved = read_latest_checkpoint(checkpoint_dir(path))
    onward = path.with_name("train.yml")  # of a conversion
    config = read_config(onward if onward.exists() else path)
    config.load_dir, config.timestamp, config.max_num_iterations = file.parent, "onward", 1
    config.output_dir = moved / config.output_dir  # nerfstudio's writers outlive the test and its working directory
    if isinstance(config, EugenTrainerConfig):
        (file.parent / "step-000000999.ckpt").touch()  # what a process leaves that is killed while it writes
    with torch.random.fork_rng(devices=[]), without_lpips():
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
    for group, state in saved["optimizers"].items():
        assert same(trainer.optimizers.optimizers[group].state_dict(), state), group
    for group, state in saved["schedulers"].items():
        assert same(trainer.optimizers.schedulers[group].state_dict(), state), group
    before = [p.detach().clone() for p in trainer.pipeline.model.parameters()]
    trainer.train()
    after = list(trainer.pipeline.model.parameters())
    assert all(bool(torch.isfinite(p).all()) for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert read_latest_checkpoint(trainer.checkpoint_dir)[1]["step"] == saved["step"] + 1


def test_a_full_disk_ends_training_and_loses_nothing(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = golden_runs(moved)["nerf-merged"]
    file, _ = read_latest_checkpoint(checkpoint_dir(path))
    before = file.read_bytes()
    config = read_config(path)
    config.load_dir, config.max_num_iterations = file.parent, 1  # into the folder that it came from
    config.output_dir = moved / config.output_dir
    with torch.random.fork_rng(devices=[]):
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        trainer.train()
    assert trainer.checkpoint_dir == file.parent
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == before


def same(found: Any, saved: Any) -> bool:
    """Whether a state has all that was saved, tensors bit for bit; it may have more."""
    if isinstance(saved, Tensor):
        return torch.equal(found, saved)
    if isinstance(saved, dict):
        return all(key in found and same(found[key], value) for key, value in saved.items() if key not in OWN_WAY)
    if isinstance(saved, list | tuple):
        return len(found) == len(saved) and all(map(same, found, saved))
    return bool(found == saved)


def test_a_changed_weight_is_noticed(moved: Path) -> None:
    path = golden_runs(moved)["nerf-factors"]
    run = load_run(path.relative_to(moved), device="cpu")
    weight = next(p for n, p in run.model.named_parameters() if n.startswith("field_fine") and n.endswith("rgb.bias"))
    weight.data.add_(0.01)
    with pytest.raises(AssertionError, match="nerf-factors no longer gives what it gave: rgb differs at"):
        assert_as_stored(outputs_of(run.pipeline), "nerf-factors")


def test_how_far_outputs_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    then = {"rgb": torch.full((4, 25, 3), 0.5), "depth": torch.full((4, 25, 1), 3.0)}
    store(then, tmp_path / "outputs.safetensors")
    expected, same_platform = stored(tmp_path / "outputs.safetensors")
    assert same_platform
    monkeypatch.setattr(golden_outputs, "fingerprint", lambda: {"bits": "others"})
    assert not stored(tmp_path / "outputs.safetensors")[1]

    rounded = {**then, "rgb": then["rgb"] + TOLERANCE / 2}
    assert differences(rounded, expected, exact=True) == [f"rgb differs at 300 of 300, by up to {TOLERANCE / 2:.3g}"]
    assert differences(rounded, expected, exact=False) == []
    assert differences({**then, "rgb": then["rgb"] + 2 * TOLERANCE}, expected, exact=False)
    assert differences({**then, "rgb": then["rgb"] * torch.nan}, expected, exact=False)
    for medians, allowed in ((2, True), (3, False)):
        depth = then["depth"].clone()
        depth.view(-1)[:medians] += 1.0
        assert (differences({**then, "depth": depth}, expected, exact=False) == []) is allowed
    assert differences({"rgb": then["rgb"]}, expected, exact=True) == ["depth is in one alone"]
    assert differences({**then, "rgb": then["rgb"].double()}, expected, exact=False)
