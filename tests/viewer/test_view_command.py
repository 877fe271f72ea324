"""The command: what it refuses in one line, and that a wheel has all of the viewer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from setuptools.config.pyprojecttoml import read_configuration

from eugen_nerf.cli import view

ROOT = Path(__file__).resolve().parents[2]


def refused(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["eugen-view", *words])
    with pytest.raises(SystemExit) as stopped:
        view.main()
    assert stopped.value.code == 1
    return capsys.readouterr().err.strip()


def test_refusals_are_one_line(
    tiny_dense_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = str(tiny_dense_run)
    for words, said in (
        (["--load-config", str(tmp_path / "config.yml")], "no run at"),
        (["--load-config", run, "--names", "a", "b"], "2 names for 1 runs"),
        (["--load-config", run, run, "--names", "a", "a"], "give each a name of its own"),
        (["--load-config", run, "--port", "0"], "a port lies between"),
        (["--load-config", run, "--host", "192.0.2.7"], "not an address of this machine"),
        (["--load-config", run, "--largest", "3"], "16 or more pixels"),
        (["--load-config", run, "--device", "cuda:99"], "cannot be used here"),
        (["--load-config"], "no run to look at"),
    ):
        line = refused(words, monkeypatch, capsys)
        last = line.splitlines()[-1]
        assert last.startswith("error: "), line
        assert said in last


def test_a_wheel_has_every_file_of_the_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tool = read_configuration(ROOT / "pyproject.toml", expand=True)["tool"]["setuptools"]
    assert "eugen_viewer" in tool["packages"]
    assert {p.parent.name for p in (ROOT / "viewer").rglob("*.py")} == {"eugen_viewer"}
    assert "eugen_nerf.cli" in tool["packages"]
