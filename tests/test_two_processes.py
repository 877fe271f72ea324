"""Two processes that train together: one map in both, other rays in each, one writer, and runs like any others."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.scripts.train import _distributed_worker
from tiny_rgbd import write_sequence
from torch.multiprocessing import ProcessRaisedException
from two_workers import FURTHER, METHODS, STEPS

from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import DataError
from eugen_nerf.methods.graph_model import DIVERGENCE_CHECK_INTERVAL
from eugen_nerf.methods.presets.static import _in_one_line
from eugen_nerf.methods.runs.loading import Run, load_run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(
    tiny_blender: Path, tiny_nerfstudio: Path, tiny_dnerf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What two processes left: `rank0`, `rank1` with what each wrote, and files of what each found."""
    root = tmp_path_factory.mktemp("two")
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    sets = {"blender": tiny_blender, "nerfstudio": tiny_nerfstudio, "dnerf": tiny_dnerf}
    sets["rgbd"] = write_sequence(tmp_path_factory.mktemp("sequence") / "room", angles)
    (root / "rank0").mkdir()
    (root / "rank1").mkdir()
    words = [sys.executable, str(Path(__file__).parent / "two_workers.py"), str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    words.append(json.dumps({name: str(path) for name, path in sets.items()}))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return root


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What each process found."""
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1)]


def run_folder(folder: Path, method: str, name: str, rank: int = 0) -> Path:
    return folder / f"rank{rank}" / "tiny" / method / name


def load(folder: Path, method: str, name: str = "first") -> Run:
    return load_run(run_folder(folder, method, name) / "config.yml", device="cpu", test_mode="val")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_buffers_are_one(method: str, ranks: list[dict[str, Any]]) -> None:
    for stage in ("first", "resumed"):
        mine, theirs = (found[method][stage] for found in ranks)
        assert_equal(mine["start"], theirs["start"])
        assert_equal(mine["end"], theirs["end"])
        assert differ(mine["start"], mine["end"])


@pytest.mark.parametrize("method", METHODS)
def test_each_process_has_other_rays_in_every_step(method: str, ranks: list[dict[str, Any]]) -> None:
    for stage, steps in (("first", STEPS), ("resumed", FURTHER)):
        mine, theirs = (found[method][stage]["pixels"] for found in ranks)
        assert len(mine) == len(theirs) == steps
        assert not any(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
        assert not any(torch.equal(a, b) for a, b in itertools.pairwise(mine))


@pytest.mark.parametrize("method", METHODS)
def test_one_process_writes(method: str, folder: Path) -> None:
    """The second writes nothing but a file of nerfstudio's own, of the same content."""
    for name, last in (("first", STEPS - 1), ("resumed", STEPS + FURTHER - 1)):
        written = run_folder(folder, method, name)
        files = sorted(str(p.relative_to(written)) for p in written.rglob("*") if p.is_file())
        checkpoints = [f for f in files if f.startswith("nerfstudio_models/")]
        # a stream keeps the one before too
        kept = [last - 1, last] if "isdf" in method else [last]
        assert checkpoints == [f"nerfstudio_models/step-{step:09d}.ckpt" for step in kept]
        events = [f for f in files if Path(f).name.startswith("events.out.tfevents")]
        assert len(events) == 1
        assert set(files) == {*checkpoints, *events, "config.yml", "dataparser_transforms.json", "training_data.json"}
        other = run_folder(folder, method, name, rank=1)
        assert [p.name for p in other.rglob("*")] == ["dataparser_transforms.json"]
        same = "dataparser_transforms.json"
        assert (other / same).read_bytes() == (written / same).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_training_goes_on_in_both(method: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        first, resumed = found[method]["first"], found[method]["resumed"]
        assert (first["first_step"], resumed["first_step"]) == (0, STEPS)
        assert_equal(first["end"], resumed["start"])
        assert first["stream"] == resumed["stream_start"]


def test_a_stopped_stream_goes_on_as_if_it_had_not_stopped(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        whole, resumed = (found["eugen-isdf-small"][stage] for stage in ("whole", "resumed"))
        assert whole["stream"] == resumed["stream"]
        assert torch.equal(whole["pixels"][STEPS:], resumed["pixels"])
        assert_equal(whole["end"], resumed["end"])


def test_streams_are_one_and_the_first_process_decides(ranks: list[dict[str, Any]]) -> None:
    one, other = (found["eugen-isdf-small"]["whole"]["stream"] for found in ranks)
    assert one == other
    assert len(one["keyframes"]) > 2
    alone = [found["stream_alone"] for found in ranks]
    assert alone[0]["state"] == alone[1]["state"]
    assert alone[0]["state"]["keyframes"] == [0, 1, 2, 3, 4, 5, 6]  # 3 and 7, ... of 16 are held out


def test_losses_of_frames_are_means_over_both(ranks: list[dict[str, Any]]) -> None:
    alone = [found["stream_alone"] for found in ranks]
    frames, losses = (np.concatenate([a[key].numpy() for a in alone]) for key in ("frames", "losses"))
    recorded = alone[0]["state"]["losses"]
    for frame in np.unique(frames):
        assert recorded[int(frame)] == pytest.approx(losses[frames == frame].astype(np.float64).mean(), rel=1e-6)


def test_samples_along_the_same_rays_differ(ranks: list[dict[str, Any]]) -> None:
    mine, theirs = (found["samples"] for found in ranks)
    assert torch.equal(mine[:, 0], theirs[:, 0])  # at the surface
    assert not torch.isclose(mine[:, 1:], theirs[:, 1:]).any(dim=0).all()


def test_gradients_are_those_of_one_process_with_all_rays(folder: Path, ranks: list[dict[str, Any]]) -> None:
    parts = [found["gradients"] for found in ranks]
    rays = {key: torch.cat([p["rays"][key] for p in parts]) for key in parts[0]["rays"]}
    bundle = RayBundle(**rays, metadata={"directions_norm": torch.cat([p["norm"] for p in parts])})
    model: Any = load(folder, "eugen-nerf-small").model.train()
    model.sampler_uniform.train_stratified = model.sampler_pdf.train_stratified = False
    losses = model.get_loss_dict(model(bundle), {"image": torch.cat([p["image"] for p in parts])})
    torch.stack([*losses.values()]).sum().backward()
    alone = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert alone.keys() == parts[0]["gradients"].keys() == parts[1]["gradients"].keys()
    assert sum(float(g.abs().max()) > 1e-6 for g in alone.values()) > len(alone) / 2
    for name, gradient in alone.items():
        size = gradient.abs().max().item()
        for part in parts:
            torch.testing.assert_close(part["gradients"][name], gradient, rtol=0, atol=1e-5 * size + 1e-9, msg=name)


def test_both_refuse_a_training_that_diverged_in_one(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["divergence"].startswith(f"training has diverged: after {DIVERGENCE_CHECK_INTERVAL} steps")


def test_the_hull_is_carved_and_one(ranks: list[dict[str, Any]]) -> None:
    first, resumed = (ranks[1]["eugen-nerf-small"][stage] for stage in ("first", "resumed"))
    assert first["start"]["occupancy.cells"].all()
    assert not first["end"]["occupancy.cells"].all()
    assert first["end"]["occupancy.cells"].any()
    assert torch.equal(first["end"]["occupancy.cells"], resumed["end"]["occupancy.cells"])


@pytest.mark.parametrize("method", METHODS)
def test_one_process_loads_the_run(method: str, folder: Path, ranks: list[dict[str, Any]]) -> None:
    run = load(folder, method, "resumed")
    assert run.step == STEPS + FURTHER - 1
    loaded = {name: v.detach() for name, v in [*run.model.named_parameters(), *run.model.named_buffers()]}
    assert_equal(loaded, ranks[1][method]["resumed"]["end"])


def test_the_run_is_evaluated(folder: Path, tmp_path: Path) -> None:
    config = run_folder(folder, "eugen-nerf-small", "resumed") / "config.yml"
    words = ["--load-config", str(config), "--names", "two", "--device", "cpu", "--queries", "64", "--views", "1"]
    words += ["--repeats", "1", "--warmup", "0", "--output", str(tmp_path)]
    parse(EvalCommand, "eugen-eval", words).run()
    row = json.loads((tmp_path / "report.json").read_text())["rows"][0]
    assert row["variant"] == "two"
    assert 0 < row["psnr"] < 60


def raised_by_a_process(error: Exception) -> ProcessRaisedException:
    """What torch makes of an error in a process that it spawned."""
    try:
        raise error
    except Exception:
        text = f"\n\n-- Process 1 terminated with the following error:\n{traceback.format_exc()}"
    return ProcessRaisedException(text, 1, 2)


def test_errors_of_a_process_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _in_one_line(raised_by_a_process(DataError("no such folder: a/b"))) == "no such folder: a/b"
    assert _in_one_line(raised_by_a_process(ValueError("of someone else"))) is None
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(AssertionError) as caught:
        _distributed_worker(0, print, 2, 2, 0, "tcp://127.0.0.1:1", None)  # type: ignore[arg-type]
    line = _in_one_line(raised_by_a_process(caught.value))
    assert line is not None
    assert line.endswith("leave out --machine.num-devices and --machine.num-machines")
