"""The suite: what is read from YAML, what is skipped, what a failing step says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from eugen_nerf.cli import suite as module
from eugen_nerf.cli.suite import Suite, read_suite, run_suite
from eugen_nerf.core.errors import ConfigError, DataError, RunError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yml")), ids=lambda path: path.stem)
def test_shipped_suites_are_consistent(path: Path) -> None:
    suite = read_suite(path)
    assert not set(suite.runs) & set(suite.distilled)
    assert {teacher for teacher, *_ in suite.distilled.values()} <= set(suite.runs)
    assert all(
        isinstance(argument, str) for args in [*suite.runs.values(), *suite.distilled.values()] for argument in args
    )


@pytest.mark.parametrize("content", ["- a list", "name: only", "name: x\nunknown: 1", "a: ["])
def test_a_file_that_is_no_suite_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yml is no suite"):
        read_suite(path)


def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Stands in for every command: notes its call, then runs `script`."""
    tool, calls = tmp_path / "tool", tmp_path / "calls"
    tool.write_text(f'#!/bin/sh\necho "$TOOL $*" >> {calls}\n{script}\n')
    tool.chmod(0o755)
    monkeypatch.setattr(module, "_tool", lambda name: ["env", f"TOOL={name}", str(tool)])
    return calls


def make_suite(tmp_path: Path, **changes: object) -> Suite:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    fields = {"name": "t", "output": tmp_path / "out", "method": "m", "data": data, "runs": {"a": ["--x"], "b": []}}
    return Suite(**{**fields, **changes})  # type: ignore[arg-type]


WRITE_CONFIG = r"""
out=; name=
while [ $# -gt 0 ]; do
  case $1 in --output-dir) out=$2;; --experiment-name) name=$2;; esac
  shift
done
if [ -n "$out" ]; then mkdir -p "$out/$name/m/run"; touch "$out/$name/m/run/config.yml"; fi
"""


def test_a_finished_step_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_tools(tmp_path, monkeypatch, WRITE_CONFIG)
    suite = make_suite(tmp_path, distilled={"c": ["a", "--num-features", "3"]})
    console = Console(quiet=True)
    run_suite(suite, console)
    first = calls.read_text().splitlines()
    assert sorted(line.split()[0] for line in first) == ["eugen-distill", "eugen-eval", "ns-train", "ns-train"]
    assert "--num-features 3" in next(line for line in first if line.startswith("eugen-distill"))
    calls.unlink()
    (tmp_path / "out/runs/b/m/run/training.json").unlink()  # b was interrupted: no record of its end
    run_suite(suite, console)
    second = calls.read_text().splitlines()
    assert [line.split()[0] for line in second] == ["ns-train", "eugen-eval"]
    assert "--experiment-name b" in second[0]


def test_a_failing_step_names_its_last_line_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tools(tmp_path, monkeypatch, "echo fine; echo 'error: it broke' >&2; exit 3")
    with pytest.raises(RunError, match=r"error: it broke.*train-.*\.log"):
        run_suite(make_suite(tmp_path), Console(quiet=True))


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run_suite(make_suite(tmp_path, data=tmp_path / "nowhere"), Console(quiet=True))


def test_yaml_round_trip_gives_paths(tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    path.write_text(yaml.safe_dump({"name": "n", "output": "o", "method": "m", "runs": {"a": []}, "data": "d"}))
    suite = read_suite(path)
    assert (suite.output, suite.data) == (Path("o"), Path("d"))
