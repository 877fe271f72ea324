"""eugen-eval with all it can measure, once, on tiny runs: what it prints, writes, and leaves alone."""

import contextlib
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from event_files import write_events

from eugen_nerf.cli.eval import EvalCommand
from eugen_nerf.cli.support.options import parse
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.evaluation.costs.time_breakdown import CATEGORIES
from eugen_nerf.evaluation.protocol import Timing

NAMES = ["eugen", "dense"]


class Result(NamedTuple):
    """What a command left."""

    rows: list[dict]
    protocol: dict
    printed: str
    page: str
    before: dict[str, str]
    after: dict[str, str]


def hashes(folders: list[Path]) -> dict[str, str]:
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run_command(configs: list[Path], output: Path, *further: str) -> Result:
    arguments = ["--load-config", *map(str, configs), "--names", *NAMES, "--device", "cpu", "--queries", "64"]
    arguments += ["--views", "1", "--repeats", "1", "--warmup", "0", "--output", str(output), *further]
    folders = [config.parent for config in configs]
    before, printed = hashes(folders), io.StringIO()
    with contextlib.redirect_stdout(printed):
        parse(EvalCommand, "eugen-eval", arguments).run()
    content = json.loads((output / "report.json").read_text())
    page = (output / "report.html").read_text()
    return Result(content["rows"], content["protocol"], printed.getvalue(), page, before, hashes(folders))


@pytest.fixture(scope="module")
def configs(tiny_eugen_run: Path, tiny_dense_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of two runs, with events for the first alone."""
    root = tmp_path_factory.mktemp("runs")
    copies = []
    for name, config in zip(NAMES, (tiny_eugen_run, tiny_dense_run), strict=True):
        ignore = shutil.ignore_patterns("events.*")
        copies.append(Path(shutil.copytree(config.parent, root / name, ignore=ignore)) / config.name)
    write_events(copies[0].parent, {1: 10.5, 2: 11.25})
    return copies


@pytest.fixture(scope="module")
def trained(configs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run_command(configs, tmp_path_factory.mktemp("trained"), "--train-iterations", "2", "--split-repeats", "2")


@pytest.fixture(scope="module")
def untrained(configs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run_command(configs, tmp_path_factory.mktemp("untrained"))


def test_split_of_each_run(trained: Result) -> None:
    for row in trained.rows[:2]:
        split = row["image_split"]
        assert split.keys() == set(CATEGORIES)
        assert min(split.values()) > 0
        total = sum(split.values())
        assert row["image_ceiling"] == pytest.approx(total / (total - split["MLP"]))
        assert row["image_ceiling"] > 1
        assert f"<td>{total:.3g}</td>" in trained.page
        assert f"<td>{row['image_ceiling']:.2f}x</td>" in trained.page
    assert "where the time of an image goes, seconds" in trained.printed
    assert re.search(r"variant +encoding +MLP +sampling +compositing +other +total +ceiling", trained.printed)


def test_training_of_each_run(trained: Result) -> None:
    eugen, dense = trained.rows[:2]
    for row in (eugen, dense):
        assert len(row["iteration_seconds_per_round"]) == 2
        assert row["iteration_seconds"] > 0
        assert row["iteration_peak_memory_bytes"] > 0
        assert row["rays_per_iteration"] == 32
        assert f"<td>{row['iteration_seconds']:.4g}</td>" in trained.page
    assert eugen["iteration_speed_ratio"] == 1.0
    ratios = [a / b for a, b in zip(*(r["iteration_seconds_per_round"] for r in (eugen, dense)), strict=True)]
    assert dense["iteration_speed_ratio"] == pytest.approx(sum(ratios) / 2)
    assert min(ratios) <= dense["iteration_speed_ratio_quartiles"][0] <= dense["iteration_speed_ratio_quartiles"][1]
    assert re.search(r"variant +s/iteration +iteration x +peak MB +rays", trained.printed)
    assert trained.protocol["timing"]["train_iterations"] == 2


def test_baselines_are_not_timed(trained: Result) -> None:
    assert [row["variant"] for row in trained.rows[2:]] == ["mean-image", "white"]
    for row in trained.rows[2:]:
        assert row["image_split"] is row["image_ceiling"] is row["psnr_curve"] is None
        assert row["iteration_seconds"] is row["iteration_speed_ratio"] is row["iteration_peak_memory_bytes"] is None


def test_training_changes_no_file_and_no_score(trained: Result, untrained: Result) -> None:
    assert trained.before == trained.after
    assert trained.before == untrained.after
    for with_training, without in zip(trained.rows, untrained.rows, strict=True):
        assert with_training["predictions_sha256"] == without["predictions_sha256"]
        assert with_training["psnr"] == without["psnr"]


def test_training_is_off_by_default(untrained: Result) -> None:
    assert all(row["iteration_seconds"] is row["rays_per_iteration"] is None for row in untrained.rows)
    assert "s/iteration" not in untrained.printed
    assert "s/iteration" not in untrained.page
    assert untrained.rows[0]["image_split"] is not None


def test_curves_are_printed_drawn_and_kept(trained: Result) -> None:
    eugen, dense = trained.rows[:2]
    assert eugen["psnr_curve"] == [[1, 10.5], [2, 11.25]]
    assert dense["psnr_curve"] == []
    assert "eugen: held-out PSNR while training: step 1 10.5, step 2 11.2" in trained.printed
    assert trained.printed.count("held-out PSNR") == 1
    assert "training step" in trained.page
    assert trained.page.count("<svg") == 2


def test_page_needs_no_network(trained: Result) -> None:
    page = re.sub(r"base64,[^\"]*", "", trained.page)
    assert not re.search(r"https?:|//[a-z]|<script [a-z]|<link|@import|url\((?!#)", page)


def test_negative_iterations_are_refused() -> None:
    with pytest.raises(ConfigError, match="--train-iterations must be at least 0"):
        Timing(train_iterations=-1)
    with pytest.raises(ConfigError, match="--split-repeats must be at least 1"):
        Timing(split_repeats=0)
