"""Suites of several seeds, and suites that compare signed distances."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console
from test_suite import WRITE_CONFIG, fake_tools

from eugen_nerf.cli.suite import run_suite
from eugen_nerf.cli.suite_file import read_suite
from eugen_nerf.core.errors import ConfigError

SUITE = {"name": "n", "method": "m", "runs": {"a": ["--x"], "b": []}}


def write(tmp_path: Path, **changes: object) -> Path:
    (tmp_path / "data").mkdir(exist_ok=True)
    path = tmp_path / "s.yml"
    content = {**SUITE, "output": str(tmp_path / "out"), "data": str(tmp_path / "data"), **changes}
    path.write_text(yaml.safe_dump(content))
    return path


def test_every_run_is_trained_once_a_seed(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, seeds=[0, 3], seed_args=["--machine.seed={seed}", "--s", "{seed}"]))
    assert suite.runs == {
        "a-s0": ["--x", "--machine.seed=0", "--s", "0"],
        "b-s0": ["--machine.seed=0", "--s", "0"],
        "a-s3": ["--x", "--machine.seed=3", "--s", "3"],
        "b-s3": ["--machine.seed=3", "--s", "3"],
    }
    assert list(read_suite(write(tmp_path)).runs) == ["a", "b"]
    with pytest.raises(ConfigError, match="'c' has no teacher among the runs a-s1, b-s1"):
        read_suite(write(tmp_path, seeds=[1], distilled={"c": ["a-s2"]}))
    converted = {"c": ["a", "--macs", "0.5", "--seed", "{seed}"], "d": ["b-s3", "--macs", "0.2"]}
    assert read_suite(write(tmp_path, seeds=[0, 3], distilled=converted)).distilled == {
        "c-s0": ["a-s0", "--macs", "0.5", "--seed", "0"],
        "c-s3": ["a-s3", "--macs", "0.5", "--seed", "3"],
        "d": ["b-s3", "--macs", "0.2"],
    }
    assert read_suite(write(tmp_path, seeds=[1], distilled={"c": ["a-s1"]})).distilled == {"c": ["a-s1"]}


def test_every_run_is_trained_with_every_setting(tmp_path: Path) -> None:
    settings = {"slow": ["--lr=1"], "fast": ["--lr=2"]}
    suite = read_suite(write(tmp_path, settings=settings, distilled={"c": ["b-fast", "--macs", "0.5"]}))
    assert suite.runs == {
        "a-slow": ["--x", "--lr=1"],
        "a-fast": ["--x", "--lr=2"],
        "b-slow": ["--lr=1"],
        "b-fast": ["--lr=2"],
    }
    assert suite.distilled == {"c": ["b-fast", "--macs", "0.5"]}
    with_seeds = read_suite(write(tmp_path, settings=settings, seeds=[4]))
    assert set(with_seeds.runs) == {"a-slow-s4", "a-fast-s4", "b-slow-s4", "b-fast-s4"}
    assert with_seeds.runs["a-fast-s4"] == ["--x", "--lr=2", "--machine.seed=4"]
    with pytest.raises(ConfigError, match="'c' has no teacher among the runs a-"):
        read_suite(write(tmp_path, settings=settings, distilled={"c": ["a"]}))


def test_signed_distances_are_compared_by_their_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_tools(tmp_path, monkeypatch, WRITE_CONFIG)
    suite = read_suite(write(tmp_path, evaluator="sdf", seeds=[0], evaluate=["--repeats", "3"]))
    run_suite(suite, Console(quiet=True))
    last = calls.read_text().splitlines()[-1]
    assert last.startswith("eugen-sdf evaluate --load-config ")
    assert "--names a-s0 b-s0 --output" in last
    assert last.endswith(f"--output {tmp_path / 'out/report'} --repeats 3")
    with pytest.raises(ConfigError, match="evaluator is 'mesh'; allowed is one of images, sdf"):
        read_suite(write(tmp_path, evaluator="mesh"))
