"""Counted steps: the same on numbers as on tensors without contents, parts that sum up, and the command."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from eugen_nerf.cli import bench
from eugen_nerf.core.errors import ConfigError, DataError
from eugen_nerf.core.rendering.sphere_tracing import first_crossing
from eugen_nerf.evaluation.documents.markdown_tables import table
from eugen_nerf.evaluation.documents.roofline_markdown import Predictions
from eugen_nerf.evaluation.roofline.cards import CARDS
from eugen_nerf.evaluation.roofline.counter import OperationCounter
from eugen_nerf.evaluation.roofline.parts import PARTS
from eugen_nerf.evaluation.roofline.predictions import predict, predict_rows
from eugen_nerf.evaluation.roofline.steps import CountedStep, count_step

TOTALS = ("seconds", "launches", "bytes", "flops")


@pytest.fixture(scope="module")
def step() -> CountedStep:
    return count_step("eugen-nerf-small", rays=16)


@pytest.mark.parametrize("method", ["eugen-dnerf-hash-small", "eugen-isdf-small"])
def test_numbers_change_nothing(method: str) -> None:
    real, fake = (count_step(method, rays=20, contents=contents) for contents in (True, False))
    assert real == fake
    assert real.operations


def test_bfloat16_is_for_networks_and_halves_what_they_keep() -> None:
    whole, half = (count_step("eugen-isdf-small", rays=20, bfloat16=b) for b in (False, True))
    products = {(c.part, c.operation.dtype) for c in half.operations if c.operation.flops}
    assert ("MLP", "bfloat16") in products
    assert {dtype for part, dtype in products if part != "MLP"} == {"float32"}
    assert half.kept_bytes < whole.kept_bytes


def test_every_part_is_found_forward_and_backward(step: CountedStep) -> None:
    parts = {(c.part, c.backward) for c in step.operations}
    expected = {(part, way) for part in ("MLP", "compositing", "sampling and losses") for way in (False, True)}
    assert expected | {("optimizer", False), ("data", False), ("encoding", False)} <= parts
    products = {c.part for c in step.operations if c.operation.flops and c.backward}
    assert products == {"MLP"}, "the encodings of positions and directions have no backward pass"
    assert sum(c.part == "other" for c in step.operations) < 0.05 * len(step.operations)


def test_flops_of_a_step_are_those_of_its_layers() -> None:
    rays, widths = 16, count_step("eugen-nerf-small", "dense", rays=16)
    samples = 32 + (32 + 32 + 1)
    trunk = 39 * 128 + 128 * 128 + (128 + 39) * 128 + 128 * 128
    heads = 128 * 1 + 128 * 128 + (128 + 27) * 64 + 64 * 3
    forward = sum(c.operation.flops for c in widths.operations if c.part == "MLP" and not c.backward)
    assert forward == pytest.approx(2 * rays * samples * (trunk + heads), rel=0.25)
    backward = sum(c.operation.flops for c in widths.operations if c.part == "MLP" and c.backward)
    assert 1.7 * forward < backward < 2.1 * forward


def test_parts_and_limits_sum_to_the_totals(step: CountedStep) -> None:
    found = predict(step.operations, CARDS["H100"], "tf32")
    for key in TOTALS:
        assert found[key] == pytest.approx(sum(part[key] for part in found["parts"]))
    assert found["seconds"] == pytest.approx(sum(found["limits"].values()))
    assert found["launches"] == len(step.operations)
    assert found["seconds"] > 0.999 * found["launches"] * CARDS["H100"].launch, "no operation is faster than a launch"
    times = [part["seconds"] for part in found["parts"]]
    assert times == sorted(times, reverse=True)


def test_masks_without_contents_keep_everything() -> None:
    with FakeTensorMode(), OperationCounter() as counter:
        x = torch.zeros(5, 2, 3)
        mask = x[..., 0] > 0
        assert x[mask].shape == (10, 3)
        assert x[:, mask[0]].shape == (5, 2, 3)
        assert mask.nonzero().shape == (10, 2)
        assert mask.any()
        assert float(x.sum()) == 1.0
        x[mask] = torch.ones(10, 3)
    names = [c.operation.name for c in counter.operations]
    assert names.count("aten::nonzero") == 4


def test_a_march_without_contents_makes_all_its_steps() -> None:
    with FakeTensorMode(), OperationCounter() as counter:
        origins, near = torch.zeros(4, 3), torch.zeros(4)
        t, hit = first_crossing(lambda p: p.norm(dim=-1) - 1, origins, origins + 1, near, near + 9, max_steps=3)
    assert t.shape == hit.shape == (4,)
    queries = [c for c in counter.operations if c.operation.name == "aten::linalg_vector_norm"]
    assert len(queries) == 3 + 2, "and two refinements"
    assert {c.operation.bytes for c in queries} == {4 * 4 * (3 + 1)}, "of all four rays"


def test_listed_functions_exist() -> None:
    for name in PARTS:
        module, _, function = name.partition(":")
        found: Any = importlib.import_module(module)
        assert not function or any(hasattr(value, function) for value in vars(found).values()), name


def test_unknown_methods_and_no_rays_are_refused() -> None:
    with pytest.raises(ConfigError, match="none of this package; choose one of eugen-dnerf,"):
        count_step("nerfacto")
    with pytest.raises(ConfigError, match="at least one ray, not 0"):
        count_step("eugen-isdf-small", rays=0)


def test_a_file_and_its_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--methods", "eugen-isdf-small", "--variants", "eugen", "--modes", "train", "--rays", "20"]
    monkeypatch.setattr(sys, "argv", ["eugen-bench", "roofline", *words, "--output", str(tmp_path / "r.json")])
    bench.main()
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["device"] == "predicted, H100"
    assert [row["precision"] for row in result["rows"]] == ["float32", "tf32", "bfloat16"]
    assert "eugen-isdf-small, eugen, train, tf32: 20 rays" in capsys.readouterr().out
    lines = table(Predictions("docs/x.md", "t", "r.json", "train"), tmp_path).splitlines()
    row = result["rows"][1]
    assert lines[2].startswith(f"| `eugen-isdf-small` | eugen | 20 | {1e3 * result['rows'][0]['seconds']:.1f} |")
    assert f" | {row['launches']:,} | " in lines[2]
    with pytest.raises(DataError, match="predictions of 'eval'"):
        table(Predictions("docs/x.md", "t", "r.json", "eval"), tmp_path)


def test_rendering_has_no_bfloat16_of_its_own_and_asks_the_collapsed_networks() -> None:
    (row,) = predict_rows("eugen-nerf-small", "eugen", "eval", CARDS["H200"], ("float32", "bfloat16"), rays=8)
    assert row["precision"] == "float32"
    assert row["kept_bytes"] == 0
    assert {part["pass"] for part in row["parts"]} == {"forward"}
    # the collapsed layers read 96 features where the dense ones read 128 outputs, and nothing merges them anew
    samples = 32 + (32 + 32 + 1)
    trunk = 39 * 96 + 96 * 96 + (96 + 39) * 96 + 96 * 96
    heads = 96 * 1 + 96 * 64 + 27 * 64 + 64 * 3
    assert row["flops"] == pytest.approx(2 * 8 * samples * (trunk + heads), rel=0.15)
